"""A script: traffic written down group by group, each at its moment, which becomes a trace."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

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


def script_trace(parts: Sequence[Part]) -> Trace:
    """The arrivals of a script; those of one instant in the order of its parts.

    Raises ValueError: they are too few or too many.
    """
    count = sum(part.requests for part in parts)
    if not 2 <= count <= MAX_ARRIVALS:
        raise ValueError(f"`load.script`: it has {count} requests in all: give 2 to {MAX_ARRIVALS:,}")
    numbers = itertools.count()
    found = []
    for part in parts:
        prompt = next(numbers)
        for at in range(part.requests):
            moment = round((part.at_s + at * part.every_s) * 1e9)
            found.append((moment, part.prompt_tokens, part.output_tokens, prompt))
            prompt = prompt if part.same or at + 1 == part.requests else next(numbers)
    found.sort(key=lambda arrival: arrival[0])
    moments, prompts, outputs, which = zip(*found, strict=True)
    return Trace(moments, prompts, outputs, which)
