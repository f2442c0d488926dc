"""Whether the machine moved: first and last block of each engine, the trend of the ratio, what the order left of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from loadgen.statistics.interval import Spread, all_but_one, common_slope, difference, jackknife, slope
from loadgen.statistics.metrics import Floats, Metric

STRETCHES = 10
"""Stretches that a block is cut into: batch means, as of one long simulation (Law, Simulation Modeling, 9.5.3)."""
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

        def one(change: float, spread: Spread | None) -> bool:
            return abs(change) > least and (spread is None or spread.p_value < NOTABLE_P)

        return one(self.change[0], self.spreads[0]), one(self.change[1], self.spreads[1])


def notable(spread: Spread | None) -> float:
    """An estimate that is beyond chance, else 0."""
    return spread.estimate if spread is not None and spread.p_value < NOTABLE_P else 0.0


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


def first_to_last(metric: Metric, units: Sequence[Floats], started: Floats) -> tuple[float, Spread | None]:
    """How far one engine moved: the logarithm of its last block's figure over its first's, and its spread by chance.

    Args:
        metric: which figure.
        units: the blocks, in any order, one at least; figures above 0.
        started: when they started.
    """
    first, last = units[int(np.argmin(started))], units[int(np.argmax(started))]
    ends = within_block(metric, last), within_block(metric, first)
    spread = None if ends[0] is None or ends[1] is None else difference(ends[0], ends[1])
    return math.log(metric.pooled([last]) / metric.pooled([first])), spread


def drift_facts(
    metric: Metric,
    units: tuple[Sequence[Floats], Sequence[Floats]],
    started: tuple[Floats, Floats],
    contributions: tuple[Floats, Floats],
) -> DriftFacts:
    """Look for drift in one cell's pairs of blocks.

    Args:
        metric: which figure.
        units: a's and b's blocks, the pairs in any order, two at least; figures above 0.
        started: when they started.
        contributions: pseudo-values of each block on the log scale, shape (pairs,).
    """
    a, b = (first_to_last(metric, own, times) for own, times in zip(units, started, strict=True))
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
