"""Standard errors and t-intervals against scipy's own tests, least squares and figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadgen.statistics.interval import (
    Spread,
    common_slope,
    difference,
    from_log,
    half_jackknife,
    halves,
    jackknife,
    jackknife_error,
    pseudo_values,
    slope,
)

VALUES = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 6)), min_size=2, max_size=12)


def means_without(values):
    return np.array([np.delete(values, i).mean() for i in range(len(values))])


def test_by_hand():
    values = np.array([1.0, 2.0, 3.0, 6.0])  # mean 3, deviations -2 -1 0 3, s^2 = 14 / 3, s / sqrt(4) = 1.0801
    spread = jackknife(3.0, means_without(values))
    assert spread.error == pytest.approx((14 / 3 / 4) ** 0.5)
    assert spread.freedom == 3
    assert spread.interval() == (pytest.approx(3 - 3.1824463 * 1.0801234), pytest.approx(3 + 3.1824463 * 1.0801234))
    assert Spread(1.0, 1.0, 1).p_value == pytest.approx(0.5)  # Student's t with one degree of freedom is Cauchy's
    assert Spread(1.0, 1.0, 1).interval()[1] == pytest.approx(1 + 12.7062047)


@settings(deadline=None)
@given(VALUES)
def test_the_jackknife_of_a_mean_is_students_interval(values):
    values = np.array(values)
    spread = jackknife(values.mean(), means_without(values))
    assert spread.error == pytest.approx(stats.sem(values), rel=1e-6, abs=1e-9)
    expected = (
        stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values)) if spread.error > 1e-6 else None
    )
    if expected is not None:
        assert spread.interval() == (pytest.approx(expected[0], abs=1e-5), pytest.approx(expected[1], abs=1e-5))
        assert spread.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-4, abs=1e-12)
    assert pseudo_values(values.mean(), means_without(values)) == pytest.approx(values, abs=1e-6)


def test_the_jackknife_of_many_figures_at_once():
    without = np.random.default_rng(1).normal(size=(5, 3, 4))
    found = jackknife_error(without, 5, 4)
    assert found.shape == (3, 4)
    assert found[1, 2] == pytest.approx(jackknife(0.0, without[:, 1, 2]).error)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 6)), min_size=2, max_size=9))
def test_leaving_out_half_is_the_same_for_means(values):
    n = len(values)
    of_halves = np.array([np.mean([values[i] for i in half]) for half in halves(n)])
    assert half_jackknife(0.0, of_halves, n).error == pytest.approx(stats.sem(values), rel=1e-6, abs=1e-6)


def test_halves():
    assert halves(2) == [(0,), (1,)]
    assert halves(3) == [(0,), (1,), (2,)]
    assert len(halves(9)) == 126 == len(set(halves(9)))
    assert halves(10) == halves(10)
    assert len(halves(12)) == 126 and {len(set(half)) for half in halves(12)} == {6}
    drawn = np.bincount(np.concatenate(halves(12)), minlength=12)
    assert drawn.min() > 45 and drawn.max() < 81  # 63 on average


@settings(deadline=None)
@given(VALUES, VALUES)
def test_the_difference_of_two_is_welchs_test(x, y):
    """But that the degrees of freedom are at most twice the fewer; as many as that are there of equal sides."""
    x, y = np.array(x), np.array(y)
    if min(x.std(), y.std()) < 1e-3:
        return
    spread = difference(jackknife(y.mean(), means_without(y)), jackknife(x.mean(), means_without(x)))
    expected = stats.ttest_ind(y, x, equal_var=False)
    freedom = min(expected.df, 2 * (min(len(x), len(y)) - 1))
    student = stats.t(freedom)
    assert spread.freedom == pytest.approx(freedom, rel=1e-6)
    assert spread.p_value == pytest.approx(2 * student.sf(abs(expected.statistic)), rel=1e-6, abs=1e-12)
    error = math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y))
    low, high = (y.mean() - x.mean() + sign * student.ppf(0.975) * error for sign in (-1, 1))
    assert spread.interval() == (pytest.approx(low, rel=1e-6, abs=1e-6), pytest.approx(high, rel=1e-6, abs=1e-6))


@pytest.mark.parametrize("sizes", [(2, 8), (2, 16), (4, 16), (4, 4)])
def test_few_blocks_against_many_give_no_more_false_alarms(sizes):
    """4,000 pairs of equal sides: at 5% at most 5.8%, at 0.1% at most 0.3% (either would be 1% by chance)."""
    rng = np.random.default_rng(7)

    def p_value():
        a, b = (rng.normal(size=n) for n in sizes)
        return difference(jackknife(b.mean(), means_without(b)), jackknife(a.mean(), means_without(a))).p_value

    found = np.array([p_value() for _ in range(4000)])
    assert (found < 0.05).mean() < 0.058
    assert (found < 0.001).mean() < 0.003


def test_without_scatter():
    assert Spread(0.0, 0.0, 3).p_value == 1
    assert Spread(0.1, 0.0, 3).p_value == 0
    assert Spread(0.1, 0.0, 3).interval() == (0.1, 0.1)
    assert difference(Spread(2.0, 0.0, 3), Spread(1.0, 0.0, 4)) == Spread(1.0, 0.0, 7)


def test_slope_against_scipy():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=9), rng.normal(size=9)
    found, expected = slope(x, y), stats.linregress(x, y)
    assert (found.estimate, found.error) == (pytest.approx(expected.slope), pytest.approx(expected.stderr))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert slope(x[:2], y[:2]) is None
    assert slope(np.ones(4), y[:4]) is None


def test_common_slope_against_least_squares_with_a_level_for_each_group():
    rng = np.random.default_rng(3)
    groups = [(rng.normal(size=n), rng.normal(size=n) + n) for n in (3, 5)]
    design = np.zeros((8, 3))
    design[:, 0] = np.concatenate([x for x, _ in groups])
    design[:3, 1], design[3:, 2] = 1, 1
    y = np.concatenate([y for _, y in groups])
    solution, (left,), *_ = np.linalg.lstsq(design, y, rcond=None)
    error = np.sqrt(left / 5 * np.linalg.inv(design.T @ design)[0, 0])
    found = common_slope(groups)
    assert (found.estimate, found.error, found.freedom) == (pytest.approx(solution[0]), pytest.approx(error), 5)


def test_what_is_beyond_a_float_is_kept_finite():
    assert 0 < from_log(-1e6) < 1e-100
    assert 1e100 < from_log(1e6) < float("inf")
