"""Whether an SLO holds at a load, decided from requests of one queue: they miss it in bursts, not one by one.

Requests are looked at by their *strain*: the largest share that one used up of any limit, infinite where it failed; one
of more than 1 missed. What the steps of a load measured is cut into stretches, and the scatter between these tells how
many independent requests they are worth (the design effect, as for a share of failures). A load at which nothing
missed shows no such scatter, but its strains do: they rise and fall with the queue long before one is late. So the
lesser worth of the two is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from loadgen.statistics.metrics import Floats
from loadgen.statistics.proportion import mean_variance, proportion

Decision = Literal["holds", "fails", "undecided"]

ERROR_SHARE = 0.025
"""Probability of deciding wrongly, for each side, at a load where the true share is just the percentile; all looks at a
load share it. It is nominal, because bursts that are rarer than a step is long do not show in its stretches:
docs/methodology.md has what was simulated."""
STRETCHES = 20
"""How many of equal length are made of all that was measured at a load, whatever the number of its blocks."""

FAR_BELOW = 0.25
"""Requests that used up no more of any limit are alike."""


def decide(blocks: Sequence[Floats], share: float, looks: int) -> Decision:
    """Decide whether the true share that meets the SLO is at least `share`.

    Args:
        blocks: the strains of each block's measured requests, in the order they were sent.
        share: 0 to 1.
        looks: how often this may be asked as blocks are added.
    """
    pieces = stretches(blocks)
    met = proportion([(piece <= 1).astype(np.float64) for piece in pieces])
    if met is None:
        return "undecided"
    met = dataclasses.replace(met, worth=min(met.worth, met.total / design_effect(pieces)))
    low, high = met.interval(1 - 2 * ERROR_SHARE / looks)
    return "holds" if low >= share else "fails" if high <= share else "undecided"


def stretches(blocks: Sequence[Floats]) -> list[Floats]:
    """Cut blocks into stretches of about equal length, about `STRETCHES` in all."""
    total = sum(block.size for block in blocks)
    cut = [np.array_split(block, max(1, round(STRETCHES * block.size / total))) for block in blocks if block.size]
    return [piece for pieces in cut for piece in pieces if piece.size]


def design_effect(pieces: Sequence[Floats]) -> float:
    """Variance of the mean strain as the stretches scatter, over what independent requests would give; at least 1.

    Strains count from `FAR_BELOW` to 1: what is far from late moves without harm, and what is late is late.
    """
    strains = [np.clip(piece, FAR_BELOW, 1.0) for piece in pieces]
    values = np.concatenate(strains)
    spread = float(values.var())
    if len(pieces) < 2 or spread < 1e-12:
        return 1.0
    sums, sizes = np.array([(piece.sum(), piece.size) for piece in strains]).T
    return max(1.0, mean_variance(sums, sizes) * values.size / spread)
