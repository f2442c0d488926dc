"""What is compared: one figure of many requests, or a rate over windows, always pooled from raw values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Better = Literal["lower", "higher"]


@dataclasses.dataclass(frozen=True, slots=True)
class Total:
    """What a block produced in its window: tokens, requests, or good requests."""

    amount: float
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class BlockSample:
    """One block's raw values."""

    repeat: int
    started_at: float
    """Seconds, of any clock that both engines' blocks share."""
    requests: Mapping[str, Floats] = dataclasses.field(default_factory=dict)
    """Values of each request by source (`ttft_ms`, ...), in the order in which the requests were sent."""
    totals: Mapping[str, Total] = dataclasses.field(default_factory=dict)
    """By source (`output_tokens`, ...)."""
    invalid: str | None = None
    """Why this block decides nothing (client-limited, not complete, ...); None when it counts."""
    failed: bool = False
    """Whether it broke off, so that nobody knows how many of its requests would have failed."""
    start: int | None = None
    """Which start of the engine it ran on, counted from 1; None where nobody knows."""
    event_bias: float = 0.0
    """Logarithm of TPOT over the true time a token, if the first event holds as many tokens as events do on average."""
    no_tpot: str | None = None
    """Why its streams carry no TPOT, in words; None where they do."""


class Load(NamedTuple):
    """What cells of other lengths may have in common."""

    unit: str
    """`users`, `req/s` or `batch`."""
    value: float
    """Above 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class CellSample:
    """One cell's blocks of both engines, in any order, at most one a repeat and engine that counts."""

    id: str
    a: Sequence[BlockSample]
    b: Sequence[BlockSample]
    load: Load | None = None
    """None: in no mean over the cells of one load."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One figure that engines are compared by."""

    key: str
    source: str
    """Key of `BlockSample.requests`, or of `BlockSample.totals` where `figure` is `rate`."""
    figure: float | Literal["mean", "rate"]
    """A percentile (50, 95, 99), the mean, or amount over seconds."""
    unit: str
    better: Better = "lower"

    def unit_of(self, block: BlockSample) -> Floats | None:
        """The block's raw values, or its [amount, seconds]; None where it has none."""
        if self.figure == "rate":
            total = block.totals.get(self.source)
            return np.array([total.amount, total.seconds]) if total is not None and total.seconds > 0 else None
        values = block.requests.get(self.source)
        return values if values is not None and values.size else None

    def pooled(self, units: Sequence[Floats]) -> float:
        """The figure of all units together. Percentiles interpolate linearly, as in `cell_summary.Distribution`."""
        if self.figure == "rate":
            amount, seconds = np.sum(units, axis=0)
            return float(amount / seconds)
        values = np.concatenate(units)
        return float(values.mean() if self.figure == "mean" else np.percentile(values, self.figure))

    def joined(self, units: Sequence[Floats]) -> Floats:
        """Several blocks' raw values as those of one."""
        if len(units) == 1:
            return units[0]
        return np.sum(units, axis=0) if self.figure == "rate" else np.concatenate(units)

    def pooled_choices(self, units: Sequence[Floats], choices: Sequence[Sequence[int]]) -> Floats:
        """`pooled` of each choice of units, by their places, shape (choices,): sorts or sums each unit once for all."""
        chosen = np.zeros((len(choices), len(units)))
        for row, choice in zip(chosen, choices, strict=True):
            row[list(choice)] = 1
        if isinstance(self.figure, str):
            rate = self.figure == "rate"
            sums = np.array([unit if rate else (unit.sum(), unit.size) for unit in units])
            above, below = (chosen @ sums).T
            return np.asarray(above / below)
        values = np.concatenate(units)
        order = np.argsort(values)
        values, owner = values[order], np.repeat(np.arange(len(units)), [unit.size for unit in units])[order]
        found = np.empty(len(choices))
        for i, row in enumerate(chosen.astype(bool)):
            own = values[row[owner]]
            place = (own.size - 1) * self.figure / 100
            low = own[int(place)]
            found[i] = low + (own[min(int(place) + 1, own.size - 1)] - low) * (place % 1)
        return found

    def stretches(self, unit: Floats, parts: int) -> list[Floats] | None:
        """Consecutive stretches of one block; None where it is too short, or only its total is known."""
        if self.figure == "rate" or unit.size < 2 * parts:
            return None
        return list(np.array_split(unit, parts))


def _latencies() -> list[Metric]:
    figures: tuple[tuple[str, float | Literal["mean"]], ...] = (("mean", "mean"), ("p50", 50), ("p95", 95), ("p99", 99))
    return [
        Metric(f"{source}.{name}", source, figure, "ms")
        for source in ("ttft_ms", "tpot_ms", "e2e_ms")
        for name, figure in figures
    ]


METRICS: tuple[Metric, ...] = (
    *_latencies(),
    Metric("output_tokens_per_s", "output_tokens", "rate", "tok/s", "higher"),
    Metric("requests_per_s", "requests", "rate", "req/s", "higher"),
)
"""ITL is not among them: engines that put several tokens into one event have other gaps, and are not slower by it."""

GOODPUT = Metric("slo.goodput_per_s", "good_requests", "rate", "req/s", "higher")
WITH_SLO: tuple[Metric, ...] = (*METRICS, GOODPUT)
"""What is compared where the scenario has an SLO."""

OF_BATCHES: tuple[Metric, ...] = tuple(
    Metric(f"batches.{name}.p50", f"batch_{name}", 50, "ms") for name in ("ttft_first_ms", "ttft_last_ms", "latency_ms")
)
"""Of a batch load, over its batches: told with their intervals, and not compared."""

HEADLINE: tuple[str, ...] = ("ttft_ms.p50", "tpot_ms.mean", "output_tokens_per_s")
"""The family of Holm's correction: the wait for the first token (the median, because one stall moves the mean of a
hundred), the pace after it (the mean, which a user's whole waiting follows), and what the machine delivers."""
