"""Power against scipy's noncentral t, a simulation, and going through all numbers of repeats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from loadgen.statistics.interval import Spread
from loadgen.statistics.power import detectable, difference_power, equivalence_power, further_repeats


def found(estimate, scatter, repeats):
    """What so many repeats know of a difference, one of which scatters so much."""
    return Spread(estimate, scatter / math.sqrt(repeats), repeats - 1)


def noncentral_power(distance, freedom, alpha):
    return stats.nct.sf(stats.t.ppf(1 - alpha / 2, freedom), freedom, distance)


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 33])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
@pytest.mark.parametrize("distance", [0.5, 2.5, 6.0])
def test_power_against_the_noncentral_t(freedom, alpha, distance):
    assert difference_power(distance, freedom, alpha) == pytest.approx(
        noncentral_power(distance, freedom, alpha), abs=2e-3
    )


def test_a_textbook_sample_size():
    # Cohen: half a standard deviation, paired, two-sided 5%, power 80%: 34 pairs, and 33 are not enough.
    assert difference_power(0.5 * math.sqrt(34), 33, 0.05) > 0.8 > difference_power(0.5 * math.sqrt(33), 32, 0.05)


@pytest.mark.parametrize(("freedom", "alpha"), [(1, 0.05), (3, 0.05), (3, 0.05 / 51), (9, 0.05 / 12)])
def test_the_smallest_detectable_difference_has_the_power(freedom, alpha):
    found = detectable(Spread(0.3, 0.02, freedom), alpha)
    assert noncentral_power(found / 0.02, freedom, alpha) == pytest.approx(0.8, abs=3e-3)


def test_equivalence_power_against_a_simulation():
    rng = np.random.default_rng(5)
    repeats, truth, reach = 5, 0.6, 4.0  # in standard errors
    draws = rng.normal(truth * 1.0, math.sqrt(repeats), (200_000, repeats))
    half = stats.t.ppf(0.975, repeats - 1) * draws.std(axis=1, ddof=1) / math.sqrt(repeats)
    inside = np.mean(np.abs(draws.mean(axis=1)) + half <= reach)
    assert equivalence_power(truth, reach, repeats - 1) == pytest.approx(inside, abs=5e-3)


@pytest.mark.parametrize(
    ("estimate", "scatter", "repeats", "reach"),
    [(0.03, 0.02, 3, 0.02), (0.05, 0.01, 2, 0.02), (0.001, 0.02, 4, 0.02), (0.03, 0.05, 2, 0.0)],
)
def test_further_repeats_is_the_first_number_that_would_do(estimate, scatter, repeats, reach):
    def enough(total):
        error = scatter / math.sqrt(total)
        return max(
            difference_power(estimate / error, total - 1, 0.01),
            equivalence_power(estimate / error, reach / error, total - 1),
        )

    first = next(total for total in range(repeats + 1, 1000) if enough(total) >= 0.8)
    assert further_repeats(found(estimate, scatter, repeats), repeats, alpha=0.01, reach=reach) == first - repeats


def test_further_repeats_at_its_ends():
    assert further_repeats(found(0.0, 0.02, 3), 3, alpha=0.05, reach=0.0) is None
    assert further_repeats(found(0.0001, 0.5, 3), 3, alpha=0.05, reach=0.0) is None
    assert further_repeats(found(0.1, 0.0, 2), 2, alpha=0.05, reach=0.02) == 1
    assert further_repeats(found(0.1, 0.001, 1), 1, alpha=0.05, reach=0.02) == 1
