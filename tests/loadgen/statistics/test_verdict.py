"""The rules of a verdict, one by one and in their order."""

from __future__ import annotations

import dataclasses
import math

import pytest

from loadgen.statistics.interval import Spread
from loadgen.statistics.result import Settings
from loadgen.statistics.verdict import Evidence, combine, judge

SETTINGS = Settings(margin=0.02)
CLEAR = Evidence("lower", repeats=4, units=4, ratio=Spread(0.05, 0.002, 3), p_value=0.001)


def verdict(**changes):
    return judge(dataclasses.replace(CLEAR, **changes), SETTINGS)


def test_who_is_ahead():
    assert verdict() == ("a", "difference")
    assert verdict(better="higher") == ("b", "difference")
    assert verdict(ratio=Spread(-0.05, 0.002, 3)) == ("b", "difference")
    assert verdict(ratio=Spread(-0.05, 0.002, 3), better="higher") == ("a", "difference")


def test_one_repeat_decides_nothing_however_clear():
    assert verdict(repeats=1, units=1, ratio=Spread(0.5, 0.0001, 18)) == ("undecided", "one_repeat")
    assert verdict(repeats=1, units=1, ratio=None) == ("undecided", "one_repeat")


def test_the_margin_is_held_by_the_whole_interval():
    reach = 3.1824463 * 0.002
    edge = math.log(1.02) - reach
    assert verdict(ratio=Spread(edge - 1e-6, 0.002, 3)) == ("none", "within_margin")
    assert verdict(ratio=Spread(-edge + 1e-6, 0.002, 3)) == ("none", "within_margin")
    assert verdict(ratio=Spread(edge + 1e-4, 0.002, 3)) == ("a", "difference")
    assert judge(dataclasses.replace(CLEAR, ratio=Spread(0.0, 0.001, 3)), Settings(margin=0.0))[0] != "none"


def test_a_certain_difference_within_the_margin_does_not_matter():
    assert verdict(ratio=Spread(0.01, 0.0005, 3), p_value=1e-6) == ("none", "within_margin")


def test_chance():
    assert verdict(ratio=Spread(0.05, 0.03, 3), p_value=0.2) == ("undecided", "too_noisy")
    assert verdict(p_value=0.2) == ("undecided", "multiplicity")


def test_the_clients_floor():
    assert verdict(below_floor=True) == ("undecided", "below_floor")
    assert verdict(below_floor=True, within_floor=True) == ("none", "within_floor")


def test_a_trend_as_large_as_the_difference():
    assert verdict(trend=0.06) == verdict(trend=-0.06) == ("undecided", "trend")
    assert verdict(trend=0.04) == ("a", "difference")


def test_what_the_order_may_have_done():
    assert verdict(order_bias=0.05) == ("undecided", "order")
    assert verdict(order_bias=0.12) == ("undecided", "order")
    assert verdict(order_bias=0.02) == verdict(order_bias=-0.02) == ("a", "difference")
    assert verdict(ratio=Spread(0.001, 0.001, 3), order_bias=0.05) == ("undecided", "order")


def test_what_the_tokens_of_an_event_may_have_done():
    assert verdict(event_bias=0.03) == ("undecided", "tokens_per_event")
    assert verdict(event_bias=0.02) == ("a", "difference")
    assert verdict(event_bias=-0.03) == ("a", "difference"), "the difference would be larger without"
    assert verdict(ratio=Spread(0.0, 0.001, 3), event_bias=0.03) == ("undecided", "tokens_per_event")


def test_a_shared_level_is_why_an_interval_without_1_decides_nothing():
    strict = Settings(margin=0.02, alpha=0.0167)
    noisy = dataclasses.replace(CLEAR, ratio=Spread(0.05, 0.0145, 3), p_value=0.0411)
    assert judge(noisy, strict) == ("undecided", "multiplicity")
    assert judge(dataclasses.replace(noisy, ratio=Spread(0.05, 0.02, 3), p_value=0.088), strict)[1] == "too_noisy"


def test_figures_that_allow_no_verdict():
    assert verdict(problem="not_measured") == ("invalid", "not_measured")
    assert verdict(problem="no_valid_pair", ratio=None, repeats=0, units=0) == ("invalid", "no_valid_pair")
    assert verdict(problem="few_requests") == ("undecided", "few_requests")


A, B = ("a", "difference"), ("b", "difference")
NONE, NOISY = ("none", "within_margin"), ("undecided", "too_noisy")
INVALID = ("invalid", "no_valid_pair")


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([A, A, A], A),
        ([NONE, NOISY, B], B),
        ([A, NONE, B], ("undecided", "mixed")),
        ([NONE, NONE], NONE),
        ([NONE, NOISY, ("undecided", "trend")], NOISY),
        ([NOISY, ("undecided", "multiplicity"), NOISY], ("undecided", "multiplicity")),
        ([INVALID, NONE], NONE),
        ([INVALID, ("invalid", "not_measured")], INVALID),
        ([], ("invalid", "not_measured")),
    ],
)
def test_several_metrics_together(parts, whole):
    assert combine(parts) == whole
