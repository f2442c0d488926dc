"""What the requests inside a block say of its scatter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from loadgen.statistics.metrics import Floats

STRETCHES = 10
_FEWEST = 3


def log_variance(blocks: Sequence[Floats]) -> float:
    """Logarithm of the variance of a block's mean over its square, the mean over blocks; -inf where none shows any.

    By batch means, as of one long simulation (Law, Simulation Modeling, 9.5.3): stretches, and not single requests,
    because neighbours in a queue wait for the same reasons. Says how cells differ, and is no error by itself.

    Args:
        blocks: values of each block's requests, in the order in which they were sent.
    """
    found = []
    for values in blocks:
        parts = min(STRETCHES, len(values) // 2)
        if parts < _FEWEST:
            continue
        means = values[: len(values) // parts * parts].reshape(parts, -1).mean(axis=1)
        middle = means.mean()
        if middle > 0:
            found.append(float(means.var(ddof=1)) / parts / middle**2)
    mean = float(np.mean(found)) if found else 0.0
    return math.log(mean) if mean > 0 else -math.inf
