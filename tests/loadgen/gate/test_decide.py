"""Held, failed, undecided: against textbook rules over intervals that are known."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadgen.gate.decide import Case, decide, exit_code
from loadgen.gate.quantity import Quantity
from loadgen.scenario.threshold import parse_threshold

ABOVE = parse_threshold("ttft.p95 > +5%")
BELOW = parse_threshold("output_tokens_per_s < -5%")


def normal(estimate: float, error: float, **known) -> Quantity:
    """A quantity that is normally distributed."""

    def interval(level: float) -> tuple[float, float]:
        reach = float(stats.norm.ppf(0.5 + level / 2)) * error
        return estimate - reach, estimate + reach

    return Quantity(estimate, interval, **known)


def case(quantity: Quantity, threshold=ABOVE) -> Case:
    return Case(threshold, "p0512-o0128-c004", "B vllm", "A vllm", quantity)


@pytest.mark.parametrize(
    ("estimate", "outcome"), [(3.03, "held"), (3.05, "undecided"), (6.95, "undecided"), (6.97, "failed")]
)
def test_one_case_is_decided_on_the_bound_and_not_the_point(estimate, outcome):
    assert decide([case(normal(estimate, 1.0))])[0].outcome == outcome
    mirrored = decide([case(normal(-estimate, 1.0), BELOW)])
    assert mirrored[0].outcome == outcome


def test_an_exact_figure_at_its_limit_is_held():
    assert decide([case(normal(5.0, 0.0))])[0].outcome == "held"


@given(st.lists(st.tuples(st.floats(-20, 40), st.floats(0.01, 5)), min_size=1, max_size=12))
def test_failures_are_those_of_holms_procedure(found):
    decisions = decide([case(normal(estimate, error)) for estimate, error in found])
    # Textbook: one-sided p-values in order, each against alpha / 2 / (those not yet rejected); stop at the first above.
    p_values = sorted((float(stats.norm.sf((estimate - 5) / error)), i) for i, (estimate, error) in enumerate(found))
    rejected = set()
    for rank, (p_value, index) in enumerate(p_values):
        limit = 0.025 / (len(found) - rank)
        if abs(p_value - limit) < 1e-9:
            return  # too close to call with floats
        if p_value > limit:
            break
        rejected.add(index)
    assert {i for i, decision in enumerate(decisions) if decision.outcome == "failed"} == rejected


@given(st.lists(st.tuples(st.floats(-20, 40), st.floats(0.01, 5)), min_size=1, max_size=12))
def test_holding_needs_no_correction(found):
    together = decide([case(normal(estimate, error)) for estimate, error in found])
    alone = [decide([case(normal(estimate, error))])[0] for estimate, error in found]
    assert [one.outcome == "held" for one in together] == [one.outcome == "held" for one in alone]


def test_what_only_many_cases_put_in_doubt_is_undecided_and_says_so():
    lone = normal(5.0 + 2.2, 1.0)
    decisions = decide([case(lone), *(case(normal(0.0, 1.0)) for _ in range(9))])
    assert decide([case(lone)])[0].outcome == "failed"
    assert decisions[0].outcome == "undecided" and "many" in decisions[0].reason


def test_nothing_to_decide_by_is_undecided_and_costs_the_others_nothing():
    problems = [Quantity(None, problem="not measured"), Quantity(9.0), normal(50.0, 1.0, problem="one block")]
    decisions = decide([case(normal(5.0 + 2.2, 1.0)), *(case(quantity) for quantity in problems)])
    assert Counter(decision.outcome for decision in decisions) == {"failed": 1, "undecided": 3}


def test_a_difference_below_the_load_generators_error_fails_nothing():
    assert decide([case(normal(50.0, 1.0, within_floor=True))])[0].outcome == "undecided"


def test_exit_codes():
    held, failed, undecided = (case(normal(estimate, 1.0)) for estimate in (0.0, 50.0, 5.0))
    assert exit_code(decide([held, held])) == 0
    assert exit_code(decide([held, undecided])) == 4
    assert exit_code(decide([held, undecided, failed])) == 3
    assert exit_code([]) == 0
