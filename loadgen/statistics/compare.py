"""Compare two engines over all cells of a run: `compare` takes raw values and gives `result.Statistics`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.statistics import holm
from loadgen.statistics.drift import notable
from loadgen.statistics.interval import Spread, from_log
from loadgen.statistics.lengths import depends_on_length, length_differs, not_compared
from loadgen.statistics.measure import Measured, Pairs, measure, pair
from loadgen.statistics.metrics import METRICS, CellSample, Load, Metric
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.overall import Mean, groups_of, mean_over_cells
from loadgen.statistics.pooling import share
from loadgen.statistics.power import detectable, further_repeats
from loadgen.statistics.result import (
    CellResult,
    Comparison,
    Drift,
    Estimate,
    Judged,
    LeftOut,
    LoadResult,
    Overall,
    Reason,
    Settings,
    Side,
    Statistics,
    Verdict,
)
from loadgen.statistics.starts import units
from loadgen.statistics.verdict import Evidence, Judgement, combine, judge

Key = tuple[str | Load | None, str]
"""Cell and metric of a comparison; a load for the one over its cells, None for the one over all."""
LARGEST_DETECTABLE = math.log(10)
MORE_WOULD_DECIDE: frozenset[Reason] = frozenset({"one_repeat", "too_noisy", "multiplicity"})


def compare(
    a: str,
    b: str,
    cells: Sequence[CellSample],
    settings: Settings | None = None,
    metrics: Sequence[Metric] = METRICS,
) -> Statistics:
    """Compare engine `b` with engine `a`.

    Args:
        a: name of the engine that ratios are taken against.
        b: name of the other.
        cells: raw values of each cell; their order changes no figure.
        settings: what the verdicts go by; None: the defaults.
        metrics: what is compared; of `settings.headline` those that are among them count.

    Raises:
        ValueError: two cells have one id, or an engine has two valid blocks of one repeat in a cell.
    """
    settings = settings or Settings()
    paired = {cell.id: pair(cell) for cell in cells}
    if len(paired) < len(cells):
        raise ValueError("two cells have the same id")
    found, means, starts = measure_together(cells, metrics, paired)
    load_of = {cell.id: cell.load for cell in cells}
    left_out = {cell: pairs.left_out for cell, pairs in paired.items()}
    return conclude(a, b, left_out, load_of, found, means, settings, metrics, starts)


def measure_together(
    cells: Sequence[CellSample], metrics: Sequence[Metric], paired: Mapping[str, Pairs] | None = None
) -> tuple[dict[Key, Measured], dict[Key, Mean], int]:
    """Each metric in each cell with the scatter that cells share, its means over cells, and the independent starts."""
    paired = paired or {cell.id: pair(cell) for cell in cells}
    known = units(cells)
    found: dict[Key, Measured] = {
        (cell, metric.key): measure(metric, pairs.blocks, known.of_repeat)
        for cell, pairs in paired.items()
        for metric in metrics
    }
    found |= {
        (cell, metric.key): not_compared(found[cell, metric.key])
        for cell in length_differs(cells)
        for metric in metrics
        if depends_on_length(metric)
    }
    means: dict[Key, Mean] = {}
    names = sorted(paired)  # so that the order of cells changes no digit
    load_of = {cell.id: cell.load for cell in cells}
    loads = [load_of[name] for name in names]
    groups = groups_of(loads)
    for metric in metrics:
        own = [found[cell, metric.key] for cell in names]
        apart = {load: mean_over_cells([own[place] for place in places]) for load, places in groups.items()}
        shared, together = share(own, loads, apart, known.starts)
        found |= {(cell, metric.key): one for cell, one in zip(names, shared, strict=True)}
        means |= {(load, metric.key): mean for load, mean in together.items()}
    return found, means, known.starts


def conclude(
    a: str,
    b: str,
    cells: Mapping[str, list[LeftOut]],
    loads: Mapping[str, Load | None],
    found: Mapping[Key, Measured],
    means: Mapping[Key, Mean],
    settings: Settings,
    metrics: Sequence[Metric],
    starts: int = 1,
) -> Statistics:
    """Give the verdicts on what was measured, paired or not, under one family of comparisons.

    Args:
        a: name of the engine that ratios are taken against.
        b: name of the other.
        cells: the blocks that each cell leaves out.
        loads: the load of each cell.
        found: each metric in each cell.
        means: each metric over all cells, and over those of single loads.
        settings: what the verdicts go by.
        metrics: what is compared.
        starts: independent starts of both engines.
    """
    judging = _Judging(settings, _tests(found, means, settings))
    results = [
        _cell(
            cell,
            left_out,
            {metric.key: judging.cell(cell, metric, found[cell, metric.key]) for metric in metrics},
            settings,
        )
        for cell, left_out in cells.items()
    ]

    def wide(load: Load | None) -> dict[str, Overall]:
        chosen = [cell for cell in results if load is None or loads[cell.id] == load]
        return {
            metric.key: judging.overall(
                (load, metric.key),
                metric,
                means[load, metric.key],
                [(found[cell.id, metric.key], cell.metrics[metric.key]) for cell in chosen],
            )
            for metric in metrics
        }

    overall = wide(None)
    verdict, reason = combine(_headline(overall, settings))
    return Statistics(
        a=a,
        b=b,
        settings=settings,
        scope="starts" if starts > 1 else "processes",
        starts=starts,
        scatter="shared" if any(one.scatter == "shared" for one in _chosen(overall, settings)) else "own",
        family=len(judging.adjusted),
        verdict=verdict,
        reason=reason,
        overall=overall,
        loads=[
            _load(load, wide(load), settings)
            for load in dict.fromkeys(load for load, _ in means)
            if isinstance(load, Load)
        ],
        cells=results,
    )


def _chosen(judged: Mapping[str, Judged], settings: Settings) -> list[Judged]:
    return [judged[key] for key in settings.headline if key in judged]


def _headline(judged: Mapping[str, Judged], settings: Settings) -> list[Judgement]:
    return [(one.verdict, one.reason) for one in _chosen(judged, settings)]


def _cell(cell: str, left_out: list[LeftOut], metrics: dict[str, Comparison], settings: Settings) -> CellResult:
    verdict, reason = combine(_headline(metrics, settings))
    return CellResult(id=cell, verdict=verdict, reason=reason, metrics=metrics, left_out=left_out)


def _load(load: Load, metrics: dict[str, Overall], settings: Settings) -> LoadResult:
    verdict, reason = combine(_headline(metrics, settings))
    return LoadResult(unit=load.unit, value=load.value, verdict=verdict, reason=reason, metrics=metrics)


def _tests(found: Mapping[Key, Measured], means: Mapping[Key, Mean], settings: Settings) -> dict[Key, float]:
    """The p-values of the family: the headline metrics of each cell, and their means over two cells or more."""
    tests: dict[Key, float] = {
        (cell, key): one.ratio.p_value
        for (cell, key), one in found.items()
        if key in settings.headline and one.problem is None and len(one.units) > 1 and one.ratio is not None
    }
    for (load, key), mean in means.items():
        if key in settings.headline and mean.cells > 1 and mean.ratio is not None:
            tests[load, key] = mean.ratio.p_value
    return tests


class _Judging:
    """Verdicts under one family of comparisons."""

    def __init__(self, settings: Settings, tests: Mapping[Key, float]) -> None:
        values = list(tests.values())
        self.settings = settings
        weights = holm.shares([not isinstance(place, str) for place, _ in tests])
        self.adjusted = dict(zip(tests, holm.adjusted(values, weights).tolist(), strict=True))
        self.levels = dict(zip(tests, holm.levels(values, settings.alpha, weights).tolist(), strict=True))

    def cell(self, cell: str, metric: Metric, one: Measured) -> Comparison:
        """The verdict on one metric in one cell."""
        key: Key = (cell, metric.key)
        drift = one.drift
        within, below = self._floor(metric, one)
        evidence = Evidence(
            better=metric.better,
            repeats=len(one.repeats),
            units=len(one.units),
            ratio=one.ratio,
            p_value=self.adjusted.get(key, one.ratio.p_value if one.ratio else 1.0),
            problem=one.problem,
            within_floor=within,
            below_floor=below,
            trend=drift.notable_trend if drift else 0.0,
            order_bias=drift.notable_order if drift else 0.0,
            event_bias=one.event_bias,
        )
        judged = self._judged(key, metric, evidence, one)
        return Comparison(
            **judged,
            a=_figure(one, one.a, 0),
            b=_figure(one, one.b, 1),
            difference=_difference(one),
            requests_a=one.requests[0] if one.requests else None,
            requests_b=one.requests[1] if one.requests else None,
            drift=self._drift(one, claimed=judged["verdict"] in ("a", "b")),
        )

    def overall(self, key: Key, metric: Metric, mean: Mean, cells: Sequence[tuple[Measured, Comparison]]) -> Overall:
        """The verdict on one metric over several cells; of a single one, its own."""
        counts: dict[Verdict, int] = dict(Counter(comparison.verdict for _, comparison in cells))
        several = [(one, comparison) for one, comparison in cells if one.ratio is not None and len(one.units) > 1]
        counting = [(one, comparison) for one, comparison in several if not one.problem]
        if len(cells) == 1 or len(counting) == 1:
            alone = (counting or cells)[0][1]
            same = {name: getattr(alone, name) for name in Judged.model_fields}
            return Overall(**same, cells=mean.cells, verdicts=counts)
        floors = [self._floor(metric, one) for one, _ in counting]
        evidence = Evidence(
            better=metric.better,
            repeats=mean.repeats,
            units=mean.units,
            ratio=mean.ratio,
            p_value=self.adjusted.get(key, mean.ratio.p_value if mean.ratio else 1.0),
            problem=_shared_problem([one for one, _ in cells]),
            within_floor=bool(floors) and all(within for within, _ in floors),
            below_floor=bool(floors) and all(below for _, below in floors),
            trend=notable(mean.trend),
            order_bias=mean.order_bias,
            event_bias=sum(one.event_bias for one, _ in counting) / len(counting) if counting else 0.0,
        )
        judged = self._judged(key, metric, evidence, mean)
        return Overall(**judged, cells=mean.cells, verdicts=counts)

    def _judged(self, key: Key, metric: Metric, evidence: Evidence, one: Measured | Mean) -> dict[str, Any]:
        verdict, reason = judge(evidence, self.settings)
        ratio, level = evidence.ratio, self.levels.get(key, self.settings.alpha)
        tested = ratio is not None and evidence.units > 1
        estimate = None if one.log_ratio is None else _ratio(one.log_ratio, ratio)
        return {
            "metric": metric.key,
            "unit": metric.unit,
            "better": metric.better,
            "headline": key[1] in self.settings.headline,
            "repeats": evidence.repeats,
            "ratio": estimate,
            "p_value": ratio.p_value if ratio is not None and tested else None,
            "p_adjusted": self.adjusted.get(key),
            "scatter": one.scatter,
            "freedom": ratio.freedom if ratio is not None else None,
            "verdict": verdict,
            "reason": reason,
            "faster": _faster(ratio) if ratio is not None and verdict in ("a", "b") else None,
            "detectable": _detectable(ratio, level) if ratio is not None and tested else None,
            "further_repeats": self._further(evidence, level) if reason in MORE_WOULD_DECIDE else None,
        }

    def _further(self, evidence: Evidence, level: float) -> int | None:
        """More repeats, where more of the same would decide. After one repeat: at the least."""
        ratio = evidence.ratio
        if ratio is None:
            return None
        units = max(evidence.units, 1)
        more = further_repeats(ratio, units, alpha=level, reach=math.log1p(self.settings.margin))
        return None if more is None else more * math.ceil(evidence.repeats / units)

    def _floor(self, metric: Metric, one: Measured) -> tuple[bool, bool]:
        """Whether the difference lies within the client's own error with its whole interval, and by itself."""
        floor = self.settings.floors_ms.get(metric.source)
        if floor is None or one.figures is None:
            return False, False
        low, high = one.difference.interval() if one.difference else (-math.inf, math.inf)
        return -floor <= low and high <= floor, abs(one.figures[1] - one.figures[0]) < floor

    def _drift(self, one: Measured, *, claimed: bool) -> Drift | None:
        drift = one.drift
        if drift is None or one.log_ratio is None:
            return None
        sides: tuple[Side, Side] = ("a", "b")
        moved = drift.moved(one.log_ratio if claimed else 0.0, self.settings.margin)
        return Drift(
            a=_ratio(drift.change[0], drift.spreads[0]),
            b=_ratio(drift.change[1], drift.spreads[1]),
            moved=[side for side, did in zip(sides, moved, strict=True) if did],
            trend=from_log(drift.trend.estimate) if drift.trend else None,
            trend_p=drift.trend.p_value if drift.trend else None,
            order_bias=from_log(drift.order.estimate) if drift.order else None,
            order_p=drift.order.p_value if drift.order else None,
        )


def _ratio(estimate: float, spread: Spread | Mixture | None) -> Estimate:
    """An estimate that is a logarithm, with its interval where there is one."""
    if spread is None:
        return Estimate(estimate=from_log(estimate))
    low, high = spread.interval()
    return Estimate(estimate=from_log(estimate), ci95=(from_log(low), from_log(high)))


def _figure(one: Measured, spread: Spread | None, side: int) -> Estimate | None:
    if one.figures is None:
        return None
    figure = one.figures[side]
    if spread is None:
        return Estimate(estimate=figure)
    low, high = spread.interval()
    return Estimate(estimate=figure, ci95=(from_log(low), from_log(high)))


def _difference(one: Measured) -> Estimate | None:
    if one.figures is None:
        return None
    return Estimate(
        estimate=one.figures[1] - one.figures[0], ci95=one.difference.interval() if one.difference else None
    )


def _faster(ratio: Spread | Mixture) -> Estimate:
    """By which share the winner is faster: the ratio of speeds, less 1."""
    low, high = ratio.interval()
    low, high = (low, high) if ratio.estimate > 0 else (-high, -low)
    return Estimate(estimate=from_log(abs(ratio.estimate)) - 1, ci95=(from_log(low) - 1, from_log(high) - 1))


def _detectable(ratio: Spread | Mixture, level: float) -> float | None:
    """As a share; None beyond tenfold."""
    smallest = detectable(ratio, level)
    return math.expm1(smallest) if smallest < LARGEST_DETECTABLE else None


def _shared_problem(cells: Sequence[Measured]) -> Reason | None:
    """Why no cell can be judged; None where one can, or has its figures at least."""
    if any(one.problem is None for one in cells):
        return None
    return cells[0].problem if cells else "not_measured"
