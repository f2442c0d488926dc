"""Shares of failed requests, against scipy's exact interval and simulated bursts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadgen.statistics.proportion import difference_interval, proportion


def ones(failed: int, total: int):
    return np.array([1.0] * failed + [0.0] * (total - failed))


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.999]))
def test_one_block_is_clopper_and_pearson(total, data, level):
    failed = data.draw(st.integers(0, total))
    found = proportion([ones(failed, total)])
    expected = stats.binomtest(failed, total).proportion_ci(level, method="exact")
    assert found.estimate == failed / total
    assert found.interval(level) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_failure_is_clopper_and_pearson_over_all_blocks():
    expected = stats.binomtest(0, 400).proportion_ci(0.95, method="exact")
    assert proportion([ones(0, 100)] * 4).interval() == pytest.approx((0.0, expected.high), abs=1e-9)


def test_nothing_measured_is_no_share():
    assert proportion([]) is None
    assert proportion([np.array([])]) is None


def test_failures_in_one_block_are_worth_less_than_failures_spread_out():
    spread, burst = proportion([ones(5, 100)] * 4), proportion([ones(20, 100)] + [ones(0, 100)] * 3)
    assert spread.estimate == burst.estimate
    assert spread.interval()[1] < burst.interval()[1] and burst.interval()[0] < spread.interval()[0]
    # By hand: the variance of the mean of the four shares .2, 0, 0, 0 is .01 / 4, that of one request .05 x .95.
    assert burst.worth == pytest.approx(0.05 * 0.95 / (0.01 / 4))


@pytest.mark.parametrize(("scatter", "blocks"), [(0.0, 4), (0.05, 6), (0.2, 10)])
def test_the_interval_covers_the_true_share(scatter, blocks):
    """Blocks whose own share scatters around 5% (beta-binomial): at least 93% of intervals hold 5%."""
    chance, hits, rounds = np.random.default_rng(5), 0, 1500
    for _ in range(rounds):
        own = np.full(blocks, 0.05)
        if scatter:
            size = 0.05 * 0.95 / (scatter * 0.05) ** 2 - 1
            own = chance.beta(0.05 * size, 0.95 * size, blocks)
        found = proportion([ones(int(chance.binomial(200, share)), 200) for share in own])
        low, high = found.interval()
        hits += low <= 0.05 <= high
    assert hits / rounds >= 0.93


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_difference_of_equals_holds_zero_and_turns_its_sign(a, b):
    one, other = proportion([ones(a, 50)]), proportion([ones(b, 50)])
    low, high = difference_interval(other, one)
    assert low <= other.estimate - one.estimate <= high
    assert difference_interval(one, other) == pytest.approx((-high, -low))
    assert low >= -1 - 1e-9 and high <= 1 + 1e-9


def test_the_difference_covers_the_truth():
    chance, hits, rounds = np.random.default_rng(6), 0, 2000
    for _ in range(rounds):
        a, b = (proportion([ones(int(chance.binomial(300, share)), 300)]) for share in (0.02, 0.05))
        low, high = difference_interval(b, a)
        hits += low <= 0.03 <= high
    assert hits / rounds >= 0.94
    assert math.isfinite(low) and math.isfinite(high)
