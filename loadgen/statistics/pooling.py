"""Gives the cells of a metric the scatter that they know together, in place of each one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from loadgen.statistics.interval import Spread, jackknife_error, pseudo_values
from loadgen.statistics.measure import Measured
from loadgen.statistics.metrics import Floats, Load
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.overall import Mean
from loadgen.statistics.scatter import FEWEST_CELLS, PROCESSES, STARTS, Scatter, shared_scatter


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """The logarithm of a figure or a ratio in one cell, from two units or more."""

    spread: Spread
    without: Floats
    """The same without each unit, in the order of `units`."""
    units: tuple[int, ...]
    within: float
    """What the requests inside the blocks say of its variance (`within.log_variance`)."""

    def contributions(self, units: Sequence[int]) -> list[float]:
        """What each unit of the run contributes, nan where the cell lacks it.

        For percentiles leaving out one block understates the scatter, which `spread` knows: their pseudo-values are
        stretched to it.
        """
        n = len(self.units)
        deviations = pseudo_values(self.spread.estimate, self.without)
        deviations -= deviations.mean()
        plain = float(jackknife_error(self.without, n, n - 1))
        stretched = deviations * (self.spread.error / plain if plain > 0 else 0.0)
        known = dict(zip(self.units, stretched.tolist(), strict=True))
        return [known.get(unit, float("nan")) for unit in units]


def known_of(one: Measured) -> Known | None:
    """The log ratio of a cell that counts and has two units or more."""
    if one.problem is not None or not isinstance(one.ratio, Spread) or one.ratio_without is None:
        return None
    return Known(one.ratio, one.ratio_without, one.units, one.within)


def scatter_of(cells: Sequence[Known], starts: int, loads: Sequence[Load | None]) -> Scatter | None:
    """The scatter that cells know together; None where they are fewer than four, or nothing scatters.

    Args:
        cells: of one metric.
        loads: the load of each.
        starts: independent starts; the repeats of one start have less in common than several starts have.
    """
    if len(cells) < FEWEST_CELLS:
        return None
    units = sorted({unit for one in cells for unit in one.units})
    contributions = np.array([one.contributions(units) for one in cells])
    if not np.nanmax(np.abs(contributions)) > 1e-12:
        return None
    within = np.array([one.within for one in cells])
    told = within if np.isfinite(within).all() else None
    log_load = log_loads(loads)
    return shared_scatter(contributions, told, STARTS if starts > 1 else PROCESSES, log_load)


def log_loads(loads: Sequence[Load | None]) -> Floats | None:
    """Logarithms of loads; None where they are not all of one unit."""
    values = [load.value for load in loads if load is not None]
    if len(values) < len(loads) or len({load.unit for load in loads if load is not None}) != 1:
        return None
    return np.log(np.array(values, dtype=np.float64))


def share(
    cells: Sequence[Measured], loads: Sequence[Load | None], means: Mapping[Load | None, Mean], starts: int
) -> tuple[list[Measured], dict[Load | None, Mean]]:
    """Let cells know their scatter together; as they came where that cannot be (`scatter_of`).

    Args:
        cells: one metric in each cell, its blocks paired by repeat.
        loads: the load of each cell.
        means: the same over all cells (None), and over those of single loads.
        starts: independent starts of both engines.
    """
    known = {place: one for place, cell in enumerate(cells) if (one := known_of(cell)) is not None}
    scatter = scatter_of(list(known.values()), starts, [loads[place] for place in known])
    if scatter is None or means[None].log_ratio is None:
        return list(cells), dict(means)
    found = list(cells)
    for (place, one), variances, weights in zip(known.items(), scatter.variances, scatter.weights, strict=True):
        found[place] = with_ratio(cells[place], Mixture(one.spread.estimate, variances / len(one.units), weights))
    together = dict(means)
    for load, mean in means.items():
        rows = [row for row, place in enumerate(known) if load is None or loads[place] == load]
        if rows and mean.log_ratio is not None:
            variances, weights = scatter.of_all() if load is None else scatter.of_mean(rows)
            whole = Mixture(mean.log_ratio, variances / mean.units, weights)
            together[load] = dataclasses.replace(mean, ratio=whole, scatter="shared")
    return found, together


def with_ratio(one: Measured, ratio: Mixture) -> Measured:
    """The cell with a shared scatter, of the difference too: b - a moves with the ratio by their mean."""
    if one.figures is None:
        raise ValueError("a cell without figures shares no scatter")
    a, b = one.figures
    ratio.interval()  # worked out once for both
    return dataclasses.replace(one, ratio=ratio, difference=ratio.scaled(b - a, (a + b) / 2), scatter="shared")
