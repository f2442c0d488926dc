"""What figures over some time are made of: sums and peaks of readings, which add up over blocks. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

COVERED = 0.9
"""Share of a window that readings must reach over."""
WIDEST_GAP_S, WIDEST_GAP_SHARE = 10.0, 0.25
"""Widest pause between two readings, the longer of both: beyond it nobody knows what was between."""

Points = Sequence[tuple[float, float]]
"""(moment, value), in order of time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tally:
    """What figures are made of: sums, which add up over blocks, and peaks."""

    sums: Mapping[str, float]
    """Of counters their rise, of gauges their integral over time; and what the client counted."""
    peaks: Mapping[str, float]
    seconds: float
    blocks: int = 1
    restarted: bool = False
    """Whether a counter began again, so that there are none."""
    cards: Mapping[str, Tally] = dataclasses.field(default_factory=dict)
    """By GPU."""

    def plus(self, other: Tally) -> Tally:
        """Both together: what one of them does not have is not known of both. Of each GPU, of the blocks on it."""
        cards = {**self.cards, **other.cards}
        both = self.cards.keys() & other.cards.keys()
        return Tally(
            {name: self.sums[name] + other.sums[name] for name in self.sums if name in other.sums},
            {name: max(self.peaks[name], other.peaks[name]) for name in self.peaks if name in other.peaks},
            self.seconds + other.seconds,
            self.blocks + other.blocks,
            self.restarted or other.restarted,
            cards | {gpu: self.cards[gpu].plus(other.cards[gpu]) for gpu in both},
        )


def mean(sums: Mapping[str, float], above: str, below: str, factor: float = 1.0) -> float | None:
    """A quotient; None where there is nothing to divide by."""
    if above not in sums or sums.get(below, 0.0) <= 0:
        return None
    return factor * sums[above] / sums[below]


def reached(moments: Sequence[float], start: float, end: float) -> tuple[float, float] | None:
    """The part of a window that readings reach over; None where that is not nearly all of it."""
    if len(moments) < 2:
        return None
    low, high = max(start, moments[0]), min(end, moments[-1])
    if high - low < COVERED * (end - start):
        return None
    inside = [at for at in moments if low < at < high]
    before = max((at for at in moments if at <= low), default=low)
    after = min((at for at in moments if at >= high), default=high)
    gap = max(np.diff([before, *inside, after]))
    return None if gap > max(WIDEST_GAP_S, WIDEST_GAP_SHARE * (end - start)) else (low, high)


def near(points: Points, start: float, end: float) -> Points:
    """The readings between two moments, and the ones next to these."""
    at = [moment for moment, _ in points]
    first, last = int(np.searchsorted(at, start, side="right")) - 1, int(np.searchsorted(at, end))
    return points[max(first, 0) : last + 1]


def fell(points: Points) -> bool:
    """Whether a counter began again."""
    return any(after < before for (_, before), (_, after) in itertools.pairwise(points))


def rise(points: Points, start: float, end: float) -> float | None:
    """By how much a counter rose; None where fewer than two readings have it."""
    if len(points) < 2:
        return None
    low, high = np.interp([start, end], [at for at, _ in points], [value for _, value in points])
    return float(high - low)


def integral(points: Points, start: float, end: float) -> float:
    """A gauge times seconds, on straight lines between readings."""
    at, value = [moment for moment, _ in points], [reading for _, reading in points]
    moments = [start, *(moment for moment in at if start < moment < end), end]
    return float(np.trapezoid(np.interp(moments, at, value), moments))


def peak(points: Points, start: float, end: float) -> float | None:
    """The highest reading between two moments; of none there, the higher of those next to them."""
    inside = [value for at, value in points if start <= at <= end]
    return max(inside or [value for _, value in near(points, start, end)], default=None)
