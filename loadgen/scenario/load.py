"""The load of a scenario: how requests are offered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from loadgen.scenario.script import Part, script_trace
from loadgen.scenario.shapes import Step, TraceFacts
from loadgen.scenario.trace import Trace
from loadgen.validation import Strict


class Load(Strict):
    """How requests are offered: `concurrency` for a closed loop, `batch`; `rate`, `trace` or `script` for an open loop.

    Closed loop: each user sends its next request when its last one ended. Batch: so many requests are sent at the same
    instant, and the next as many when all have ended. Open loop: requests are sent at `rate` a second, or as the trace
    or the script has it, on an absolute schedule, whatever became of the earlier ones.
    """

    concurrency: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(default_factory=list)
    batch: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default_factory=list, description="requests sent at the same instant, the next when all have ended"
    )
    rate: list[Annotated[float, Field(gt=0, le=100_000)]] = Field(default_factory=list)
    arrival: Literal["poisson", "constant"] = "poisson"
    step: Step | None = Field(default=None, description="a burst: for a time the rate is another")
    trace: TraceFacts | None = Field(default=None, description="a .jsonl file, relative to the scenario's")
    script: list[Part] = Field(default_factory=list, description="groups of requests, each at its moment")

    @model_validator(mode="before")
    @classmethod
    def _of_script(cls, given: Any) -> Any:
        """A script is replayed as the trace that it becomes."""
        if not isinstance(given, dict) or given.get("trace") is not None:
            return given
        trace = scripted(given.get("script"))
        return given if trace is None else {**given, "trace": trace.facts("").model_dump()}

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.concurrency) + bool(self.batch) + bool(self.rate) + (self.trace is not None) > 1:
            raise ValueError(ONE_KIND)
        if self.script:
            made = script_trace(self.script)
            if self.trace is None or self.trace.digest != made.digest:
                raise ValueError("give a `trace` or a `script`, not both")
        if self.step is not None and not self.rate:
            raise ValueError("`step` goes with a `rate`")
        return self

    @property
    def kinds(self) -> int:
        """How many kinds of load are given, 0 or 1."""
        return int(bool(self.concurrency or self.batch or self.rate or self.trace))


ONE_KIND = (
    "give either `concurrency` (closed loop) or `rate` (open loop), send in a `batch`, or replay a `trace` or "
    "`script` instead; an empty list is none of these"
)


def scripted(script: Any) -> Trace | None:
    """What a script becomes; None for none, and for one that is told to be wrong where the field itself is checked."""
    try:
        return script_trace([Part.model_validate(part) for part in script]) if script else None
    except (TypeError, ValueError):
        return None
