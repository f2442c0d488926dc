"""Standard errors from few blocks, and the t-intervals they give.

The unit is the block (or the pair of blocks of one repeat), never the request: requests of one block share queue,
batch and machine, so their scatter says little about how the next block will be.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from loadgen.statistics.metrics import Floats

LARGEST_LOG = 300.0
MOST_HALVES = 126


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """An estimate with its standard error and the degrees of freedom of that."""

    estimate: float
    error: float
    freedom: float

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the true value being 0, by Student's t."""
        if self.error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * special.stdtr(self.freedom, -abs(self.estimate) / self.error))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval that holds the true value with this probability: estimate -+ t(level, freedom) x error."""
        reach = t_quantile(0.5 + level / 2, self.freedom) * self.error
        return self.estimate - reach, self.estimate + reach


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t."""
    return float(special.stdtrit(freedom, probability))


def halves(n: int) -> list[tuple[int, ...]]:
    """Choices of n // 2 of n units: all, or 126 drawn from a fixed seed where there are more (from n = 10 on)."""
    if math.comb(n, n // 2) <= MOST_HALVES:
        return list(itertools.combinations(range(n), n // 2))
    rng = np.random.default_rng(n)
    return [tuple(np.sort(rng.permutation(n)[: n // 2]).tolist()) for _ in range(MOST_HALVES)]


def all_but_one(n: int) -> list[tuple[int, ...]]:
    """The n choices of n - 1 of n units; the k-th lacks unit k."""
    return [tuple(i for i in range(n) if i != k) for k in range(n)]


def jackknife_error(of_choices: Floats, n: int, kept: int) -> Floats:
    """Standard error of a figure of n units from its values over choices of `kept` of them, (choices, ...) to (...).

    sqrt(kept / left out x mean squared deviation): the delete-d jackknife (Shao and Wu, A general theory for jackknife
    variance estimation, 1989; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 11.7). For a mean of equal
    units it is exactly s / sqrt(n), for one left out as for half of them. For percentiles leaving out one
    underestimates, and half does not.
    """
    squares = ((of_choices - of_choices.mean(axis=0)) ** 2).mean(axis=0)
    return np.asarray(np.sqrt(kept / (n - kept) * squares))


def jackknife(estimate: float, without: Floats) -> Spread:
    """Delete-one spread with n - 1 degrees of freedom (Tukey 1958: pseudo-values are nearly independent)."""
    n = len(without)
    return Spread(estimate, float(jackknife_error(without, n, n - 1)), n - 1)


def half_jackknife(estimate: float, of_halves: Floats, n: int) -> Spread:
    """Delete-half spread of n units, from the values over `halves(n)`, with n - 1 degrees of freedom."""
    return Spread(estimate, float(jackknife_error(of_halves, n, n // 2)), n - 1)


def pseudo_values(estimate: float, without: Floats) -> Floats:
    """What each unit contributes, shape (n,): n x estimate - (n - 1) x estimate without it (Tukey 1958)."""
    n = len(without)
    return np.asarray(n * estimate - (n - 1) * without)


def difference(b: Spread, a: Spread) -> Spread:
    """`b - a` of two independent spreads: Welch 1947, Satterthwaite's degrees of freedom, at most twice the fewer.

    Where one side has few blocks and the other many, Satterthwaite's are far too many whenever the few happen to agree:
    2 against 16 equal blocks differ "at the 0.1% level" in 2.8% of cases. At most twice those of the smaller side,
    which two equal sides have, keeps 5% at 2 to 5% and 0.1% below that (docs/compare.md).
    """
    squares = a.error**2, b.error**2
    total = sum(squares)
    if total == 0:
        return Spread(b.estimate - a.estimate, 0.0, a.freedom + b.freedom)
    freedom = total**2 / (squares[0] ** 2 / a.freedom + squares[1] ** 2 / b.freedom)
    return Spread(b.estimate - a.estimate, math.sqrt(total), min(freedom, 2 * min(a.freedom, b.freedom)))


def from_log(value: float) -> float:
    """exp, kept within what a float and JSON can hold."""
    return math.exp(min(max(value, -LARGEST_LOG), LARGEST_LOG))


def slope(x: Floats, y: Floats) -> Spread | None:
    """Least-squares slope of y on x with n - 2 degrees of freedom; None with fewer than three points or one x."""
    return common_slope([(x, y)])


def common_slope(groups: Sequence[tuple[Floats, Floats]]) -> Spread | None:
    """Slope that groups share, each with a level of its own (analysis of covariance).

    Degrees of freedom: points - groups - 1; None where there are none, or all x of each group are equal.
    """
    centred = [(x - x.mean(), y - y.mean()) for x, y in groups]
    x, y = (np.concatenate(side) for side in zip(*centred, strict=True))
    freedom = len(x) - len(groups) - 1
    squares = float(x @ x)
    if freedom < 1 or squares == 0:
        return None
    estimate = float(x @ y) / squares
    left = y - estimate * x
    return Spread(estimate, math.sqrt(float(left @ left) / freedom / squares), freedom)
