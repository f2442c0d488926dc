"""The checks by name, and which of them may stop a race. Names are stable: scripts give them to `--accept`."""

from __future__ import annotations

from collections.abc import Iterable

from loadgen.errors import UserError

BLOCKING = {
    "answers": "an engine does not answer the questions at all",
    "context-length": "not even the scenario's shortest cell fits into an engine's context",
    "prompt-tokens": "the engines count the same texts differently, by more than a constant",
    "output-length": "an engine that can be told an exact output length does not keep to it, or passes any limit",
    "greedy-text": "most greedy texts differ at their very first token",
    "degenerate-text": "an engine repeats one token, says nothing, or says the same to every prompt",
    "prefix-caching": "it is on at one engine and off at another, or not as the scenario declares it",
}
"""Checks that stop a race unless `--accept` names them, with the finding that does."""

NOTED = (
    *("model", "kv-cache", "measured-prompts", "logprobs", "usage", "tokens-per-event", "clumps", "role-event"),
    *("temperature", "seed", "top-p", "stop", "max-tokens", "unknown-fields"),
)
"""Checks whose differences are told and stop nothing."""


def parse_accept(given: Iterable[str]) -> frozenset[str]:
    """Read `--accept NAME[,NAME]`, given any number of times. Raises UserError for a name that stops nothing."""
    names = {name.strip() for item in given for name in item.split(",") if name.strip()}
    for name in sorted(names - BLOCKING.keys()):
        why = "never stops a race" if name in NOTED else "is no check of preflight's"
        raise UserError(f"--accept {name}: {name!r} {why}. Those that do: {', '.join(BLOCKING)}.")
    return frozenset(names)
