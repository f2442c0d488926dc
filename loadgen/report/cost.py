"""Money for tokens, by cell and at an SLO's capacity, and what the cheaper engine saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from loadgen.analysis.cost import Interval, Saving, at_load, per_million, per_million_interval, saving
from loadgen.metrics.summary import CellSummary
from loadgen.monitoring.energy import EnergyRow
from loadgen.report.capacity import CapacityRow
from loadgen.report.cells import CellView
from loadgen.report.gpus import per_gpu, per_user
from loadgen.scenario.cost import Cost
from loadgen.statistics.result import Judged, Statistics

THROUGHPUT = "output_tokens_per_s"
TPOT = "tpot_ms.mean"


@dataclasses.dataclass(frozen=True, slots=True)
class Money:
    """Money for a million tokens; an end that is not known is None."""

    estimate: float | None
    low: float | None
    high: float | None

    @property
    def ci95(self) -> Interval | None:
        """Its 95% interval; None where an end is not known."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclasses.dataclass(frozen=True, slots=True)
class CostRow:
    """One engine in one cell."""

    cell: str
    engine: str
    gpus: int
    per_user: float | None
    """Output tokens a second that a user sees: 1 / mean TPOT."""
    per_gpu: float | None
    """Output tokens a second of each GPU."""
    output: Money
    """For output tokens."""
    total: Money
    """For all tokens, prompts included."""
    joules: float | None
    """For each output token; None where nobody measured it."""


@dataclasses.dataclass(frozen=True, slots=True)
class CapacityCost:
    """One engine at its capacity."""

    row: CapacityRow
    gpus: int
    output: Money
    total: Money


@dataclasses.dataclass(frozen=True, slots=True)
class SavingRow:
    """What throughput's verdict on two engines is worth; over all cells without a cell."""

    cell: str | None
    a: str
    b: str
    found: Saving | None
    """None where none may be claimed."""

    @property
    def cheaper(self) -> str | None:
        """The engine whose tokens cost less."""
        return None if self.found is None else self.a if self.found.cheaper == "a" else self.b

    @property
    def dearer(self) -> str | None:
        """The other one."""
        return None if self.found is None else self.b if self.found.cheaper == "a" else self.a


@dataclasses.dataclass(frozen=True, slots=True)
class Costs:
    """All that follows from the price of a GPU hour."""

    cost: Cost
    gpus: dict[str, int]
    """By engine."""
    rows: list[CostRow]
    capacity: list[CapacityCost]
    overall: list[SavingRow]
    """A comparison each."""
    savings: list[SavingRow]
    """By cell."""

    def saved(self, cell: str, engine: str) -> list[SavingRow]:
        """Where an engine is the cheaper one in a cell."""
        return [row for row in self.savings if row.cell == cell and row.cheaper == engine]


def costs_of(
    cost: Cost,
    gpus: Mapping[str, int],
    cells: Sequence[CellView],
    capacity: Sequence[CapacityRow],
    comparisons: Sequence[Statistics],
    energy: Sequence[EnergyRow],
) -> Costs:
    """Work out money from what the report has found; `gpus` of each engine."""
    joules = {(row.cell, row.engine): row.joules / row.output_tokens for row in energy if row.output_tokens > 0}
    return Costs(
        cost,
        dict(gpus),
        rows=[
            _row(cost, gpus[engine], view, engine, summary, joules.get((view.id, engine)))
            for view in cells
            for engine in gpus
            if (summary := view.engines[engine].summary) is not None
        ],
        capacity=[_at_capacity(cost, gpus[row.engine], row, cells) for row in capacity],
        overall=[_saving(None, found, found.overall.get(THROUGHPUT), gpus) for found in comparisons],
        savings=[
            _saving(cell.id, found, cell.metrics.get(THROUGHPUT), gpus) for found in comparisons for cell in found.cells
        ],
    )


def _row(cost: Cost, gpus: int, view: CellView, engine: str, summary: CellSummary, joules: float | None) -> CostRow:
    output, total = summary.output_tokens_per_s, summary.total_tokens_per_s
    ends = view.engines[engine].intervals.get(THROUGHPUT)
    # Lengths are exact, so all tokens are in proportion to the output tokens, and so is the interval.
    share = total / output if total and output else None
    scaled = None if ends is None or share is None else (ends[0] * share, ends[1] * share)
    return CostRow(
        cell=view.id,
        engine=engine,
        gpus=gpus,
        per_user=per_user(summary),
        per_gpu=per_gpu(summary, gpus),
        output=_money(cost, gpus, output, ends),
        total=_money(cost, gpus, total, scaled),
        joules=joules,
    )


def _money(cost: Cost, gpus: int, tokens_per_s: float | None, ends: Interval | None) -> Money:
    low, high = per_million_interval(cost.gpu_hour, gpus, ends) or (None, None)
    return Money(per_million(cost.gpu_hour, gpus, tokens_per_s), low, high)


def _at_capacity(cost: Cost, gpus: int, row: CapacityRow, cells: Sequence[CellView]) -> CapacityCost:
    """At a capacity in requests a second the tokens follow; at one in users they are read off the loads tried."""
    found = row.found
    if row.of == "rate":
        speeds = [None if load is None else load * row.output_tokens for load in (found.load, found.low, found.high)]
    else:
        speeds = _measured(row, cells)
    estimate, high, low = (per_million(cost.gpu_hour, gpus, speed) for speed in speeds)
    share = row.output_tokens / (row.prompt_tokens + row.output_tokens)
    total = (None if money is None else money * share for money in (estimate, low, high))
    return CapacityCost(row, gpus, Money(estimate, low, high), Money(*total))


def _measured(row: CapacityRow, cells: Sequence[CellView]) -> list[float | None]:
    """Output tokens a second at the capacity and at both ends of its interval: estimate, lower end, upper end."""
    points = []
    for view in cells:
        cell, entry = view.cell, view.engines[row.engine]
        value = entry.summary.output_tokens_per_s if entry.summary else None
        if cell is None or value is None:
            continue
        if (cell.prompt_tokens, cell.output_tokens, cell.shared_percent) == (
            row.prompt_tokens,
            row.output_tokens,
            round(row.shared_prefix * 100),
        ):
            points.append((float(cell.load), value, *entry.intervals.get(THROUGHPUT, (value, value))))
    points.sort()
    loads = [point[0] for point in points]
    wanted = ((row.found.load, 1), (row.found.low, 2), (row.found.high, 3))
    return [at_load(loads, [point[place] for point in points], load) for load, place in wanted]


def _saving(cell: str | None, found: Statistics, judged: Judged | None, gpus: Mapping[str, int]) -> SavingRow:
    what = None
    if judged is not None and judged.ratio is not None and judged.ratio.ci95 is not None:
        what = saving(judged.verdict, judged.ratio.estimate, judged.ratio.ci95, gpus[found.a], gpus[found.b])
    return SavingRow(cell, found.a, found.b, what)
