"""A scenario's service level objective: which requests met it, and the goodput that comes of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from loadgen.message import joined, say
from loadgen.metrics.definitions import NS_PER_MS, carries_none, tpot_ms, ttft_from_intended_ms
from loadgen.record import RequestRecord
from loadgen.validation import Strict

LIMITS = ("ttft_ms", "tpot_ms", "e2e_ms")
Milliseconds = Annotated[float, Field(gt=0, le=86_400_000)]


class Slo(Strict):
    """Upper limits, in ms, that so many per cent of the requests are to stay within, all of them at once."""

    ttft_ms: Milliseconds | None = None
    tpot_ms: Milliseconds | None = None
    e2e_ms: Milliseconds | None = None
    percentile: float = Field(default=95.0, gt=0, lt=100)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.limits():
            raise ValueError("give a limit: `ttft_ms`, `tpot_ms` or `e2e_ms`")
        return self

    @property
    def share(self) -> float:
        """Share of the requests that must meet it, 0 to 1."""
        return self.percentile / 100

    def limits(self) -> dict[str, float]:
        """The limits that are set, ms."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def text(self) -> str:
        """It in words, such as `95% of the requests with TTFT <= 500 ms and TPOT <= 50 ms`."""
        parts = [f"{name.removesuffix('_ms').upper()} <= {value:g} ms" for name, value in self.limits().items()]
        return say(
            "{share} of the requests with {engines}",
            share=f"{self.percentile:g}%",
            engines=joined("{some} and {last}", parts),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class SloFigures:
    """How a block, or an engine's cell, stands to an SLO."""

    goodput_per_s: float | None
    """Requests that finished inside the window and met every limit / the window's length."""
    met: int
    """Measured requests that met every limit."""
    requests: int
    """Measured requests, failed ones included: those met none."""
    met_share: float | None
    holds: bool | None
    """Whether the share is at least the SLO's percentile. Of the requests measured: no interval."""
    met_share_by_limit: dict[str, float | None]
    """The share for each limit alone, which tells the one that binds."""


def used(record: RequestRecord, limit: str, most_ms: float) -> float:
    """The share of one limit that a request used up: infinite if it failed, none of TPOT without a second token.

    A TPOT that the stream does not tell has kept no limit.

    TTFT and E2E count from when the schedule wanted the request: what waits, here or there, is waiting all the same.
    """
    if not record.ok:
        return math.inf
    if limit == "tpot_ms":
        value = tpot_ms(record)
        if value is None:
            return math.inf if carries_none(record) else 0.0
        return value / most_ms
    if limit == "ttft_ms":
        value = ttft_from_intended_ms(record)
    else:
        value = None if record.t_last is None else (record.t_last - record.t_intended) / NS_PER_MS
    return math.inf if value is None else value / most_ms


def keeps(record: RequestRecord, limit: str, most_ms: float) -> bool:
    """Whether a request stayed within one limit."""
    return used(record, limit, most_ms) <= 1


def strain(record: RequestRecord, slo: Slo) -> float:
    """The largest share of any limit that a request used up; infinite if it failed. More than 1 is a miss."""
    return max(used(record, limit, most) for limit, most in slo.limits().items())


def meets(record: RequestRecord, slo: Slo) -> bool:
    """Whether a request stayed within every limit."""
    return strain(record, slo) <= 1


def count_met(records: Iterable[RequestRecord], slo: Slo) -> int:
    """How many requests met it."""
    return sum(meets(record, slo) for record in records)


def slo_figures(measured: Sequence[RequestRecord], finished_met: int, seconds: float, slo: Slo) -> SloFigures:
    """Work out the figures.

    Args:
        measured: the measured requests, failed ones included.
        finished_met: requests of any phase that finished inside the window and met it.
        seconds: the window's length; 0 when nothing was measured.
        slo: the objective.
    """
    total = len(measured)
    met = count_met(measured, slo)
    by_limit = {
        limit: sum(keeps(record, limit, most) for record in measured) / total if total else None
        for limit, most in slo.limits().items()
    }
    return SloFigures(
        goodput_per_s=finished_met / seconds if seconds else None,
        met=met,
        requests=total,
        met_share=met / total if total else None,
        holds=met >= needed(total, slo.share) if total else None,
        met_share_by_limit=by_limit,
    )


def needed(total: int, share: float) -> int:
    """How many of `total` requests must meet it: the least whole number that is at least `share` of them."""
    # Without the rounding, 0.95 x 20 would need 20: its product is a little over 19.
    return math.ceil(round(total * share, 9))
