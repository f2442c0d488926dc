"""Holm's correction: of many comparisons between equal engines, at most 5% of runs call any difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadgen.statistics.metrics import Floats


def adjusted(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values in the order given: Holm, A simple sequentially rejective multiple test procedure (1979).

    The k-th smallest of m is multiplied by m - k + 1, made not smaller than those before it, and at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(stepped, 1.0)
    return result


def levels(p_values: Sequence[float], alpha: float) -> Floats:
    """The level at which each comparison is tested: alpha / m for the smallest p, alpha / (m - 1) for the next, ...

    After the first that is not below its level all others are tested at that same level.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    rejected = int(np.count_nonzero(adjusted(p_values) <= alpha))
    divisors = p.size - np.minimum(np.arange(p.size), rejected)
    result = np.empty_like(p)
    result[order] = alpha / np.maximum(divisors, 1)
    return result
