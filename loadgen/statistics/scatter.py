"""The scatter of all cells of a metric, estimated together.

The log ratio of cell c in unit r is y_cr = delta_c + u_r + e_cr with u_r ~ N(0, tau^2), common to all cells of the
unit, and e_cr ~ N(0, sigma_c^2). With two units a cell has one degree of freedom for sigma_c; all cells together know
well what is usual. So log sigma_c^2 is drawn from a law around a common level (the moderated t of Smyth, Linear models
and empirical Bayes methods for assessing differential expression, 2004), with tails heavy enough that a wild cell keeps
its own scatter (the aim of Phipson et al., Robust hyperparameter estimation protects against hypervariable genes,
2016).
The level and the spread of the law are not known either: they are integrated over, and so is tau, whence a p-value
and an interval hold what is not known of them (Gelman et al., Bayesian Data Analysis, 2013, ch. 5). What the requests
within the blocks say of each cell's scatter moves the level of that cell, as much as the data ask for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from loadgen.statistics.metrics import Floats
from loadgen.statistics.mixture import binned, summed

Truths = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
FEWEST_CELLS = 4
"""Fewer cells know little more than each by itself."""
OMEGAS = np.array([0.1, 0.3, 0.5, 0.75, 1.0, 1.3, 1.7, 2.2, 3.0])
"""Spreads of log sigma^2 that are integrated over: 0.1 is hardly any, 1.4 is a sigma that differs by a factor of 2."""
OMEGA_SCALE = 1.6
"""Of their half-normal prior. With 1.0 cells that differ by a factor of 2 give false winners in 6% of runs."""
TAIL = 3.0
"""Degrees of freedom of the law of log sigma^2, a Student's t."""
TAKEN = 0.97
"""Share of a cell's freedom that is left to it: the rest went into what is common, which is not integrated over."""
SLOPES = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
SLOPE_PRIOR = np.array([0.3, 0.15, 0.35, 0.1, 0.1])
"""A cell's log sigma^2 moves by a slope times what its requests tell of it: 0 where they tell nothing."""
TRENDS = np.array([0.0, 0.7, 1.4])
TREND_PRIOR = np.array([0.3, 0.35, 0.35])
"""And by a trend times the logarithm of its load: 0 where scatter does not grow, 1.4 where sigma grows by 0.7 of it."""
_STEP = 0.1
_LEVELS = 25
_SHRINK = 3.0
_WIDEST = 3.0
_REACH = 4.0
"""The largest tau that is integrated over, in those of `Common.most`."""


@dataclasses.dataclass(frozen=True)
class Common:
    """Prior of k, tau over the usual sigma: density (1 + k / scale)^-power, and k^-4 beyond `most`."""

    scale: float
    power: float
    most: float
    least: float = 0.0
    """A tau up to which `most` lies at the least, however little the cells scatter."""


@dataclasses.dataclass(frozen=True)
class Priors:
    """Of what is common to all cells: for single cells, and for means over cells, which have less other scatter."""

    cells: Common
    loads: Common
    overall: Common


PROCESSES = Priors(Common(0.25, 2.0, 8.0), Common(0.25, 1.5, 12.0), Common(0.25, 1.15, 20.0))
"""Repeats of the same processes, minutes apart, seldom differ in all cells by more than they scatter in one."""
STARTS = Priors(
    Common(0.25, 1.1, 19.0, least=0.05), Common(0.25, 0.9, 30.0, least=0.05), Common(0.25, 1.1, 50.0, least=0.05)
)
"""Starts do: on an H200 two starts of one engine differed by 0.5% in every cell, their repeats by 0.05 to 0.3%."""


@dataclasses.dataclass(frozen=True)
class Scatter:
    """Distributions of the variance of one unit: rows of nodes with their weights."""

    variances: Floats
    """Of each cell, shape (cells, nodes)."""
    weights: Floats
    overall: tuple[Floats, Floats]
    """Of the mean over cells, shape (1, nodes) each."""
    own: tuple[Floats, Floats]
    """Of each cell without what is common to all, shape (cells, nodes) each."""
    common: tuple[Floats, Floats]
    """Of what is common to all cells of a unit, as it bears on a mean over some, shape (nodes,) each."""

    def of_all(self) -> tuple[Floats, Floats]:
        """Of the mean over all cells, shape (nodes,) each."""
        return self.overall[0][0], self.overall[1][0]

    def of_mean(self, rows: Sequence[int]) -> tuple[Floats, Floats]:
        """Of the mean over some of the cells, shape (nodes,) each."""
        parts = [(self.own[0][row] / len(rows) ** 2, self.own[1][row]) for row in rows]
        return functools.reduce(summed, [*parts, self.common])


def shared_scatter(
    contributions: Floats, within: Floats | None, priors: Priors, log_load: Floats | None = None
) -> Scatter | None:
    """Estimate the scatter of all cells; None where what they have in common lies beyond all that the priors reach to.

    Args:
        contributions: what each unit contributes to each cell's log ratio, shape (cells, units); nan where a cell
            lacks it. Each cell has two at least.
        within: logarithm of each cell's variance as its requests tell it, shape (cells,); None where unknown.
        priors: of what is common to all cells of a unit.
        log_load: logarithm of each cell's load, shape (cells,); None where the loads are not of one kind.
    """
    there = ~np.isnan(contributions)
    units = there.sum(axis=1)
    deviations = np.where(there, contributions - np.nanmean(contributions, axis=1, keepdims=True), 0.0)
    trust = _first_trust(deviations, there, units)
    _, squares, freedom = _residuals(deviations, there, units, trust)
    grid, posterior, level_sd = _posterior(squares, TAKEN * freedom, _shifts(within, log_load))
    precision = (posterior / grid).sum(axis=1)
    common, _, _ = _residuals(deviations, there, units, precision)
    of_mean = 1 / precision.sum()
    usual = float(np.sqrt(of_mean * len(units)))
    if float(np.sqrt((common**2).sum() / (len(common) - 1))) > _REACH * priors.cells.most * usual:
        return None
    tau_variance, tau_weight, _ = _common(common, of_mean, level_sd, usual, priors.cells)
    tau_weight = tau_weight.sum(axis=1)
    of_loads, load_weight, _ = _common(common, of_mean, level_sd, usual, priors.loads)
    variances = grid[:, :, None] + tau_variance
    weights = posterior[:, :, None] * tau_weight
    nodes, node_weights = binned(variances.reshape(len(units), -1), weights.reshape(len(units), -1))
    of_plain_mean = float(np.mean(squares / freedom)) / len(units)
    t2, weight, own = _common(deviations.mean(axis=0), of_plain_mean, level_sd, usual, priors.overall)
    whole = (t2[:, None] + own[None, :]).reshape(1, -1)
    return Scatter(
        nodes,
        node_weights,
        binned(whole, weight.reshape(1, -1)),
        (grid, posterior),
        (of_loads, load_weight.sum(axis=1)),
    )


def _first_trust(deviations: Floats, there: Truths, units: Counts) -> Floats:
    """Rough precisions, to tell what is common: each cell's own variance, held to the middle one."""
    centred = deviations - np.where(there, np.median(deviations, axis=0), 0)
    own = (centred**2).sum(axis=1) / (units - 1)
    middle = 2 * max(float(np.median(own)), 1e-300)
    return np.asarray((units - 1 + _SHRINK) / (own * (units - 1) + middle * _SHRINK))


def _residuals(deviations: Floats, there: Truths, units: Counts, trust: Floats) -> tuple[Floats, Floats, Floats]:
    """What is common to all cells in each unit, and the sum of squares that is left of each cell with its freedom."""
    weights = there * trust[:, None]
    common = (weights * deviations).sum(axis=0) / weights.sum(axis=0)
    left = np.where(there, deviations - common, 0.0)
    left -= np.where(there, left.sum(axis=1, keepdims=True) / units[:, None], 0.0)
    return common - common.mean(), (left**2).sum(axis=1), (units - 1) * (1 - trust / trust.sum())


def _shifts(within: Floats | None, log_load: Floats | None) -> list[tuple[float, Floats | float]]:
    """How the level of log sigma^2 may move from cell to cell: how likely each way is, and by how much, (cells,)."""
    ways: list[tuple[float, Floats | float]] = [(1.0, 0.0)]
    if within is not None:
        told = np.clip(within - np.median(within), -_WIDEST, _WIDEST)
        ways = [(p * q, move + slope * told) for p, move in ways for slope, q in zip(SLOPES, SLOPE_PRIOR, strict=True)]
    if log_load is not None and np.ptp(log_load) > 0:
        ways = [
            (p * q, move + trend * log_load) for p, move in ways for trend, q in zip(TRENDS, TREND_PRIOR, strict=True)
        ]
    return [(p, move - float(np.mean(move))) for p, move in ways]


def _posterior(
    squares: Floats, freedom: Floats, shifts: Sequence[tuple[float, Floats | float]]
) -> tuple[Floats, Floats, float]:
    """Distribution of each cell's variance: nodes and weights, shape (cells, nodes), and the level's own spread."""
    middle = float(np.median(squares / freedom)) / (1 - 2 / (9 * float(np.median(freedom)))) ** 3
    rough = max(middle, float(np.mean(squares / freedom)) * 1e-3, 1e-300)
    spread = float(np.sqrt((special.polygamma(1, freedom.mean() / 2) + 2) / len(squares)))
    levels = np.linspace(-4, 4, _LEVELS) * spread
    ends = levels[-1] + 7.0
    steps = np.arange(-ends, ends + _STEP / 2, _STEP)
    density = _law((steps[None, None, :] - levels[:, None, None]) / OMEGAS[None, :, None])
    density = (density / density.sum(axis=2, keepdims=True)).reshape(-1, len(steps))
    prior = np.gradient(OMEGAS) * np.exp(-0.5 * (OMEGAS / OMEGA_SCALE) ** 2)
    parts, logs = [], []
    for how_likely, move in shifts:
        shift = np.broadcast_to(move, squares.shape)
        variance = rough * np.exp(steps[:, None] + shift)
        likelihood = -freedom / 2 * (steps[:, None] + shift) - squares / (2 * variance)
        top = likelihood.max(axis=0)
        likelihood = np.exp(likelihood - top)
        marginal = density @ likelihood
        log = np.log(np.maximum(marginal, 1e-300)).sum(axis=1) + np.tile(np.log(prior / prior.sum()), _LEVELS)
        parts.append((variance, likelihood, marginal))
        logs.append(log + np.log(how_likely) + top.sum())
    weights = np.exp(np.array(logs) - np.max(logs))
    weights /= weights.sum()
    nodes = [variance.T for variance, _, _ in parts]
    found = [
        ((weight[:, None] / np.maximum(marginal, 1e-300)).T @ density) * likelihood.T
        for weight, (_, likelihood, marginal) in zip(weights, parts, strict=True)
    ]
    grid, posterior = np.concatenate(nodes, axis=1), np.concatenate(found, axis=1)
    posterior /= posterior.sum(axis=1, keepdims=True)
    by_level = weights.sum(axis=0).reshape(_LEVELS, -1).sum(axis=1)
    level_sd = float(np.sqrt(by_level @ levels**2 - (by_level @ levels) ** 2))
    variances, posterior = binned(grid, posterior, 64)
    return variances, posterior, level_sd


def _law(z: Floats) -> Floats:
    return (1 + z**2 / TAIL) ** (-(TAIL + 1) / 2)


def _common(
    common: Floats, variance: float, level_sd: float, usual: float, prior: Common
) -> tuple[Floats, Floats, Floats]:
    """tau^2 (taus,), weights (taus, variances), and the variances of the cells' mean (variances,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(5)
    own = variance * np.exp(points * level_sd)
    most = max(prior.most, prior.least / usual)
    ratios = np.concatenate([[0.0], np.geomspace(0.02, _REACH * most, 40)])
    density = (1 + ratios / prior.scale) ** -prior.power * (1 + (ratios / most) ** 2) ** -((4 - prior.power) / 2)
    mass = density * np.gradient(ratios)
    squared = (ratios * usual) ** 2
    total = squared[:, None] + own
    log = -(len(common) - 1) / 2 * np.log(total) - (common**2).sum() / (2 * total)
    found = np.exp(log - log.max()) * mass[:, None] * weights
    return squared, found / found.sum(), own
