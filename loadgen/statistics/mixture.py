"""An estimate whose variance is known by a distribution: a mixture of normals, as Student's t is one."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from scipy import optimize, special

from loadgen.statistics.interval import t_quantile
from loadgen.statistics.metrics import Floats

NODES = 96
_MOST_FREEDOM = 1e6
_STEPS = 60


@dataclasses.dataclass(frozen=True)
class Mixture:
    """An estimate that is normal around the truth, with one of several variances. Has what `interval.Spread` has."""

    estimate: float
    variances: Floats
    """Shape (nodes,), above 0."""
    weights: Floats
    """How likely each is, shape (nodes,), of sum 1."""

    @functools.cached_property
    def errors(self) -> Floats:
        """The standard errors, shape (nodes,)."""
        return np.sqrt(self.variances)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the true value being 0."""
        return self.beyond(abs(self.estimate))

    @functools.cached_property
    def error(self) -> float:
        """The standard error: of the mean precision, which for Student's t is the usual one."""
        return float(1 / math.sqrt(self.weights @ (1 / self.variances)))

    @functools.cached_property
    def freedom(self) -> float:
        """Degrees of freedom of the Student's t whose 95% interval is as wide."""
        return self.freedom_at(0.05)

    def beyond(self, distance: float) -> float:
        """Probability that an estimate lies further than this from the truth, on either side."""
        return float(self.weights @ (2 * special.ndtr(-distance / self.errors)))

    @functools.cached_property
    def _reaches(self) -> dict[float, float]:
        return {}

    def reach(self, alpha: float) -> float:
        """The distance beyond which an estimate lies with probability `alpha`."""
        if alpha not in self._reaches:
            self._reaches[alpha] = self._reach(alpha)
        return self._reaches[alpha]

    def _reach(self, alpha: float) -> float:
        normal = -float(special.ndtri(alpha / 2))
        low, high = float(self.errors.min()) * normal * 0.999, float(self.errors.max()) * normal * 1.001
        return float(optimize.brentq(lambda distance: self.beyond(distance) - alpha, low, high, rtol=1e-8))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval that holds the true value with this probability."""
        reach = self.reach(round(1 - level, 12))
        return self.estimate - reach, self.estimate + reach

    def freedom_at(self, alpha: float) -> float:
        """Degrees of freedom of the Student's t that has this error and reaches as far at `alpha`."""
        wanted = self.reach(alpha) / self.error
        low, high = 0.05, _MOST_FREEDOM
        if wanted <= t_quantile(1 - alpha / 2, high):
            return high
        for _ in range(_STEPS):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if t_quantile(1 - alpha / 2, middle) > wanted else (low, middle)
        return high

    def scaled(self, estimate: float, factor: float) -> Mixture:
        """Another estimate that scatters alike but for a factor."""
        found = Mixture(estimate, self.variances * factor**2, self.weights)
        found._reaches.update({alpha: factor * reach for alpha, reach in self._reaches.items()})
        return found


def binned(variances: Floats, weights: Floats, nodes: int = NODES) -> tuple[Floats, Floats]:
    """Put distributions of a variance onto a few nodes each, evenly spaced in the logarithm.

    Each value is shared out between the two nodes next to it.

    Args:
        variances: shape (rows, values), above 0.
        weights: of each, shape (rows, values); each row's sum is 1.
        nodes: how many to have.

    Returns:
        variances and weights, shape (rows, nodes).
    """
    logs = np.log(variances)
    heavy = weights > 1e-12
    low = np.where(heavy, logs, np.inf).min(axis=1, keepdims=True)
    span = np.maximum(np.where(heavy, logs, -np.inf).max(axis=1, keepdims=True) - low, 1e-9)
    place = np.clip((logs - low) / span, 0, 1) * (nodes - 1)
    below = np.minimum(place.astype(np.int64), nodes - 2)
    part = place - below
    rows = np.arange(len(logs))[:, None] * nodes
    size = len(logs) * nodes
    found = np.bincount((rows + below).ravel(), (weights * (1 - part)).ravel(), size)
    found += np.bincount((rows + below + 1).ravel(), (weights * part).ravel(), size)
    found = found.reshape(-1, nodes)
    grid = np.exp(low + span * np.linspace(0, 1, nodes))
    return grid, found / found.sum(axis=1, keepdims=True)


def summed(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Variances and weights of the sum of two independent estimates, from those of each, shape (nodes,)."""
    variances = a[0][:, None] + b[0][None, :]
    weights = a[1][:, None] * b[1][None, :]
    nodes, found = binned(variances.reshape(1, -1), weights.reshape(1, -1))
    return nodes[0], found[0]
