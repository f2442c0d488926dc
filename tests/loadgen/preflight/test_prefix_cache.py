"""On, off, or cannot tell: a busy machine must give no answer rather than a wrong one."""

from __future__ import annotations

import random

import pytest

from loadgen.preflight.prefix_cache import judge_prefix_cache
from loadgen.preflight.sample import PrefixProbe
from tests.loadgen.preflight.samples import OFF, ON, probe

UNTOLD = (None,) * 5


def state(short, fresh, again, cached=UNTOLD):
    return judge_prefix_cache(PrefixProbe(256, tuple(short), tuple(fresh), tuple(again), cached)).state


def test_clear_cases():
    assert judge_prefix_cache(ON).state == "on"
    assert judge_prefix_cache(OFF).state == "off"
    assert judge_prefix_cache(None).state == "cannot tell"


@pytest.mark.parametrize(("cached", "expected"), [(255, "on"), (128, "on"), (0, "off"), (16, "cannot tell")])
def test_told_tokens_decide_whatever_times_say(cached, expected):
    for again_ms in (21.0, 99.0):
        verdict = judge_prefix_cache(probe(again_ms, cached=cached))
        assert verdict.state == expected
        assert f"{cached} of 256" in verdict.why


def test_tokens_told_now_and_then_do_not_decide():
    assert state([20] * 5, [100] * 5, [99] * 5, (None, 255, None, None, None)) == "off"


@pytest.mark.parametrize(("again", "expected"), [(52, "on"), (53, "cannot tell"), (79, "cannot tell"), (80, "off")])
def test_between_the_limits_nothing_is_said(again, expected):
    assert state([20] * 5, [100] * 5, [again] * 5) == expected


def test_length_that_does_not_matter_tells_nothing():
    assert state([20] * 5, [22] * 5, [22] * 5) == "cannot tell"
    assert state([20] * 5, [20] * 5, [20] * 5) == "cannot tell"
    assert state([2] * 5, [21] * 5, [20] * 5) == "cannot tell", "a few ms may be the client's own"
    assert state([2] * 5, [23] * 5, [22] * 5) == "off"
    assert state([20] * 5, [15] * 5, [9] * 5) == "cannot tell"


def test_one_hiccup_changes_nothing_and_several_give_no_answer():
    assert state([20] * 5, [100] * 5, [21, 400, 21, 21, 21]) == "on"
    assert state([20] * 5, [100] * 5, [21, 400, 400, 400, 21]) == "cannot tell"
    assert state([20] * 5, [100, 300, 300, 300, 300], [100] * 5) == "cannot tell"
    assert state([20, 90, 90, 90, 20], [100] * 5, [99] * 5) == "cannot tell"


def test_noise_never_turns_an_answer_into_its_opposite():
    """Each time is the true one, often lengthened by up to three times the whole, as by other work on two cores."""
    rng = random.Random(5)

    def times(true_ms):
        return [true_ms * (1 + rng.random() * 3 * (rng.random() < 0.3)) for _ in range(5)]

    said = {"on": {"on": 0, "off": 0, "cannot tell": 0}, "off": {"on": 0, "off": 0, "cannot tell": 0}}
    for _ in range(4000):
        said["on"][state(times(20), times(100), times(22))] += 1
        said["off"][state(times(20), times(100), times(100))] += 1
    for truth, wrong in (("on", "off"), ("off", "on")):
        assert said[truth][wrong] == 0, said
        assert said[truth][truth] > 3000, said
