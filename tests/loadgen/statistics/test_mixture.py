"""Mixtures of normals against Student's t, which is one, and against drawing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadgen.statistics.interval import Spread
from loadgen.statistics.mixture import Mixture, binned, summed
from loadgen.statistics.power import detectable, further_repeats


def students(freedom, error=0.02, estimate=0.03, nodes=4000):
    """Student's t as the mixture that it is: variances error^2 x freedom / chi-squared, all as likely."""
    levels = (np.arange(nodes) + 0.5) / nodes
    return Mixture(estimate, error**2 * freedom / stats.chi2.ppf(levels, freedom), np.full(nodes, 1 / nodes))


@pytest.mark.parametrize("freedom", [2, 3, 5, 15])
def test_a_mixture_that_is_students_t(freedom):
    found = students(freedom)
    assert found.error == pytest.approx(0.02, rel=2e-3)
    assert found.freedom == pytest.approx(freedom, rel=0.05)
    assert found.p_value == pytest.approx(2 * stats.t.sf(1.5, freedom), rel=0.01)
    reach = stats.t.ppf(0.975, freedom) * 0.02
    assert found.interval() == (pytest.approx(0.03 - reach, rel=0.02), pytest.approx(0.03 + reach, rel=0.02))


@pytest.mark.parametrize("freedom", [3, 8])
def test_power_is_near_that_of_the_t_it_is(freedom):
    own, mixture = Spread(0.03, 0.02, freedom), students(freedom)
    assert detectable(mixture, 0.05) == pytest.approx(detectable(own, 0.05), rel=0.2)
    alone = Spread(0.03, 0.02, freedom)
    assert further_repeats(mixture, freedom + 1, alpha=0.01, reach=0.0) == pytest.approx(
        further_repeats(alone, freedom + 1, alpha=0.01, reach=0.0), abs=1
    )


LOGS = st.lists(st.tuples(st.floats(-9, 3), st.floats(0.01, 1)), min_size=1, max_size=20)


@given(LOGS, st.floats(0.001, 0.5))
def test_reach_is_where_the_share_beyond_is_alpha(drawn, alpha):
    weights = np.array([weight for _, weight in drawn])
    found = Mixture(0.0, np.exp([log for log, _ in drawn]), weights / weights.sum())
    assert found.beyond(found.reach(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert found.reach(alpha / 2) > found.reach(alpha)


@given(LOGS)
def test_bins_keep_probability_and_nearly_all_of_the_shape(drawn):
    weights = np.array([[weight for _, weight in drawn]])
    variances = np.exp([[log for log, _ in drawn]])
    weights = weights / weights.sum()
    nodes, found = binned(variances, weights)
    assert found.sum() == pytest.approx(1)
    whole, short = Mixture(0.0, variances[0], weights[0]), Mixture(0.0, nodes[0], found[0])
    for alpha in (0.3, 0.05, 0.001):
        assert short.reach(alpha) == pytest.approx(whole.reach(alpha), rel=0.02)


def test_the_sum_of_two_against_drawing():
    rng = np.random.default_rng(1)
    a = np.array([0.1, 1.0, 4.0]), np.array([0.5, 0.3, 0.2])
    b = np.array([0.5, 2.0]), np.array([0.9, 0.1])
    found = Mixture(0.0, *summed(a, b))
    draws = sum(rng.normal(0, np.sqrt(rng.choice(v, 400_000, p=w))) for v, w in (a, b))
    assert found.reach(0.05) == pytest.approx(np.quantile(np.abs(draws), 0.95), rel=0.01)
    assert math.isclose(found.weights.sum(), 1)
