"""What a run could have seen, and how many more repeats would decide.

Both take the scatter of the repeats so far for the true one. With two or three repeats that is a rough guess.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import optimize, special

from loadgen.statistics.interval import Spread, t_quantile
from loadgen.statistics.metrics import Floats
from loadgen.statistics.mixture import Mixture

POWER = 0.8
MOST_REPEATS = 1000
_NODES = 400


@functools.lru_cache(maxsize=256)
def _scatter(freedom: float) -> Floats:
    """Equally likely values of (estimated / true standard error): sqrt(chi-squared / freedom), shape (400,)."""
    middles = (np.arange(_NODES) + 0.5) / _NODES
    return np.asarray(np.sqrt(special.chdtri(freedom, 1 - middles) / freedom))


def difference_power(distance: float, freedom: float, alpha: float) -> float:
    """Probability that a two-sided t-test finds a true difference of `distance` true standard errors, with its sign."""
    bound = t_quantile(1 - alpha / 2, freedom) * _scatter(freedom)
    return float(np.mean(special.ndtr(distance - bound)))


def equivalence_power(distance: float, reach: float, freedom: float, level: float = 0.95) -> float:
    """Probability that the whole interval lies within -+ `reach`; both in true standard errors from 0."""
    half = t_quantile(0.5 + level / 2, freedom) * _scatter(freedom)
    inside = special.ndtr(reach - half - distance) - special.ndtr(-reach + half - distance)
    return float(np.mean(np.maximum(inside, 0.0)))


def detectable(spread: Spread | Mixture, alpha: float, power: float = POWER) -> float:
    """The smallest true difference that a test at `alpha` would have found with this probability, in its unit."""
    if isinstance(spread, Mixture):
        bound = spread.reach(alpha)
        most = bound + float(spread.errors.max()) * 5
        return float(
            optimize.brentq(lambda true: spread.weights @ special.ndtr((true - bound) / spread.errors) - power, 0, most)
        )
    low, high = 0.0, 1.0
    while difference_power(high, spread.freedom, alpha) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if difference_power(middle, spread.freedom, alpha) < power else (low, middle)
    return high * spread.error


def further_repeats(
    spread: Spread | Mixture, repeats: int, *, alpha: float, reach: float, power: float = POWER
) -> int | None:
    """How many repeats more would call this difference, or show that it lies within `reach`, with this probability.

    The difference found is taken for the true one, and each further repeat for a further degree of freedom.

    Args:
        spread: the difference as it is known.
        repeats: how many there are.
        alpha: level of the test, after correction.
        reach: the equivalence margin, 0 for none.

    Returns:
        At least 1; None when not even 1,000 repeats would do.
    """
    scatter = spread.error * math.sqrt(repeats)
    if scatter == 0:
        return 1
    more = MOST_REPEATS - repeats
    test, interval = (
        (repeats - 1, repeats - 1) if isinstance(spread, Spread) else (spread.freedom_at(alpha), spread.freedom)
    )

    def decided(further: int) -> bool:
        total = repeats + further
        distance, margin = (abs(value) * math.sqrt(total) / scatter for value in (spread.estimate, reach))
        return (
            difference_power(distance, test + further, alpha) >= power
            or equivalence_power(distance, margin, interval + further) >= power
        )

    low, high = 0, more
    if not decided(more):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
