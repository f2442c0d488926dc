"""Holm's correction against a textbook example and his procedure, step by step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.statistics.holm import adjusted, levels

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def step_down(p_values, alpha):
    """Holm 1979: go through the p-values from the smallest, and stop at the first that is above alpha / (m - k)."""
    rejected = set()
    remaining = sorted(range(len(p_values)), key=lambda i: p_values[i])
    while remaining and p_values[remaining[0]] * len(remaining) <= alpha:
        rejected.add(remaining.pop(0))
    return rejected


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
