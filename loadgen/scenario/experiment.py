"""What a scenario is to show of an engine's inside: a claim, what it predicts, and the figures that decide."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loadgen.validation import Strict

Figure = Literal[
    "found_again",
    "copies_computed",
    "computed_again",
    "requests_a_step",
    "prompt_tokens_a_step",
    "preemptions",
    "gap_by_arrival",
    "longest_wait",
    "burst_gap_growth",
    "tpot_to_first",
    "slowing_down",
    "events_a_token",
]
"""How each is counted: `loadgen/explain/block_figures.py`, and docs/engines/experiments.md."""
Range = Annotated[list[float | None], Field(min_length=2, max_length=2)]


class Experiment(Strict):
    """A claim and its test. Ranges are by the engine's name in the race, else by its kind."""

    number: str = Field(description="which of the experiments it is, such as 7a")
    claim: str
    prediction: str
    page: str = Field(description="where the mechanism is explained, from the repository's top")
    decides: dict[Figure, dict[str, Range]] = Field(
        min_length=1, description="by figure and engine, from and to; null: without end"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for figure, ranges in self.decides.items():
            for engine, (low, high) in ranges.items():
                if low is not None and high is not None and low > high:
                    raise ValueError(f"`decides`: {figure} of {engine} must be [from, to]")
        return self
