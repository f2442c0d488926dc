"""A share of requests, such as that of failures, with an interval that knows that failures come in bursts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from loadgen.statistics.interval import t_quantile
from loadgen.statistics.metrics import Floats


@dataclasses.dataclass(frozen=True, slots=True)
class Proportion:
    """How many of all, and how many requests that knowledge is worth."""

    amount: float
    total: float
    worth: float
    """The total over the design effect: less where blocks differ more than chance lets independent requests."""
    blocks: int

    @property
    def estimate(self) -> float:
        """The share."""
        return self.amount / self.total

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Clopper and Pearson's interval (1934) for as many requests as the sample is worth: Korn and Graubard,
        Confidence intervals for proportions with small expected number of positive counts (1998).
        """
        total = self.total
        if self.worth < self.total and self.blocks > 1:
            middle = 0.5 + level / 2
            few = (t_quantile(middle, self.total - 1) / t_quantile(middle, self.blocks - 1)) ** 2
            total = min(self.total, self.worth * few)
        amount, tail = self.estimate * total, (1 - level) / 2
        low = 0.0 if amount <= 0 else float(special.betaincinv(amount, total - amount + 1, tail))
        high = 1.0 if amount >= total else float(special.betaincinv(amount + 1, total - amount, 1 - tail))
        return low, high


def proportion(blocks: Sequence[Floats]) -> Proportion | None:
    """Take blocks of zeros and ones together; None without any value. One block is taken for independent requests."""
    sizes = np.array([block.size for block in blocks if block.size], dtype=np.float64)
    ones = np.array([block.sum() for block in blocks if block.size], dtype=np.float64)
    if not sizes.size:
        return None
    total, amount, count = float(sizes.sum()), float(ones.sum()), len(sizes)
    share = amount / total
    worth = total
    if count > 1 and 0 < share < 1:
        variance = mean_variance(ones, sizes)
        if variance > 0:
            worth = min(total, share * (1 - share) / variance)
    return Proportion(amount, total, worth, count)


def mean_variance(sums: Floats, sizes: Floats) -> float:
    """Variance of the mean of all values, from two blocks or more: of a ratio of two sums over blocks.

    Cochran, Sampling Techniques (1977), eq. 2.39.

    Args:
        sums: of each block's values, shape (blocks,).
        sizes: how many values each has.
    """
    count, total = len(sizes), sizes.sum()
    return float(count / (count - 1) * ((sums - sums.sum() / total * sizes) ** 2).sum() / total**2)


def difference_interval(b: Proportion, a: Proportion, level: float = 0.95) -> tuple[float, float]:
    """Interval of `b - a` from those of both: Newcombe, Interval estimation for the difference between independent
    proportions (1998), method 10, with the intervals above.
    """
    (low_a, high_a), (low_b, high_b) = a.interval(level), b.interval(level)
    found = b.estimate - a.estimate
    return (
        found - math.hypot(b.estimate - low_b, high_a - a.estimate),
        found + math.hypot(high_b - b.estimate, a.estimate - low_a),
    )
