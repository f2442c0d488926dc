"""What a threshold is held against: the figure or the difference it names, in its unit, with intervals of any level."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from loadgen.analysis.samples import FAILED
from loadgen.gate.why import NO_RATIO, ONE_BLOCK, OTHER_LENGTHS, blocks_lost, no_block_counts, why_nothing
from loadgen.scenario.threshold import OF_BATCHES, Threshold
from loadgen.statistics.compare import measure_together
from loadgen.statistics.interval import Spread, from_log
from loadgen.statistics.lengths import depends_on_length
from loadgen.statistics.measure import Measured
from loadgen.statistics.metrics import BlockSample, CellSample, Metric
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.percentile_interval import percentile_interval
from loadgen.statistics.proportion import Proportion, difference_interval, proportion
from loadgen.statistics.unpaired import alone, valid
from loadgen.statistics.unpaired import measure_together as measure_unpaired_together

Interval = Callable[[float], tuple[float, float]]
SOURCES = {
    "ttft": "ttft_ms",
    "ttft_from_intended": "ttft_from_intended_ms",
    "tpot": "tpot_ms",
    "e2e": "e2e_ms",
    "output_tokens_per_s": "output_tokens",
    "requests_per_s": "requests",
    **{name: f"{name}_ms" for name in OF_BATCHES},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Quantity:
    """In the unit of its threshold: ms, percent, percentage points, tokens or requests a second."""

    estimate: float | None
    """None where nothing was measured."""
    interval: Interval | None = None
    """Of a confidence level; None where there is none."""
    problem: str | None = None
    """In words, why nothing can be decided."""
    within_floor: bool = False
    """Whether the difference found is less than the load generator's own error."""
    doubt: str | None = None
    """In words, why it cannot hold whatever the interval says; it may still fail."""


def metric_of(threshold: Threshold) -> Metric:
    """The metric that a threshold on latency or a rate looks at."""
    source = SOURCES[threshold.metric]
    if threshold.kind == "rate":
        return Metric(threshold.metric, source, "rate", threshold.unit, "higher")
    figure = "mean" if threshold.statistic in (None, "mean") else float(str(threshold.statistic)[1:])
    return Metric(f"{source}.{threshold.statistic}", source, figure, "ms")  # type: ignore[arg-type]


def limit_quantity(threshold: Threshold, blocks: Sequence[BlockSample]) -> Quantity:
    """An engine's own figure."""
    if threshold.kind == "errors":
        share = _share(blocks)
        if share is None:
            return Quantity(None, problem=no_block_counts(blocks))
        return Quantity(
            100 * share.estimate, lambda level: _scaled(share.interval(level), 100), doubt=blocks_lost(blocks)
        )
    metric = metric_of(threshold)
    one = alone(metric, valid(blocks))
    problem = why_nothing(one.problem, threshold, blocks) if one.problem is not None else None
    made = _quantity(one.figure, one.spread, len(one.repeats), problem, from_log)
    if one.figure is None or isinstance(metric.figure, str):
        return made
    percentile, units = metric.figure, [unit for block in valid(blocks) if (unit := metric.unit_of(block)) is not None]
    return dataclasses.replace(made, interval=lambda level: percentile_interval(units, percentile, level))


def measured_together(threshold: Threshold, cells: Sequence[CellSample], *, paired: bool) -> list[Measured] | None:
    """The metric of a threshold in each cell, with the scatter that cells share; None for errors, which are counted."""
    if threshold.kind == "errors":
        return None
    metric = metric_of(threshold)
    found, _, _ = (measure_together if paired else measure_unpaired_together)(cells, [metric])
    return [found[cell.id, metric.key] for cell in cells]


def difference_quantity(
    threshold: Threshold,
    cell: CellSample,
    *,
    paired: bool,
    floor_ms: float = 0.0,
    other_lengths: bool = False,
    measured: Measured | None = None,
) -> Quantity:
    """The difference of `b` against `a` in one cell.

    Args:
        threshold: one that is about a difference.
        cell: blocks of both.
        paired: whether blocks of one repeat ran side by side, in one run.
        floor_ms: the load generator's own error in this metric.
        measured: the metric as `measured_together` has it; None: by its own blocks alone.
        other_lengths: whether their answers differ in length.
    """
    if threshold.kind == "errors":
        a, b = _share(cell.a), _share(cell.b)
        if a is None or b is None:
            return Quantity(None, problem=no_block_counts(cell.a, cell.b))
        found = 100 * (b.estimate - a.estimate)
        return Quantity(
            found,
            lambda level: _scaled(difference_interval(b, a, level), 100),
            # Failures of A that nobody has counted make B look worse than it is: that decides nothing either way.
            problem=blocks_lost(cell.a),
            doubt=blocks_lost(cell.b),
        )
    if other_lengths and depends_on_length(metric_of(threshold)):
        return Quantity(None, problem=OTHER_LENGTHS)
    one = measured or (measured_together(threshold, [cell], paired=paired) or [])[0]
    figures = one.figures
    problem = why_nothing(one.problem, threshold, cell.a, cell.b) if one.problem is not None else None
    if figures is None:
        return Quantity(None, problem=problem)
    within = abs(figures[1] - figures[0]) < floor_ms
    if not threshold.relative:
        made = _quantity(figures[1] - figures[0], one.difference, _units(one), problem, lambda value: value)
    elif one.log_ratio is None:
        made = Quantity(None, problem=NO_RATIO)
    else:
        change = 100 * math.expm1(one.log_ratio)
        made = _quantity(change, one.ratio, _units(one), problem, lambda value: 100 * (from_log(value) - 1))
    return dataclasses.replace(made, within_floor=within)


def _quantity(
    estimate: float | None,
    spread: Spread | Mixture | None,
    blocks: int,
    problem: str | None,
    convert: Callable[[float], float],
) -> Quantity:
    if problem is None and blocks < 2:
        problem = ONE_BLOCK

    def interval(level: float) -> tuple[float, float]:
        low, high = spread.interval(level) if spread is not None else (-math.inf, math.inf)
        return convert(low), convert(high)

    return Quantity(estimate, interval if spread is not None else None, problem)


def _units(one: Measured) -> int:
    """What its scatter goes by: the repeats, or the starts where there are several."""
    return len(one.units) or min(len(one.repeats), 1)


def _share(blocks: Sequence[BlockSample]) -> Proportion | None:
    return proportion([block.requests[FAILED] for block in blocks if FAILED in block.requests])


def _scaled(interval: tuple[float, float], factor: float) -> tuple[float, float]:
    return interval[0] * factor, interval[1] * factor
