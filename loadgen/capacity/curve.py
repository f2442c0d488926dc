"""The share of requests that miss an SLO as a curve over the load, fitted to all loads that were tried; pure.

The curve rises with the load: p = floor + (1 - floor) x expit(a + slope x h(load / capacity)), where h is the logarithm
or bends to either side of it (Box and Cox, An analysis of transformations, 1964), the floor is what misses at any load,
and a makes p the allowed share at the capacity. Neither floor, slope nor bend is known: all are averaged over by a
grid, so the interval has the model's error in it. Loads count the less the farther they are from the crossing.
The crossing's prior is what the loads would tell of it were it there. Jeffreys' is the root of that, for single misses;
but clumps are more skewed: more often than not fewer miss than should, and a search that has seen few stops early.

Requests of one queue miss in clumps. The likelihood is divided by the design effect (McCullagh and Nelder, Generalized
Linear Models, 1989, ch. 9), which is the integrated autocorrelation of misses, and of strains, near the crossing, cut
off where pairs of lags cease to be positive (Geyer, Practical Markov chain Monte Carlo, 1992); a Student tail stands
for its own error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from loadgen.statistics.metrics import Floats

BENDS = np.array([-1.0, 0.5, 2.0])
"""Exponents of Box and Cox: -1 flattens toward high loads, 2 steepens."""
FLOORS = np.array([0.0, 0.35, 0.7])
"""As shares of the allowed share, where so much of it misses far below the crossing already."""
FLOOR_SEEN, FLOOR_BELOW = 0.2, 0.7
"""That much of it, at loads below this share of the crossing."""
SLOPES = np.geomspace(2.0, 150.0, 14)
USUAL_SLOPE, LESS, MORE = 7.0, 0.45, 1.2
"""Slopes of queues with several servers and a limit of one or two service times lie about 5 to 10, those of fuller ones
far above: the prior of the slope's logarithm is normal to each side of 7, with these standard deviations."""
POINTS = 80
REACH = 1.4
"""The crossing is sought this far, in logarithms, beyond the loads that were tried."""
NEAR = 0.15
"""How quickly the scatter of a load loses its say in the design effect at the crossing, in logarithms."""
LOCAL = 2.0
"""Likewise of a load in the fit."""
FAR_BELOW = 0.25
"""Strains below it are alike: what is far from late moves without harm."""
BEYOND, FAILS_WORTH = 4.0, 4.0
"""A load at which more than so many times the allowed share missed is worth no more than so many requests: its queue
grew as long as the step lasted, and what curve leads there is not known. It says that the SLO fails."""
START_SHARE = 0.1
"""So much of each block is left out: the queue still fills."""


@dataclasses.dataclass(frozen=True, slots=True)
class Crossing:
    """The load at which the curve crosses the allowed share."""

    load: float
    """Median."""
    low: float
    high: float
    design_effect: float


def crossing(blocks: Mapping[float, Sequence[Floats]], allowed: float, level: float = 0.95) -> Crossing:
    """Fit the curve.

    Args:
        blocks: of each load, the strains of each block's requests in the order they were sent; at least one request.
        allowed: the share of requests that may miss the SLO, more than 0 and less than 1.
        level: of the interval.
    """
    steps = [_Load(math.log(load), [_settled(b) for b in kept if b.size]) for load, kept in sorted(blocks.items())]
    steps = [step for step in steps if step.total]
    at = np.array([step.at for step in steps])
    effects, freedom = np.full(len(steps), 5.0), 30.0
    grid = np.linspace(at.min() - REACH, at.max() + REACH, POINTS)
    floored = False
    for widened in (0.25, 0.1):
        chance, shares = _posterior(steps, effects, freedom, grid, allowed, floored)
        floored = _has_floor(steps, float(chance @ grid), allowed)
        pooled, effects, freedom = _scatter(steps, float(chance @ grid), shares, allowed)
        below = np.cumsum(chance)
        first, last = int(np.searchsorted(below, 1e-4)), int(np.searchsorted(below, 1 - 1e-4))
        ends = grid[max(0, first - 1)] - widened, grid[min(POINTS - 1, last + 1)] + widened
        grid = np.linspace(*ends, POINTS)
    chance, _ = _posterior(steps, effects, freedom, grid, allowed, floored)
    tail = (1 - level) / 2
    low, load, high = np.exp(np.interp([tail, 0.5, 1 - tail], np.cumsum(chance) - chance / 2, grid))
    return Crossing(float(load), float(low), float(high), pooled)


@dataclasses.dataclass(frozen=True, slots=True)
class _Load:
    at: float
    """Logarithm of the load."""
    blocks: list[Floats]

    @property
    def total(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def missed(self) -> int:
        return sum(int((block > 1).sum()) for block in self.blocks)


def _settled(block: Floats) -> Floats:
    return block[int(START_SHARE * block.size) :]


def _posterior(
    steps: Sequence[_Load], effects: Floats, freedom: float, grid: Floats, allowed: float, floored: bool
) -> tuple[Floats, Floats]:
    """The chance of each crossing of the grid (logarithms), shape (points,), and the mean share of misses, (steps,)."""
    at = np.array([step.at for step in steps])
    total = (np.array([step.total for step in steps]) / effects)[:, None]
    missed = (np.array([step.missed for step in steps]) / effects)[:, None]
    bent = np.expm1(BENDS[:, None, None] * (at[:, None] - grid)) / BENDS[:, None, None]
    floors = (FLOORS * allowed)[: len(FLOORS) if floored else 1, None, None, None]
    start = special.logit((allowed - floors) / (1 - floors))
    found = np.empty((len(SLOPES), len(floors), len(BENDS), len(grid)))
    away = np.log(SLOPES / USUAL_SLOPE)
    prior = -0.5 * (away / np.where(away < 0, LESS, MORE)) ** 2
    shares = []
    for place, slope in enumerate(SLOPES):
        share = floors + (1 - floors) * special.expit(np.clip(start + slope * bent, -30, 30))
        told = np.log((total * share * (1 - share)).sum(axis=2))
        found[place] = (missed * np.log(share) + (total - missed) * np.log1p(-share)).sum(axis=2) + told + prior[place]
        shares.append(share)
    weight = (1 + 2 * (found.max() - found) / freedom) ** (-(freedom + 1) / 2)
    weight /= weight.sum()
    mean = sum(np.einsum("fbg,fblg->l", one, share) for one, share in zip(weight, shares, strict=True))
    return weight.sum(axis=(0, 1, 2)), np.asarray(mean)


def _has_floor(steps: Sequence[_Load], capacity: float, allowed: float) -> bool:
    """Whether some miss however low the load is."""
    below = [step for step in steps if step.at < capacity + math.log(FLOOR_BELOW)]
    total, missed = sum(step.total for step in below), sum(step.missed for step in below)
    return missed > FLOOR_SEEN * allowed * total


def _scatter(steps: Sequence[_Load], capacity: float, shares: Floats, allowed: float) -> tuple[float, Floats, float]:
    """The design effect near the crossing, what divides each load's likelihood, and the former's degrees of freedom."""
    misses, strains, of_miss, of_strain, effects, near = [], [], [], [], [], 0.0
    for step, share in zip(steps, shares, strict=True):
        seen = step.missed / step.total
        weight = math.exp(-0.5 * ((step.at - capacity) / NEAR) ** 2)
        near += weight * step.total
        clipped = [np.clip(block, FAR_BELOW, 1.0) for block in step.blocks]
        every = np.concatenate(clipped)
        for block, moved in zip(step.blocks, clipped, strict=True):
            misses.append((block > 1) - share)
            of_miss.append(weight / max(share * (1 - share), 1e-6))
            strains.append(moved - every.mean())
            of_strain.append(weight / max(float(every.var()), 1e-9))
        effects.append(step.total / FAILS_WORTH if seen > BEYOND * allowed else 0.0)
    (miss, lags), (strain, slow) = _effect(misses, of_miss), _effect(strains, of_strain)
    pooled = max(miss, strain)
    at = np.array([step.at for step in steps])
    divided = np.maximum(pooled, effects) * np.exp(np.minimum(0.5 * ((at - capacity) / LOCAL) ** 2, 20))
    return pooled, divided, max(3.0, near / max(lags, slow, 2 * pooled))


def _effect(series: Sequence[Floats], weights: Sequence[float]) -> tuple[float, int]:
    """How much more the mean of series scatters than were their values independent, at least 1; and the lags used.

    Args:
        series: deviations from a mean, in the order of time.
        weights: of each series.
    """
    lags = max(2, max(one.size for one in series) // 2)
    sums, counts = np.zeros(lags), np.zeros(lags)
    for one, weight in zip(series, weights, strict=True):
        size = min(lags, max(1, one.size // 2))
        if weight < 1e-6:
            continue
        turned = np.fft.rfft(one, 1 << (2 * one.size - 1).bit_length())
        sums[:size] += weight * np.fft.irfft(turned * turned.conj())[:size]
        counts[:size] += weight * (one.size - np.arange(size))
    together = sums / np.where(counts > 0, counts, 1)
    if together[0] <= 1e-12:
        return 1.0, 1
    pairs = together[: lags // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ends[0]] if ends.size else pairs)
    return max(1.0, float((2 * pairs.sum() - together[0]) / together[0])), 2 * len(pairs)
