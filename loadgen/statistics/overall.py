"""One metric over all cells, or over those of one load: the geometric mean of their ratios."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from loadgen.statistics.interval import Spread, jackknife, pseudo_values, slope
from loadgen.statistics.measure import Measured
from loadgen.statistics.metrics import Load
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.result import Scatter


@dataclasses.dataclass(frozen=True, slots=True)
class Mean:
    """The mean of log(b / a) over cells that count."""

    cells: int
    repeats: int
    units: int
    """What its scatter goes by: the repeats, or the starts where there are several."""
    log_ratio: float | None
    """None where no cell has a ratio."""
    ratio: Spread | Mixture | None
    """None where no cell has two repeats: then `log_ratio` is of all cells, else of those that have."""
    trend: Spread | None
    """Change of the ratio from the first repeat to the last, along a straight line."""
    order_bias: float
    """What drift, where beyond chance, would show between equal engines in this order of blocks."""
    scatter: Scatter = "own"


def mean_over_cells(cells: Sequence[Measured]) -> Mean:
    """Average one metric over cells, with the scatter from repeat to repeat of the whole matrix.

    The unit is the repeat and not the cell: cells of one repeat ran against the same start of the engine. A cell that
    lacks a repeat is not changed by leaving that repeat out.
    """
    usable = [one for one in cells if one.problem is None and one.ratio is not None and one.ratio_without is not None]
    if not usable:
        ratios = [one.log_ratio for one in cells if one.log_ratio is not None]
        mean = float(np.mean(ratios)) if ratios else None
        return Mean(len(ratios), max((len(one.repeats) for one in cells), default=0), 1, mean, None, None, 0.0)
    repeats = {repeat for one in usable for repeat in one.repeats}
    units = sorted({unit for one in usable for unit in one.units})
    estimate = float(np.mean([one.ratio.estimate for one in usable if one.ratio is not None]))
    without = np.mean([_without(one, units) for one in usable], axis=0)
    trend = slope(np.arange(len(units), dtype=np.float64), pseudo_values(estimate, without))
    steps = len(units) - 1
    return Mean(
        cells=len(usable),
        repeats=len(repeats),
        units=len(units),
        log_ratio=estimate,
        ratio=jackknife(estimate, without),
        trend=Spread(trend.estimate * steps, trend.error * steps, trend.freedom) if trend is not None else None,
        order_bias=float(np.mean([one.drift.notable_order if one.drift else 0.0 for one in usable])),
    )


def groups_of(loads: Sequence[Load | None]) -> dict[Load | None, list[int]]:
    """The places of the cells whose mean is judged: of all (None), and of each load in order.

    Of loads there are none where there is one load only, and those that have two cells or more.
    """
    found: dict[Load, list[int]] = {}
    for place, load in enumerate(loads):
        if load is not None:
            found.setdefault(load, []).append(place)
    groups: dict[Load | None, list[int]] = {None: list(range(len(loads)))}
    if len(found) > 1:
        groups |= {load: found[load] for load in sorted(found) if len(found[load]) > 1}
    return groups


def _without(one: Measured, units: Sequence[int]) -> list[float]:
    """A cell's log ratio without each of the units."""
    if one.ratio is None or one.ratio_without is None:
        raise ValueError("a cell without an interval is in no mean of intervals")
    known = dict(zip(one.units, one.ratio_without.tolist(), strict=True))
    return [known.get(unit, one.ratio.estimate) for unit in units]
