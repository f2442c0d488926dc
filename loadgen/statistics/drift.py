"""Whether the machine moved: first and last block of each engine, the trend of the ratio, what the order left of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from loadgen.statistics.interval import Spread, common_slope, slope
from loadgen.statistics.metrics import Floats, Metric

NOTABLE_P = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class DriftFacts:
    """Logarithms throughout. A spread is None where there is nothing to tell chance from."""

    change: tuple[float, float]
    """a's and b's last block over the first."""
    spreads: tuple[Spread | None, Spread | None]
    trend: Spread | None
    """Change of b over a from the first repeat to the last, along a straight line."""
    order: Spread | None
    """b over a that a drift linear in time, the same for both, would show between equal engines."""

    @property
    def notable_trend(self) -> float:
        """The trend where it is beyond chance, else 0."""
        return notable(self.trend)

    @property
    def notable_order(self) -> float:
        """The bias of the order where the drift is beyond chance, else 0."""
        return notable(self.order)

    def moved(self, claimed: float, margin: float) -> tuple[bool, bool]:
        """Whether a and b moved beyond chance, and by more than the difference claimed and the margin."""
        least = max(abs(claimed), math.log1p(margin))

        a, b = map(notable, self.spreads)
        return abs(a) > least, abs(b) > least


def notable(spread: Spread | None) -> float:
    """An estimate that is beyond chance, else 0."""
    return spread.estimate if spread is not None and spread.p_value < NOTABLE_P else 0.0


def first_to_last(metric: Metric, units: Sequence[Floats], started: Floats) -> tuple[float, Spread | None] | None:
    """How far one engine moved: the logarithm of its last block's figure over its first's, and its spread by chance.

    Chance is how blocks scatter around the engine's own straight line: requests of one block say little of the next.
    There is none to see with fewer than three blocks. None where a block's figure is not above 0.

    Args:
        metric: which figure.
        units: the blocks, in any order, one at least.
        started: when they started.
    """
    figures = np.array([metric.pooled([unit]) for unit in units])
    if figures.min() <= 0:
        return None
    logs = np.log(figures)
    change = float(logs[int(np.argmax(started))] - logs[int(np.argmin(started))])
    line = slope(started, logs)
    if line is None:
        return change, None
    one_block = line.error * math.sqrt(len(units)) * float(started.std())
    return change, Spread(change, math.sqrt(2) * one_block, line.freedom)


def drift_facts(
    metric: Metric,
    units: tuple[Sequence[Floats], Sequence[Floats]],
    started: tuple[Floats, Floats],
    contributions: tuple[Floats, Floats],
) -> DriftFacts | None:
    """Look for drift in one cell's pairs of blocks; None where a block's figure is not above 0.

    Args:
        metric: which figure.
        units: a's and b's blocks, the pairs in any order, two at least.
        started: when they started.
        contributions: pseudo-values of each block on the log scale, shape (pairs,).
    """
    a, b = (first_to_last(metric, own, times) for own, times in zip(units, started, strict=True))
    if a is None or b is None:
        return None
    turns = np.argsort(np.argsort(started[0] + started[1], kind="stable"), kind="stable").astype(np.float64)
    trend = slope(turns, contributions[1] - contributions[0])
    common = common_slope([(started[0], contributions[0]), (started[1], contributions[1])])
    return DriftFacts(
        change=(a[0], b[0]),
        spreads=(a[1], b[1]),
        trend=_scaled(trend, len(turns) - 1),
        order=_scaled(common, float(started[1].mean() - started[0].mean())),
    )


def _scaled(spread: Spread | None, factor: float) -> Spread | None:
    """The spread times a factor; with a factor of 0 it says nothing."""
    if spread is None or factor == 0:
        return None
    return Spread(spread.estimate * factor, spread.error * abs(factor), spread.freedom)
