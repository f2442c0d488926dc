"""Finds out which sampling parameters an engine honours, from a few answers to one prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from loadgen.endpoints.answers import Answer, Refused
from loadgen.preflight.questions import LIMIT_TOKENS, OPEN_TOKENS
from loadgen.preflight.sample import Honoured


class AskPlainly(Protocol):
    """Asks the same prompt each time, for up to so many tokens, greedily unless fields say otherwise."""

    def __call__(self, tokens: int, **fields: Any) -> Answer:
        """Raise Refused if the engine does not answer."""


def ask_parameters(ask: AskPlainly) -> dict[str, Honoured]:
    """Return what becomes of temperature, seed, top-p, stop and max-tokens."""
    found: dict[str, Honoured] = dict.fromkeys(("temperature", "seed", "top-p", "stop", "max-tokens"), "cannot tell")
    try:
        greedy, repeated = ask(OPEN_TOKENS).text, ask(OPEN_TOKENS).text
    except Refused:
        return found
    found["max-tokens"] = _asked(lambda: judge_limit(ask(LIMIT_TOKENS).output_tokens))
    if (mark := stop_string(greedy)) is not None and greedy == repeated:
        found["stop"] = _asked(lambda: judge_stop(greedy, mark, ask(OPEN_TOKENS, stop=mark).text))

    hot: list[str] = []

    def sampled() -> Honoured:
        hot.extend(ask(OPEN_TOKENS, temperature=1, seed=seed).text for seed in (7, 7, 8))
        return "honoured" if set(hot) != {greedy} else "ignored"

    if greedy != repeated:  # nothing can be told by comparing texts
        return found
    found["temperature"] = _asked(sampled)
    if found["temperature"] == "honoured":
        found["seed"] = judge_seed(*hot)
        found["top-p"] = _asked(lambda: judge_top_p(greedy, ask(OPEN_TOKENS, temperature=1, top_p=0.01, seed=7).text))
    return found


def stop_string(text: str) -> str | None:
    """A string in the middle of a text to stop at; None if the text begins with it, as a text of one sign does."""
    mark = text[len(text) // 2 :][:4]
    return mark if mark.strip() and text.find(mark) > 0 else None


def judge_stop(greedy: str, mark: str, stopped: str) -> Honoured:
    """A text that ended at its stop string is the greedy one up to there, or a little less of it."""
    return "honoured" if mark not in stopped and greedy.startswith(stopped) else "ignored"


def judge_limit(output_tokens: int | None) -> Honoured:
    """Whether `max_tokens` alone limited an answer to `LIMIT_TOKENS`."""
    if output_tokens is None:
        return "cannot tell"
    return "honoured" if output_tokens <= LIMIT_TOKENS else "ignored"


def judge_seed(first: str, same_seed: str, other_seed: str) -> Honoured:
    """Texts sampled by seed 7, seed 7 again and seed 8."""
    return "honoured" if first == same_seed != other_seed else "ignored"


def judge_top_p(greedy: str, narrowed: str) -> Honoured:
    """With hardly any probability mass left, only the likeliest token is."""
    return "honoured" if narrowed == greedy else "ignored"


def _asked(judge: Callable[[], Honoured]) -> Honoured:
    try:
        return judge()
    except Refused as refused:
        return "refused" if refused.by_status else "cannot tell"
