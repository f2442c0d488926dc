"""Cells where the two engines' answers differ in length: what depends on it is not compared there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from loadgen.statistics.measure import Measured
from loadgen.statistics.metrics import BlockSample, CellSample, Floats, Metric

LENGTH_SHARE = "length_share"
"""Source of each request's output tokens as a share of those asked for."""
OF_WHOLE_ANSWERS = ("e2e_ms", "batch_latency_ms")


def depends_on_length(metric: Metric) -> bool:
    """Whether longer answers change a figure on the same server: latencies of whole answers, and all rates."""
    return metric.figure == "rate" or metric.source in OF_WHOLE_ANSWERS


def length_differs(cells: Sequence[CellSample], alpha: float = 0.05) -> frozenset[str]:
    """The ids of cells whose answers differ in length beyond chance.

    In each cell by Welch's t-test of the means and by the test of Kolmogorov and Smirnov, as a cell's percentiles need
    its distribution to be the same; and the other cells taken together, by the sum of Welch's scores (Stouffer). Each
    request counts by itself: how long an answer is does not depend on its neighbours.

    Args:
        cells: raw values of each cell.
        alpha: false alarms at most, over all cells (Bonferroni).
    """
    lengths = {cell.id: (_lengths(cell.a), _lengths(cell.b)) for cell in cells}
    apart = {name: (a, b) for name, (a, b) in lengths.items() if a.size and b.size and not _one_length(a, b)}
    scores = {name: _score(a, b) for name, (a, b) in apart.items()}
    level = alpha / (2 * len(cells) + 1)
    found = {
        name
        for name, (a, b) in apart.items()
        if _p_value(scores[name]) < level or float(stats.ks_2samp(a, b, method="asymp").pvalue) < level
    }
    rest = scores.keys() - found
    if rest and _p_value(sum(scores[name] for name in rest) / math.sqrt(len(rest))) < level:
        return frozenset(scores)
    return frozenset(found)


def not_compared(one: Measured) -> Measured:
    """What was measured, without its comparison."""
    if one.figures is None:
        return one
    return dataclasses.replace(
        one, problem="answer_lengths", ratio=None, difference=None, ratio_without=None, drift=None
    )


def lengths_apart(a: Sequence[float], b: Sequence[float], alpha: float = 0.05) -> bool:
    """`length_differs` of one cell, by the lengths of both sides' answers."""
    samples = [BlockSample(1, 0.0, requests={LENGTH_SHARE: np.array(values, dtype=np.float64)}) for values in (a, b)]
    return bool(length_differs([CellSample("", samples[:1], samples[1:])], alpha))


def _lengths(blocks: Sequence[BlockSample]) -> Floats:
    values = [block.requests.get(LENGTH_SHARE, np.empty(0)) for block in blocks if block.invalid is None]
    return np.concatenate([np.empty(0), *values])


def _one_length(a: Floats, b: Floats) -> bool:
    return bool(a.min() == a.max() == b.min() == b.max())


def _score(a: Floats, b: Floats) -> float:
    """Welch's t as the score of a normal distribution; infinite where neither side scatters."""
    parts = [values.var(ddof=1) / values.size if values.size > 1 else 0.0 for values in (a, b)]
    gap, error = float(b.mean() - a.mean()), math.sqrt(sum(parts))
    if error == 0:
        return math.inf if gap else 0.0
    degrees = [part**2 / (values.size - 1) for part, values in zip(parts, (a, b), strict=True) if part]
    freedom = sum(parts) ** 2 / sum(degrees)
    p_value = max(2 * float(special.stdtr(freedom, -abs(gap) / error)), 1e-300)
    return math.copysign(-float(special.ndtri(p_value / 2)), gap)


def _p_value(score: float) -> float:
    return math.erfc(abs(score) / math.sqrt(2))
