"""Paired proportions against brute force: every outcome counted, the likelihood maximised on a grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from loadgen.statistics.paired_proportions import difference_interval, mcnemar, more_often


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (0, 5), (8, 0), (3, 9), (7, 7)])
def test_the_test_is_a_coin_tossed_for_each_question_that_splits_them(a, b):
    heads = [sum(toss) for toss in itertools.product((0, 1), repeat=a + b)]
    far = abs(b - (a + b) / 2)
    assert mcnemar(a, b) == pytest.approx(sum(abs(each - (a + b) / 2) >= far for each in heads) / len(heads))
    assert more_often(b, a) == pytest.approx(sum(each >= b for each in heads) / len(heads))


def brute_score(a: int, b: int, total: int, difference: float) -> float:
    """Tango's statistic with the restricted likelihood maximised by trying 200,001 values."""
    only_a = np.linspace(max(0.0, -difference), (1 - difference) / 2, 200_001)
    only_b = only_a + difference
    rest = 1 - only_a - only_b
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [n * np.log(p) if n else 0.0 for n, p in ((a, only_a), (b, only_b), (total - a - b, rest))]
        likelihood = np.nan_to_num(sum(terms, np.zeros_like(only_a)), nan=-np.inf)
    best = only_a[int(np.argmax(likelihood))]
    return (b - a - total * difference) / math.sqrt(total * (2 * best + difference - difference**2))


@pytest.mark.parametrize(
    ("a", "b", "total"), [(0, 0, 40), (3, 9, 60), (0, 6, 50), (12, 1, 44), (10, 10, 20), (1, 0, 5)]
)
def test_the_interval_ends_where_the_score_is_a_normal_quantile(a, b, total):
    low, high = difference_interval(a, b, total)
    assert low <= (b - a) / total <= high
    assert brute_score(a, b, total, low) == pytest.approx(1.959964, abs=2e-3)
    assert brute_score(a, b, total, high) == pytest.approx(-1.959964, abs=2e-3)


def test_whose_turn_it_is_does_not_matter():
    low, high = difference_interval(1, 0, 44)
    mirrored = difference_interval(0, 1, 44)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]))


@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.02), (0.05, 0.15), (0.3, 0.1)])
def test_coverage_over_every_outcome(only_a, only_b):
    """With 40 questions, summed over all outcomes: the score interval covers about as often as it says."""
    total, truth, covered = 40, only_b - only_a, 0.0
    for a, b in itertools.product(range(15), range(20)) if only_a < 0.2 else itertools.product(range(28), range(14)):
        if a + b > total:
            continue
        rest = total - a - b
        ways = math.comb(total, a) * math.comb(total - a, b)
        chance = ways * only_a**a * only_b**b * (1 - only_a - only_b) ** rest
        low, high = difference_interval(a, b, total)
        covered += chance * (low <= truth <= high)
    assert 0.93 <= covered <= 0.995


def test_ends_stay_within_what_a_difference_can_be():
    assert difference_interval(20, 0, 20)[0] == -1.0
    assert difference_interval(0, 20, 20)[1] == 1.0
