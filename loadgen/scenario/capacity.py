"""The `find_capacity:` of a scenario: between which loads to search, how closely, and how long a step is."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from loadgen.metrics.slo import Slo
from loadgen.validation import Strict

EXTENSIONS = 3
"""A step that stays undecided is given up after so many times its first requests, unless the scenario says more."""


class FindCapacity(Strict):
    """Search the highest load at which the scenario's SLO holds."""

    model_config = ConfigDict(serialize_by_alias=True)

    of: Literal["rate", "concurrency"]
    from_: Annotated[float, Field(gt=0, le=100_000)] = Field(alias="from", description="the first load to try")
    to: Annotated[float, Field(gt=0, le=100_000)] | None = Field(default=None, description="the highest load to try")
    precision: float = Field(default=0.05, ge=0.001, le=0.5, description="width of the last bracket, as a share")
    step_s: float | None = Field(default=None, gt=0, le=3600, description="shortest time of an open-loop step")
    max_step_s: float = Field(default=600.0, gt=0, description="most seconds of arrivals; a step ends after twice that")
    max_requests: int | None = Field(default=None, ge=1, description="most measured requests at one load")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.to is not None and self.to < self.from_:
            raise ValueError("`to` must not be less than `from`")
        whole = all(value is None or value == int(value) for value in (self.from_, self.to))
        if self.of == "concurrency" and not whole:
            raise ValueError("`from` and `to` of a concurrency must be whole numbers")
        return self

    def shortest_step_s(self, slo: Slo) -> float:
        """How long an open-loop step must last to show an overload, seconds.

        An engine that is overloaded by a share e falls behind by e seconds each second, so it takes limit / e until
        waiting alone has used up the tighter of the limits of TTFT and E2E. A step is as long as that takes for an
        overload of a quarter of the precision: a smaller one may pass, and moves the result by no more than that.
        """
        limits = slo.limits()
        waiting = min(limits[name] for name in ("ttft_ms", "e2e_ms") if name in limits)
        return self.step_s if self.step_s is not None else 4 * waiting / 1000 / self.precision

    def step_requests(self, requests: int, load: float, slo: Slo) -> int:
        """Measured requests of one block of a step at this load: `requests`, or as many as arrive in the least time."""
        if self.of == "concurrency":
            return requests
        longest = max(1, math.floor(load * self.max_step_s))
        return min(longest, max(requests, math.ceil(load * self.shortest_step_s(slo))))

    def most_requests(self, first: int) -> int:
        """Most measured requests at a load whose first block has `first`."""
        return self.max_requests if self.max_requests is not None else EXTENSIONS * first

    def looks(self, first: int) -> int:
        """How many blocks of `first` measured requests a load may get."""
        return max(1, math.ceil(self.most_requests(first) / first))
