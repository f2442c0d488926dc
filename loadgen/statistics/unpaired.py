"""Two engines whose blocks are not paired: two runs, or two machines.

Blocks of two runs share neither repeat nor moment, so each side has its own scatter (a jackknife over its blocks, on
the log scale, as in `measure`), and the difference that of both: Welch's t with Satterthwaite's degrees of freedom.
Requests of one block are never taken for independent where there is a second block.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from loadgen.statistics.compare import Key, conclude
from loadgen.statistics.drift import DriftFacts, first_to_last
from loadgen.statistics.interval import Spread, all_but_one, difference, half_jackknife, halves, jackknife
from loadgen.statistics.lengths import depends_on_length, length_differs, not_compared
from loadgen.statistics.measure import Measured, event_bias, within_block, within_blocks
from loadgen.statistics.metrics import METRICS, BlockSample, CellSample, Floats, Load, Metric
from loadgen.statistics.mixture import Mixture, summed
from loadgen.statistics.overall import Mean, groups_of
from loadgen.statistics.pooling import Known, scatter_of, with_ratio
from loadgen.statistics.result import LeftOut, Reason, Settings, Side, Statistics
from loadgen.statistics.starts import units_alone


@dataclasses.dataclass(frozen=True, slots=True)
class Alone:
    """One engine's figure in one cell, from blocks that are independent of each other."""

    repeats: tuple[int, ...]
    """Of the blocks that have values."""
    units: tuple[int, ...]
    """What leaving out goes by: each block, or each start of the engine where there are several."""
    requests: int | None
    """Values pooled; None for rates."""
    figure: float | None
    """None where nothing was measured."""
    problem: Reason | None = None
    """Why there can be no verdict, whatever the figure."""
    spread: Spread | None = None
    """Of the figure's logarithm: between blocks, or within the only one; None where there is none to see."""
    moved: tuple[float, Spread | None] | None = None
    """How far it moved from its first block to its last (`drift.first_to_last`); None with fewer than two."""
    without: Floats | None = None
    """The figure's logarithm without each unit, in the order of `units`; None with fewer than two."""
    within: float = -math.inf
    """What the requests inside the blocks say of the figure's variance (`within.log_variance`)."""
    event_bias: float = 0.0
    """As of `BlockSample`, the mean of the blocks."""


def alone(metric: Metric, blocks: Sequence[BlockSample], of_repeat: Mapping[int, int] | None = None) -> Alone:
    """Work out one metric of one engine from its valid blocks; `of_repeat` is the unit of each repeat, None: itself."""
    if metric.source == "tpot_ms" and any(block.no_tpot is not None for block in blocks):
        return Alone((), (), None, None, "tpot_basis")
    found = [(block, unit) for block in blocks if (unit := metric.unit_of(block)) is not None]
    if not found:
        return Alone((), (), None, None, "not_measured" if blocks else "no_valid_pair")
    repeats = tuple(block.repeat for block, _ in found)
    own: dict[int, list[Floats]] = {}
    for place, (block, unit) in enumerate(found):  # a repeat may occur twice where runs were put together
        own.setdefault(place if of_repeat is None else of_repeat[block.repeat], []).append(unit)
    names, units = tuple(own), [metric.joined(parts) for parts in own.values()]
    requests = None if metric.figure == "rate" else sum(map(len, units))
    figure = metric.pooled(units)
    problem: Reason | None = None
    if requests is not None and not isinstance(metric.figure, str) and requests * (100 - metric.figure) < 100:
        problem = "few_requests"
    if figure <= 0:
        return Alone(repeats, names, requests, figure, "not_positive")
    if len(units) == 1:
        return Alone(repeats, names, requests, figure, problem, within_block(metric, units[0]))
    n = len(units)
    without = metric.pooled_choices(units, all_but_one(n))
    of_halves = None if isinstance(metric.figure, str) else metric.pooled_choices(units, halves(n))
    if min(float(values.min()) for values in (without, without if of_halves is None else of_halves)) <= 0:
        return Alone(repeats, names, requests, figure, "not_positive")
    logs, log_figure = np.log(without), math.log(figure)
    spread = jackknife(log_figure, logs) if of_halves is None else half_jackknife(log_figure, np.log(of_halves), n)
    moved = first_to_last(metric, [unit for _, unit in found], np.array([block.started_at for block, _ in found]))
    counting = [block for block, _ in found]
    bias, within = event_bias(metric, counting), within_blocks(metric, counting)
    return Alone(repeats, names, requests, figure, problem, spread, moved, logs, within, bias)


def measure_unpaired(metric: Metric, a: Alone, b: Alone) -> Measured:
    """Put two engines' figures side by side. `repeats` of the result are as many as the side with fewer blocks has."""
    repeats = list(range(1, min(len(a.repeats), len(b.repeats)) + 1))
    units = tuple(range(min(len(a.units), len(b.units))))
    if a.figure is None or b.figure is None:
        return Measured([], None, None, a.problem if a.figure is None else b.problem)
    figures = a.figure, b.figure
    requests = None if a.requests is None or b.requests is None else (a.requests, b.requests)
    problem = a.problem or b.problem
    if a.spread is None or b.spread is None:
        return Measured(repeats, requests, figures, problem, a.spread, b.spread)
    plain = [Spread(f, f * s.error, s.freedom) for f, s in ((a.figure, a.spread), (b.figure, b.spread))]
    return Measured(
        repeats=repeats,
        requests=requests,
        figures=figures,
        problem=problem,
        a=a.spread,
        b=b.spread,
        units=units,
        ratio=difference(b.spread, a.spread),
        difference=difference(plain[1], plain[0]),
        drift=_moved(a, b),
        event_bias=b.event_bias - a.event_bias,
    )


def _moved(a: Alone, b: Alone) -> DriftFacts | None:
    """How far each moved in its own run. Nothing tells a drift between the runs from a difference."""
    if a.moved is None or b.moved is None:
        return None
    return DriftFacts((a.moved[0], b.moved[0]), (a.moved[1], b.moved[1]), trend=None, order=None)


def mean_unpaired(cells: Sequence[tuple[Alone, Alone]]) -> Mean:
    """Average log(b / a) over cells. Of each side the unit is the repeat of the whole matrix, as in `overall`."""
    usable = [
        (a, b)
        for a, b in cells
        if a.problem is None and b.problem is None and a.without is not None and b.without is not None
    ]
    if not usable:
        known = [(a.figure, b.figure) for a, b in cells if a.problem != "answer_lengths"]
        pairs = [(a, b) for a, b in known if a and b and a > 0 and b > 0]
        ratios = [math.log(b / a) for a, b in pairs]
        most = max((min(len(a.repeats), len(b.repeats)) for a, b in cells), default=0)
        return Mean(len(ratios), most, 1, float(np.mean(ratios)) if ratios else None, None, None, 0.0)
    of_a, of_b = _side_mean([a for a, _ in usable]), _side_mean([b for _, b in usable])
    ratio = difference(of_b, of_a)
    repeats = min(len({repeat for one in side for repeat in one.repeats}) for side in zip(*usable, strict=True))
    units = min(len({unit for one in side for unit in one.units}) for side in zip(*usable, strict=True))
    return Mean(len(usable), repeats, units, ratio.estimate, ratio, None, 0.0)


def _side_mean(cells: Sequence[Alone]) -> Spread:
    """One engine's mean of logarithms over cells, with its scatter from repeat to repeat."""
    units = sorted({unit for one in cells for unit in one.units})
    whole = [one.spread.estimate if one.spread is not None else math.nan for one in cells]
    without = []
    for one, estimate in zip(cells, whole, strict=True):
        known = dict(zip(one.units, one.without.tolist(), strict=True)) if one.without is not None else {}
        without.append([known.get(unit, estimate) for unit in units])
    return jackknife(float(np.mean(whole)), np.mean(without, axis=0))


def compare_unpaired(
    a: str,
    b: str,
    cells: Sequence[CellSample],
    settings: Settings | None = None,
    metrics: Sequence[Metric] = METRICS,
) -> Statistics:
    """Compare engine `b` with engine `a` where their blocks are independent; the rest is `compare.compare`'s.

    Raises:
        ValueError: two cells have one id.
    """
    settings = settings or Settings()
    if len({cell.id for cell in cells}) < len(cells):
        raise ValueError("two cells have the same id")
    found, means, starts = measure_together(cells, metrics)
    left_out = {cell.id: _left_out(cell) for cell in cells}
    load_of = {cell.id: cell.load for cell in cells}
    return conclude(a, b, left_out, load_of, found, means, settings, metrics, starts)


def measure_together(
    cells: Sequence[CellSample], metrics: Sequence[Metric]
) -> tuple[dict[Key, Measured], dict[Key, Mean], int]:
    """As `compare.measure_together`, where the blocks of the two engines are independent."""
    known = [units_alone([block for cell in cells for block in side(cell)]) for side in (_of_a, _of_b)]
    sides = {
        (cell.id, metric.key): (
            alone(metric, valid(cell.a), known[0].of_repeat),
            alone(metric, valid(cell.b), known[1].of_repeat),
        )
        for cell in cells
        for metric in metrics
    }
    found: dict[Key, Measured] = {
        (cell.id, metric.key): measure_unpaired(metric, *sides[cell.id, metric.key])
        for cell in cells
        for metric in metrics
    }
    for cell, metric in itertools.product(length_differs(cells), filter(depends_on_length, metrics)):
        key = cell, metric.key
        found[key] = not_compared(found[key])
        a_side, b_side = (dataclasses.replace(side, problem=found[key].problem) for side in sides[key])
        sides[key] = a_side, b_side
    starts = min(side.starts for side in known)
    means: dict[Key, Mean] = {}
    loads = [cell.load for cell in cells]
    groups = groups_of(loads)
    for metric in metrics:
        own = [sides[cell.id, metric.key] for cell in cells]
        apart = {load: mean_unpaired([own[place] for place in places]) for load, places in groups.items()}
        shared, together = _share([found[cell.id, metric.key] for cell in cells], own, loads, apart, starts)
        found |= {(cell.id, metric.key): one for cell, one in zip(cells, shared, strict=True)}
        means |= {(load, metric.key): mean for load, mean in together.items()}
    return found, means, starts


def _share(
    cells: Sequence[Measured],
    sides: Sequence[tuple[Alone, Alone]],
    loads: Sequence[Load | None],
    means: Mapping[Load | None, Mean],
    starts: int,
) -> tuple[list[Measured], dict[Load | None, Mean]]:
    """Let each side's cells know their scatter together (`pooling.share`); as they came where they cannot."""
    pairs = {place: (_known(a), _known(b)) for place, (a, b) in enumerate(sides)}
    known = {place: (a, b) for place, (a, b) in pairs.items() if a is not None and b is not None}
    own_loads = [loads[place] for place in known]
    a, b = (scatter_of([pair[side] for pair in known.values()], starts, own_loads) for side in (0, 1))
    if a is None or b is None or means[None].log_ratio is None:
        return list(cells), dict(means)
    found = list(cells)
    for row, (place, pair) in enumerate(known.items()):
        units = [len(one.units) for one in pair]
        parts = [(one.variances[row] / n, one.weights[row]) for one, n in zip((a, b), units, strict=True)]
        ratio = Mixture(pair[1].spread.estimate - pair[0].spread.estimate, *summed(*parts))
        found[place] = with_ratio(cells[place], ratio)
    together = dict(means)
    for load, mean in means.items():
        rows = [row for row, own in enumerate(own_loads) if load is None or own == load]
        if not rows or mean.log_ratio is None:
            continue
        pairs_there = [list(known.values())[row] for row in rows]
        units = [len({unit for pair in pairs_there for unit in pair[side].units}) for side in (0, 1)]
        wholes = [one.of_all() if load is None else one.of_mean(rows) for one in (a, b)]
        parts = [(variances / n, weights) for (variances, weights), n in zip(wholes, units, strict=True)]
        ratio = Mixture(mean.log_ratio, *summed(*parts))
        together[load] = dataclasses.replace(mean, ratio=ratio, scatter="shared")
    return found, together


def _known(one: Alone) -> Known | None:
    """One side of a cell, where it counts and has two units or more."""
    if one.problem is not None or one.spread is None or one.without is None:
        return None
    return Known(one.spread, one.without, one.units, one.within)


def _of_a(cell: CellSample) -> Sequence[BlockSample]:
    return cell.a


def _of_b(cell: CellSample) -> Sequence[BlockSample]:
    return cell.b


def valid(blocks: Sequence[BlockSample]) -> list[BlockSample]:
    """The blocks that decide something."""
    return [block for block in blocks if block.invalid is None]


def _left_out(cell: CellSample) -> list[LeftOut]:
    sides: tuple[tuple[Side, Sequence[BlockSample]], ...] = (("a", cell.a), ("b", cell.b))
    return [
        LeftOut(engine=side, repeat=block.repeat, reason=block.invalid)
        for side, blocks in sides
        for block in blocks
        # An attempt that another one made up for is no block that is missing.
        if block.invalid is not None and block.repeat not in {one.repeat for one in valid(blocks)}
    ]
