"""Asks whether prompts that were sent before are answered sooner."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from loadgen.endpoints.answers import Answer
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.preflight.prefix_cache import MIN_PREFILL_MS
from loadgen.preflight.sample import PrefixProbe

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


def _prompts(recipe: PromptRecipe, tokens: int, seed: str) -> Callable[[int], Any]:
    """Prompts of so many tokens by number: text, or token ids."""
    factory = PromptFactory(recipe, prompt_tokens=tokens, seed=seed)
    return lambda number: json.loads(factory.prompt(number))
