"""Holm's correction against a textbook example and his procedure, step by step."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.statistics.holm import adjusted, levels, shares

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def step_down(p_values, alpha):
    """Holm 1979: go through the p-values from the smallest, and stop at the first that is above alpha / (m - k)."""
    rejected = set()
    remaining = sorted(range(len(p_values)), key=lambda i: p_values[i])
    while remaining and p_values[remaining[0]] * len(remaining) <= alpha:
        rejected.add(remaining.pop(0))
    return rejected


def closed(p_values, weights, alpha):
    """By the closure principle (Marcus, Peritz and Gabriel 1976): rejected is what each set that it is in rejects.

    A set is rejected where one of its p-values is not above alpha times its share of the set's weight.
    """
    places = range(len(p_values))
    kept = set()
    for size in range(1, len(p_values) + 1):
        for chosen in itertools.combinations(places, size):
            total = sum(weights[i] for i in chosen)
            if not any(p_values[i] * total <= alpha * weights[i] for i in chosen):
                kept |= set(chosen)
    return set(places) - kept


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([1, 2, 8])), max_size=7), st.sampled_from([0.0512, 0.2011])
)
def test_weights_reject_what_the_closure_rejects(drawn, alpha):
    p, weights = [value / 1000 for value, _ in drawn], [weight for _, weight in drawn]
    expected = closed(p, weights, alpha)
    assert {i for i, value in enumerate(adjusted(p, weights)) if value <= alpha} == expected
    assert {i for i, level in enumerate(levels(p, alpha, weights)) if p[i] <= level} == expected


def test_half_of_the_level_goes_to_what_spans_several_cells():
    assert shares([False, True, False, False, False, True]) == pytest.approx([1 / 8, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 4])
    assert shares([False] * 3) == shares([True] * 3) == [1, 1, 1]
    # By hand: 0.02 of a quarter and 0.005 of an eighth are 0.08 and 0.04, which is first; 7 / 8 are left for 0.02.
    assert adjusted([0.005, 0.02, 0.5], [1 / 8, 1 / 4, 5 / 8]).tolist() == pytest.approx([0.04, 0.07, 0.5])


def test_textbook_example():
    # At 5%, H4 (0.005 < 0.05 / 4) and H1 (0.01 < 0.05 / 3) are rejected, H3 (0.03 > 0.05 / 2) and with it H2 are not.
    p = [0.01, 0.04, 0.03, 0.005]
    assert adjusted(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert levels(p, 0.05).tolist() == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_ends():
    assert adjusted([]).tolist() == levels([], 0.05).tolist() == []
    assert adjusted([0.04]).tolist() == [0.04]
    assert adjusted([0.6, 0.7]).tolist() == [1, 1]
    assert levels([0.001, 0.002], 0.05).tolist() == pytest.approx([0.025, 0.05])


@given(P_VALUES, st.sampled_from([0.01, 0.05, 0.2]))
def test_rejects_what_the_procedure_rejects(p, alpha):
    assert {i for i, value in enumerate(adjusted(p)) if value <= alpha} == step_down(p, alpha)


@given(P_VALUES, st.sampled_from([0.01, 0.05, 0.2]))
def test_levels_say_the_same_as_adjusted_values(p, alpha):
    rejected = step_down(p, alpha)
    for i, (value, level) in enumerate(zip(p, levels(p, alpha), strict=True)):
        assert alpha / len(p) <= level <= alpha
        # The product and the quotient may round differently at the very level.
        assert (value <= level) == (i in rejected) or value == pytest.approx(level)


@given(P_VALUES, st.randoms())
def test_the_order_does_not_matter(p, random):
    places = list(range(len(p)))
    random.shuffle(places)
    assert adjusted([p[i] for i in places]).tolist() == [adjusted(p).tolist()[i] for i in places]
