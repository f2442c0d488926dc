"""A script: traffic written down group by group, each at its moment, which becomes a trace."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from loadgen.scenario.shapes import MOST, Seconds
from loadgen.scenario.trace import MAX_ARRIVALS, Trace
from loadgen.validation import Strict

Tokens = Annotated[int, Field(ge=1, le=MOST)]


class Part(Strict):
    """So many requests of one length, at one instant or at equal distances."""

    requests: Annotated[int, Field(ge=1, le=MAX_ARRIVALS)]
    prompt_tokens: Tokens
    output_tokens: Tokens
    at_s: Seconds = Field(default=0.0, description="when the first is sent, after the start")
    every_s: Seconds = Field(default=0.0, description="between two of them; 0: all at one instant")
    same: bool = Field(default=False, description="all have one and the same prompt")


class Arrival(NamedTuple):
    """One request of a script."""

    at_ns: int
    part: int
    """The number of its part."""
    prompt: int
    """The number of its prompt."""


def arrivals(parts: Sequence[Part]) -> list[Arrival]:
    """The requests of a script by time; those of one instant in the order of its parts."""
    numbers = itertools.count()
    found = []
    for number, part in enumerate(parts):
        prompt = next(numbers)
        for at in range(part.requests):
            found.append(Arrival(round((part.at_s + at * part.every_s) * 1e9), number, prompt))
            prompt = prompt if part.same or at + 1 == part.requests else next(numbers)
    return sorted(found, key=lambda arrival: arrival.at_ns)


def script_trace(parts: Sequence[Part]) -> Trace:
    """What a script becomes. Raises ValueError: its requests are too few or too many."""
    count = sum(part.requests for part in parts)
    if not 2 <= count <= MAX_ARRIVALS:
        raise ValueError(f"`load.script`: it has {count} requests in all: give 2 to {MAX_ARRIVALS:,}")
    found = arrivals(parts)
    return Trace(
        tuple(arrival.at_ns for arrival in found),
        tuple(parts[arrival.part].prompt_tokens for arrival in found),
        tuple(parts[arrival.part].output_tokens for arrival in found),
        tuple(arrival.prompt for arrival in found),
    )
