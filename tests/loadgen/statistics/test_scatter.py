"""Shared scatter against a random walk over the same model, and what must hold of it."""

from __future__ import annotations

import numpy as np
import pytest

from loadgen.statistics.mixture import Mixture
from loadgen.statistics.scatter import PROCESSES, STARTS, shared_scatter


def half_widths(y, within=None, priors=PROCESSES):
    """Half of the 95% interval of each cell, and of the mean of all."""
    found = shared_scatter(y, within, priors)
    units = (~np.isnan(y)).sum(axis=1)
    cells = [Mixture(0.0, v / n, w).reach(0.05) for v, w, n in zip(found.variances, found.weights, units, strict=True)]
    return np.array(cells), Mixture(0.0, found.overall[0][0] / y.shape[1], found.overall[1][0]).reach(0.05)


def walk(y, steps=500, chains=400):
    """Half-widths of cells by random walks side by side (Metropolis within Gibbs), written from the model alone.

    log sigma^2 = mu + omega t(3), mu flat, omega half-normal(1.6), tau / exp(mu / 2) as the prior of cells.
    """
    rng = np.random.default_rng(7)
    cells, units = y.shape
    z = y - y.mean(axis=1, keepdims=True)
    logs = np.log(z.var(axis=1, ddof=1) + np.mean(z.var(axis=1))) * np.ones((chains, 1))
    mu, omega = logs.mean(axis=1), np.full(chains, 0.5)
    tau, common = np.exp(mu / 2) * 0.2, np.zeros((chains, units))
    errors = []

    def law(g, m, o):
        return (-2.0 * np.log1p(((g - m[:, None]) / o[:, None]) ** 2 / 3)).sum(axis=1) - cells * np.log(o)

    def each(g):
        own = -2.0 * np.log1p(((g - mu[:, None]) / omega[:, None]) ** 2 / 3)
        return own - (units - 1) / 2 * g - ((z - common[:, None, :]) ** 2).sum(axis=2) / (2 * np.exp(g))

    def prior(m, t):
        k = t / np.exp(m / 2)
        return -2.0 * np.log1p(k / 0.25) - np.log1p((k / 8) ** 2) - m / 2 + np.log(t)

    def accepts(gain):
        return np.log(rng.random(gain.shape)) < gain

    for step in range(steps):
        new = logs + rng.normal(0, 1.2, logs.shape)
        logs = np.where(accepts(each(new) - each(logs)), new, logs)
        precision = np.exp(-logs)
        of_mean = (precision.sum(axis=1) + 1 / tau**2)[:, None]
        common = (precision @ z) / of_mean + rng.normal(0, 1, common.shape) / np.sqrt(of_mean)
        common -= common.mean(axis=1, keepdims=True)
        m = mu + rng.normal(0, 0.5, chains)
        mu = np.where(accepts(law(logs, m, omega) - law(logs, mu, omega) + prior(m, tau) - prior(mu, tau)), m, mu)
        o = omega * np.exp(rng.normal(0, 0.5, chains))
        gain = law(logs, mu, o) - law(logs, mu, omega) - (o**2 - omega**2) / 2 / 1.6**2 + np.log(o / omega)
        omega = np.where(accepts(gain), o, omega)
        t = tau * np.exp(rng.normal(0, 1.0, chains))
        squares = (common**2).sum(axis=1) / 2
        gain = (units - 1) * np.log(tau / t) - squares / t**2 + squares / tau**2 + prior(mu, t) - prior(mu, tau)
        tau = np.where(accepts(gain), t, tau)
        if step >= 200:
            errors.append(np.sqrt((tau[:, None] ** 2 + np.exp(logs)) / units) * rng.normal(size=logs.shape))
    return np.quantile(np.abs(np.concatenate(errors)), 0.95, axis=0)


@pytest.mark.parametrize(("cells", "units"), [(12, 2), (12, 3)])
def test_against_a_random_walk_over_the_model(cells, units):
    y = 0.02 * np.random.default_rng([1, cells]).standard_normal((cells, units))
    found, _ = half_widths(y)
    expected = walk(y)
    assert found == pytest.approx(expected, rel=0.25)
    assert np.median(found / expected) == pytest.approx(1, abs=0.1)


def draw(rng, cells=16, units=2):
    return 0.02 * rng.standard_normal((cells, units))


def test_many_cells_of_equal_scatter_come_near_to_a_known_one():
    found, _ = half_widths(draw(np.random.default_rng(2), cells=200, units=3))
    assert np.median(found) == pytest.approx(1.96 * 0.02 / np.sqrt(3), rel=0.1)


def test_another_scale_and_another_order_change_nothing():
    y = draw(np.random.default_rng(3))
    plain, whole = half_widths(y)
    scaled, scaled_whole = half_widths(100 * y)
    assert scaled == pytest.approx(100 * plain, rel=1e-6)
    assert scaled_whole == pytest.approx(100 * whole, rel=1e-6)
    order = np.random.default_rng(4).permutation(len(y))
    assert half_widths(y[order, ::-1])[0] == pytest.approx(plain[order], rel=1e-6)


def test_what_all_cells_of_a_unit_share_widens_all_and_most_their_mean():
    y = draw(np.random.default_rng(5))
    cells, whole = half_widths(y)
    moved, moved_whole = half_widths(y + np.array([0.03, -0.03]))
    assert (moved > cells).all()
    assert moved_whole / whole > np.median(moved / cells) > 1.2
    starts, starts_whole = half_widths(y, priors=STARTS)
    assert (starts > cells).all() and starts_whole > whole


def test_a_wild_cell_keeps_its_own_scatter():
    y = draw(np.random.default_rng(6), units=4)
    calm, _ = half_widths(y)
    y[3] *= 30
    wild, _ = half_widths(y)
    own = 30 * y[3].std(ddof=1) / 30 / 2
    assert wild[3] > 2 * own
    others = np.delete(np.arange(16), 3)
    assert np.median(wild[others] / calm[others]) == pytest.approx(1, abs=0.15)


def test_requests_that_tell_the_scatter_narrow_what_they_should():
    rng = np.random.default_rng(7)
    scale = np.geomspace(0.2, 5, 24)
    ratios = []
    for _ in range(10):
        y = 0.02 * scale[:, None] * rng.standard_normal((24, 2))
        told, _ = half_widths(y, 2 * np.log(scale))
        blind, _ = half_widths(y)
        ratios.append([told / blind, told / scale])
    narrower, even = np.median(ratios, axis=0)
    assert np.median(narrower) < 0.9
    assert even.max() / even.min() < 3


def test_a_cell_that_lacks_a_unit_is_wider():
    y = draw(np.random.default_rng(8), units=4)
    y[0, 2:] = np.nan
    found, _ = half_widths(y)
    assert found[0] > 1.2 * np.median(found[1:])
    assert np.isfinite(found).all()
