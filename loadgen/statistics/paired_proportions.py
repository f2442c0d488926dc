"""Two answers to each of the same questions, right or wrong: is one more often right, and by how much?"""

from __future__ import annotations

import math

from scipy import optimize, special, stats

FAR = 1e9
"""Stands for more standard deviations than any level asks for; root finding wants finite numbers."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that both are right equally often: of the questions that only one of them got right,
    each is a fair coin's.

    McNemar, Note on the sampling error of the difference between correlated proportions (1947), by the binomial.
    """
    split = only_a + only_b
    return float(stats.binomtest(only_a, split).pvalue) if split else 1.0


def more_often(only_b: int, only_a: int) -> float:
    """The same against one side: p-value of so many or more for b among those that only one has."""
    split = only_a + only_b
    return float(stats.binomtest(only_b, split, alternative="greater").pvalue) if split else 1.0


def difference_interval(only_a: int, only_b: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the share that b gets right less that of a, by inverting the score test.

    Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design
    (1998). Unlike Wald's it keeps its coverage where few questions tell the two apart.

    Args:
        only_a: questions that only a got right.
        only_b: questions that only b got right.
        total: all questions, above 0.
        level: of the interval.
    """
    limit = float(special.ndtri(0.5 + level / 2))
    found = (only_b - only_a) / total

    def beyond(difference: float) -> float:
        return _score(only_a, only_b, total, difference)

    low = -1.0 if beyond(-1.0) < limit else float(optimize.brentq(lambda d: beyond(d) - limit, -1.0, found))
    high = 1.0 if beyond(1.0) > -limit else float(optimize.brentq(lambda d: beyond(d) + limit, found, 1.0))
    return low, high


def _score(only_a: int, only_b: int, total: int, difference: float) -> float:
    """Tango's statistic: how many standard deviations the data lie above a true difference."""
    excess = only_b - only_a - total * difference
    if excess == 0:
        return 0.0
    # The most likely probability that only a is right, given the difference: the larger root of a quadratic.
    two = 2 * total
    one = -only_a - only_b + (two - only_b + only_a) * difference
    zero = -only_a * difference * (1 - difference)
    only = (math.sqrt(max(one * one - 4 * two * zero, 0.0)) - one) / (2 * two)
    variance = total * (2 * only + difference * (1 - difference))
    return excess / math.sqrt(variance) if variance > 1e-12 else math.copysign(FAR, excess)
