"""One metric in one cell: its figures with their scatter, before any verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from loadgen.statistics.drift import DriftFacts, drift_facts
from loadgen.statistics.interval import (
    Spread,
    all_but_one,
    difference,
    half_jackknife,
    halves,
    jackknife,
    pseudo_values,
)
from loadgen.statistics.metrics import BlockSample, CellSample, Floats, Metric
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.result import LeftOut, Reason, Scatter, Side
from loadgen.statistics.within import STRETCHES, log_variance

REQUESTS_OF_RATES = "e2e_ms"
"""Whose requests tell how a rate scatters: a closed loop's throughput follows from their latency."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """The repeats of a cell in which both engines have a valid block, and the blocks that are left out."""

    blocks: list[tuple[BlockSample, BlockSample]]
    left_out: list[LeftOut]


def pair(cell: CellSample) -> Pairs:
    """Pair the blocks by repeat: same prompts, adjacent in time.

    Raises:
        ValueError: an engine has two valid blocks of one repeat.
    """
    sides: dict[Side, Sequence[BlockSample]] = {"a": cell.a, "b": cell.b}
    valid: dict[Side, dict[int, BlockSample]] = {"a": {}, "b": {}}
    left_out = []
    for side, blocks in sides.items():
        for block in blocks:
            if block.invalid is not None:
                left_out.append(LeftOut(engine=side, repeat=block.repeat, reason=block.invalid))
            elif block.repeat in valid[side]:
                raise ValueError(f"{cell.id}: two valid blocks of engine {side} in repeat {block.repeat}")
            else:
                valid[side][block.repeat] = block
    # An attempt that another one made up for is no block that is missing.
    left_out = [block for block in left_out if block.repeat not in valid[block.engine]]
    both = sorted(valid["a"].keys() & valid["b"].keys())
    for side, found in valid.items():
        left_out += [LeftOut(engine=side, repeat=repeat, reason=None) for repeat in sorted(found.keys() - set(both))]
    left_out.sort(key=lambda block: (block.repeat, block.engine, block.reason or ""))
    return Pairs([(valid["a"][repeat], valid["b"][repeat]) for repeat in both], left_out)


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Figures of both engines. Spreads are of logarithms but for `difference`; None where there is no interval."""

    repeats: list[int]
    requests: tuple[int, int] | None
    """Values pooled; None for rates."""
    figures: tuple[float, float] | None
    """None where nothing was measured."""
    problem: Reason | None = None
    """Why there can be no verdict, whatever the figures."""
    a: Spread | None = None
    b: Spread | None = None
    ratio: Spread | Mixture | None = None
    difference: Spread | Mixture | None = None
    units: tuple[int, ...] = ()
    """What leaving out goes by: the repeats, or the starts of the engines where there are several."""
    ratio_without: Floats | None = None
    """log(b / a) without each unit, in the order of `units`; None with fewer than two."""
    scatter: Scatter = "own"
    within: float = -math.inf
    """What the requests inside the blocks say of the ratio's variance (`within.log_variance`)."""
    drift: DriftFacts | None = None
    event_bias: float = 0.0
    """What of the ratio may be due to the engines' numbers of tokens in an event, as a logarithm."""

    @property
    def log_ratio(self) -> float | None:
        """log(b / a), also where it has no interval."""
        if self.figures is None or min(self.figures) <= 0 or self.problem == "answer_lengths":
            return None
        return math.log(self.figures[1]) - math.log(self.figures[0])


def within_block(metric: Metric, unit: Floats) -> Spread | None:
    """Logarithm of one block's figure with its scatter from stretch to stretch; None where there is none to see.

    Stretches, and not single requests, because neighbours in a queue wait for the same reasons.
    """
    parts = metric.stretches(unit, STRETCHES)
    whole = metric.pooled([unit])
    if parts is None or whole <= 0:
        return None
    without = metric.pooled_choices(parts, all_but_one(len(parts)))
    return jackknife(math.log(whole), np.log(without)) if (without > 0).all() else None


def measure(
    metric: Metric, blocks: Sequence[tuple[BlockSample, BlockSample]], of_repeat: Mapping[int, int] | None = None
) -> Measured:
    """Work out one metric from the pairs of blocks.

    With two units or more the scatter is that of the figure without each unit, and for percentiles that of half of the
    units (jackknife on the log scale, n - 1 degrees of freedom): for a mean, nearly the paired t-interval on the
    units' logarithms. With one unit it is the scatter within it.

    Args:
        metric: which figure.
        blocks: a's and b's block of each repeat.
        of_repeat: the unit of each repeat (`starts.units`); None: the repeat itself.
    """
    if metric.source == "tpot_ms" and any(block.no_tpot is not None for both in blocks for block in both):
        return Measured([], None, None, "tpot_basis")
    found = [(x, metric.unit_of(x), y, metric.unit_of(y)) for x, y in blocks]
    pairs = [(x, u, y, v) for x, u, y, v in found if u is not None and v is not None]
    if not pairs:
        return Measured([], None, None, "not_measured" if blocks else "no_valid_pair")
    repeats = [x.repeat for x, _, _, _ in pairs]
    places: dict[int, list[int]] = {}
    for place, repeat in enumerate(repeats):
        places.setdefault(repeat if of_repeat is None else of_repeat[repeat], []).append(place)
    units = (
        [metric.joined([pairs[place][1] for place in own]) for own in places.values()],
        [metric.joined([pairs[place][3] for place in own]) for own in places.values()],
    )
    requests = None if metric.figure == "rate" else (sum(map(len, units[0])), sum(map(len, units[1])))
    figures = metric.pooled(units[0]), metric.pooled(units[1])
    if min(figures) <= 0:
        return Measured(repeats, requests, figures, "not_positive")
    problem: Reason | None = None
    if requests is not None and not isinstance(metric.figure, str) and min(requests) * (100 - metric.figure) < 100:
        problem = "few_requests"
    if len(places) == 1:
        return _within(metric, repeats, requests, figures, problem, units)
    n = len(places)
    without = _of_choices(metric, units, all_but_one(n))
    of_halves = None if isinstance(metric.figure, str) else _of_choices(metric, units, halves(n))
    if min(float(values.min()) for values in (without, without if of_halves is None else of_halves)) <= 0:
        return Measured(repeats, requests, figures, "not_positive")
    logs, log_figures = np.log(without), [math.log(figure) for figure in figures]

    def spread(estimate: float, scale: Callable[[Floats], Floats]) -> Spread:
        if of_halves is None:
            return jackknife(estimate, scale(without))
        return half_jackknife(estimate, scale(of_halves), n)

    started = (
        np.array([np.mean([pairs[place][0].started_at for place in own]) for own in places.values()]),
        np.array([np.mean([pairs[place][2].started_at for place in own]) for own in places.values()]),
    )
    contributions = pseudo_values(log_figures[0], logs[0]), pseudo_values(log_figures[1], logs[1])
    return Measured(
        repeats=repeats,
        requests=requests,
        figures=figures,
        problem=problem,
        a=spread(log_figures[0], lambda values: np.log(values[0])),
        b=spread(log_figures[1], lambda values: np.log(values[1])),
        ratio=spread(log_figures[1] - log_figures[0], lambda values: np.log(values[1]) - np.log(values[0])),
        difference=spread(figures[1] - figures[0], lambda values: values[1] - values[0]),
        units=tuple(places),
        ratio_without=logs[1] - logs[0],
        within=within_blocks(metric, [block for x, _, y, _ in pairs for block in (x, y)]),
        drift=drift_facts(metric, units, started, contributions),
        event_bias=event_bias(metric, [y for _, _, y, _ in pairs]) - event_bias(metric, [x for x, *_ in pairs]),
    )


def within_blocks(metric: Metric, blocks: Sequence[BlockSample]) -> float:
    """`within.log_variance` of a metric's requests."""
    source = REQUESTS_OF_RATES if metric.figure == "rate" else metric.source
    return log_variance([block.requests[source] for block in blocks if source in block.requests])


def event_bias(metric: Metric, blocks: Sequence[BlockSample]) -> float:
    """The mean of blocks' `event_bias` for TPOT; 0 for other metrics."""
    return float(np.mean([block.event_bias for block in blocks])) if metric.source == "tpot_ms" else 0.0


def _of_choices(metric: Metric, units: tuple[list[Floats], list[Floats]], choices: list[tuple[int, ...]]) -> Floats:
    """a's and b's figure over each choice of blocks, shape (2, choices)."""
    return np.array([metric.pooled_choices(own, choices) for own in units])


def _within(
    metric: Metric,
    repeats: list[int],
    requests: tuple[int, int] | None,
    figures: tuple[float, float],
    problem: Reason | None,
    units: tuple[list[Floats], list[Floats]],
) -> Measured:
    """The figures of one pair of blocks, with the scatter within them."""
    a, b = within_block(metric, units[0][0]), within_block(metric, units[1][0])
    if a is None or b is None:
        return Measured(repeats, requests, figures, problem)
    plain = [Spread(figure, figure * s.error, s.freedom) for figure, s in zip(figures, (a, b), strict=True)]
    return Measured(
        repeats, requests, figures, problem, a, b, ratio=difference(b, a), difference=difference(plain[1], plain[0])
    )
