"""Holm's correction: of many comparisons between equal engines, at most 5% of runs call any difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loadgen.statistics.metrics import Floats

Order = npt.NDArray[np.int64]
WIDE = 0.5
"""Share of the level that the comparisons over several cells have: they are few, and asked first."""


def adjusted(p_values: Sequence[float], weights: Sequence[float] | None = None) -> Floats:
    """Adjusted p-values in the order given: Holm, A simple sequentially rejective multiple test procedure (1979).

    Of the smallest p over weight, p is multiplied by the sum of all weights over its own, of the next by the sum of
    those that are left, and so on; each is made not smaller than those before it, and at most 1. With equal weights
    the k-th smallest of m is multiplied by m - k + 1.
    """
    order, p, weight, left = _ordered(p_values, weights)
    result = np.empty_like(p)
    result[order] = np.minimum(np.maximum.accumulate(p * left / weight), 1.0)
    return result


def levels(p_values: Sequence[float], alpha: float, weights: Sequence[float] | None = None) -> Floats:
    """The level at which each comparison is tested: its share, by weight, of what those before it left of alpha.

    With equal weights alpha / m for the smallest p, alpha / (m - 1) for the next, ... After the first that is not below
    its level the others share the same.
    """
    order, p, weight, left = _ordered(p_values, weights)
    rejected = int(np.count_nonzero(np.maximum.accumulate(p * left / weight) <= alpha))
    result = np.empty_like(p)
    result[order] = alpha * weight / left[np.minimum(np.arange(p.size), min(rejected, max(p.size - 1, 0)))]
    return result


def shares(wide: Sequence[bool]) -> list[float]:
    """The share of each comparison in the level: those over several cells have half of it, where there are both."""
    count = sum(wide)
    if count in (0, len(wide)):
        return [1.0] * len(wide)
    return [WIDE / count if one else (1 - WIDE) / (len(wide) - count) for one in wide]


def _ordered(p_values: Sequence[float], weights: Sequence[float] | None) -> tuple[Order, Floats, Floats, Floats]:
    """The order of testing; in that order the p-values, their weights, and the sum of the weights from each on."""
    p = np.asarray(p_values, dtype=np.float64)
    weight = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(p / weight, kind="stable")
    return order, p[order], weight[order], np.cumsum(weight[order][::-1])[::-1]
