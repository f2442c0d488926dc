"""Whether an engine's prefix cache is on: by what it tells of prompts that were sent before, and by their times."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

from loadgen.endpoints.answers import Answer
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.message import say
from loadgen.preflight.sample import PrefixProbe

State = Literal["on", "off", "cannot tell"]
SAVED_ON, SAVED_OFF = 0.6, 0.25
"""Share of the prefill's time that a repeated prompt saves: at least the one where the cache is on, at most the other
where it is off. In between nothing is said."""
MIN_SHARE, MIN_PREFILL_MS = 0.3, 20.0
"""What prefill must at least be of a long prompt's time, and in all. Length costs the client and the wire some ms too,
which no cache saves."""

LONG_PROMPTS = (256, 1024, 4096)
"""Tokens beyond the overhead: as few as make a prompt's length felt."""
SHORT_PROMPT = 4
FELT = 3.0
"""A long prompt is long enough when it takes so many times as long as a short one, and twice `MIN_PREFILL_MS` more."""
REPEATS = 5


def probe_prefix_cache(
    ask: Callable[[Any], Answer], recipe: PromptRecipe, nonce: str, context_length: int | None
) -> PrefixProbe | None:
    """Time short, fresh and repeated prompts, in turn, so that a busy spell falls on all three.

    Args:
        ask: sends a prompt for an answer of one token.
        recipe: how prompts are made.
        nonce: makes the prompts new to any cache.
        context_length: of the engine, in tokens; None if it is not known.

    Returns None if not even the shortest of the long prompts fits.
    """
    lengths = [tokens + recipe.overhead for tokens in LONG_PROMPTS]
    lengths = [tokens for tokens in lengths if context_length is None or tokens < context_length]
    if not lengths:
        return None
    shorts = _prompts(recipe, SHORT_PROMPT + recipe.overhead, f"{nonce}/short")
    for tokens in lengths:
        longs = _prompts(recipe, tokens, f"{nonce}/{tokens}")
        ask(longs(0))  # the first of its size may have to be compiled for
        ask(shorts(tokens))
        told = ask(longs(0)).cached_tokens
        long_ms, short_ms = ask(longs(1)).elapsed_ms, ask(shorts(tokens + 1)).elapsed_ms
        if told is not None or long_ms >= max(FELT * short_ms, short_ms + 2 * MIN_PREFILL_MS):
            break
    short, fresh, again = [], [], []
    for number in range(REPEATS):
        short.append(ask(shorts(number)))
        fresh.append(ask(longs(2 + number)))
        again.append(ask(longs(2 + number)))
    return PrefixProbe(
        prompt_tokens=tokens,
        short_ms=tuple(answer.elapsed_ms for answer in short),
        fresh_ms=tuple(answer.elapsed_ms for answer in fresh),
        again_ms=tuple(answer.elapsed_ms for answer in again),
        cached_tokens=tuple(answer.cached_tokens for answer in again),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class CacheVerdict:
    """The state, and how it is known."""

    state: State
    why: str


def judge_prefix_cache(probe: PrefixProbe | None) -> CacheVerdict:
    """Say whether a prompt that was sent before is answered sooner.

    Cached tokens that the server tells decide. Without them times do: a short prompt's time is what every answer
    costs, a fresh long prompt's is that and its prefill, and a repeated one's lies near either. Medians and least times
    (other work on the machine only ever adds) must agree, so that a busy machine gives no answer and not a wrong one.
    """
    if probe is None:
        return CacheVerdict("cannot tell", say("not answered"))
    told = [count for count in probe.cached_tokens if count is not None]
    if told and len(told) == len(probe.cached_tokens):
        return _by_tokens(told, probe.prompt_tokens)
    return _by_times(probe)


def _by_tokens(told: Sequence[int], prompt_tokens: int) -> CacheVerdict:
    cached = statistics.median(told)
    words = say(
        "{cached} of {prompt} repeated prompt tokens came from its cache, it says",
        cached=f"{cached:g}",
        prompt=prompt_tokens,
    )
    if 2 * cached >= prompt_tokens:
        return CacheVerdict("on", words)
    return CacheVerdict("cannot tell" if cached else "off", words)


def _by_times(probe: PrefixProbe) -> CacheVerdict:
    short, fresh, again = (statistics.median(times) for times in (probe.short_ms, probe.fresh_ms, probe.again_ms))
    words = say(
        "{prompt} tokens take {fresh} ms fresh, {again} ms again, and a few {short} ms",
        prompt=probe.prompt_tokens,
        fresh=f"{fresh:.1f}",
        again=f"{again:.1f}",
        short=f"{short:.1f}",
    )
    least = (min(probe.short_ms), min(probe.fresh_ms), min(probe.again_ms))
    saved = [_saved(*times) for times in ((short, fresh, again), least)]
    if None in saved:
        return CacheVerdict("cannot tell", say("{times}: its length hardly matters", times=words))
    shares = [share for share in saved if share is not None]
    if min(shares) >= SAVED_ON:
        return CacheVerdict("on", words)
    if max(shares) <= SAVED_OFF:
        return CacheVerdict("off", words)
    return CacheVerdict("cannot tell", say("{times}: neither the one nor the other", times=words))


def _saved(short: float, fresh: float, again: float) -> float | None:
    """Share of a prefill that a repetition saves; None where prefill is too small to tell."""
    prefill = fresh - short
    return (fresh - again) / prefill if prefill >= max(MIN_SHARE * fresh, MIN_PREFILL_MS) else None


def _prompts(recipe: PromptRecipe, tokens: int, seed: str) -> Callable[[int], Any]:
    """Prompts of so many tokens by number: text, or token ids."""
    factory = PromptFactory(recipe, prompt_tokens=tokens, seed=seed)
    return lambda number: json.loads(factory.prompt(number))
