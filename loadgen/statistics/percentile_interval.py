"""The interval of one engine's own percentile: the limits that the share of requests beyond them does not refute.

The jackknife's interval sits around a pooled percentile, which lies low where only a few requests are beyond it. The
share of requests beyond a limit has no such error: a limit L is within the interval if that share may be 1 - q
(Woodruff, Confidence intervals for medians and other position measures, 1952), by the interval of `proportion`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from loadgen.statistics.metrics import Floats
from loadgen.statistics.proportion import proportion


def percentile_interval(blocks: Sequence[Floats], percentile: float, level: float = 0.95) -> tuple[float, float]:
    """Return the ends, in the unit of the values; an end is infinite where there are too few requests to tell it.

    Args:
        blocks: values of each block's requests; one at least has some.
        percentile: 0 to 100, the ends left out.
        level: of confidence.
    """
    values = np.unique(np.concatenate([*blocks, [-math.inf]]))
    share = 1 - percentile / 100

    def beyond(limit: float) -> tuple[float, float]:
        found = proportion([(block > limit).astype(np.float64) for block in blocks])
        return (0.0, 1.0) if found is None else found.interval(level)

    # As the limit rises fewer requests are beyond it. Low: below it the share is surely more than 1 - q.
    low = _first(values, lambda limit: beyond(limit)[0] <= share)
    high = _first(values, lambda limit: beyond(limit)[1] <= share)
    return float(values[low]), (math.inf if high == len(values) else float(values[high]))


def _first(values: Floats, holds: Callable[[float], bool]) -> int:
    """The first place from which on it holds, by bisection; their number where it never does."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(float(values[middle])) else (middle + 1, high)
    return low
