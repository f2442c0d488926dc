"""Which sampling parameters are honoured, against engines that honour some of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.endpoints.answers import Answer, Refused
from loadgen.preflight.parameters import ask_parameters, judge_stop, stop_string

ALL = ("temperature", "seed", "top-p", "stop", "max-tokens")


class FakeEngine:
    """Says words; honours the parameters that it is told to, refuses others."""

    def __init__(self, honoured=ALL, refused=(), steady=True):
        self.honoured, self.refused = honoured, refused
        self.steady = steady
        self.rng = random.Random(1)

    def __call__(self, tokens, **fields):
        for name in self.refused:
            if name.replace("-", "_") in fields:
                raise Refused(f"HTTP 400: {name}", by_status=True)
        count = tokens if "max-tokens" in self.honoured else 30
        source = random.Random(0)
        if not self.steady:
            source = self.rng
        elif fields.get("temperature") and "temperature" in self.honoured:
            narrow = fields.get("top_p", 1) < 0.1 and "top-p" in self.honoured
            if not narrow:
                source = random.Random(fields["seed"]) if "seed" in self.honoured else self.rng
        text = "".join(f" {source.choice('bcdfgh')}{i}" for i in range(count))
        if "stop" in fields and "stop" in self.honoured:
            text = text.partition(fields["stop"])[0]
        return Answer(text, output_tokens=count)


def test_all_honoured():
    assert ask_parameters(FakeEngine()) == dict.fromkeys(ALL, "honoured")


@pytest.mark.parametrize("name", ["seed", "top-p", "stop", "max-tokens"])
def test_one_ignored(name):
    found = ask_parameters(FakeEngine(honoured=[each for each in ALL if each != name]))
    assert found == {**dict.fromkeys(ALL, "honoured"), name: "ignored"}


def test_without_temperature_nothing_can_be_said_of_seed_and_top_p():
    found = ask_parameters(FakeEngine(honoured=["stop", "max-tokens"]))
    assert found["temperature"] == "ignored"
    assert found["seed"] == found["top-p"] == "cannot tell"


@pytest.mark.parametrize("name", ["temperature", "top-p", "stop"])
def test_refused(name):
    assert ask_parameters(FakeEngine(refused=[name]))[name] == "refused"


def test_greedy_texts_that_differ_tell_nothing():
    found = ask_parameters(FakeEngine(steady=False))
    assert found == {**dict.fromkeys(ALL, "cannot tell"), "max-tokens": "honoured"}


def test_an_engine_that_does_not_answer():
    def gone(tokens, **fields):
        raise Refused("no answer", by_status=False)

    assert ask_parameters(gone) == dict.fromkeys(ALL, "cannot tell")


@given(st.text(max_size=60))
def test_a_stop_string_is_inside_the_text_and_stops_it(text):
    mark = stop_string(text)
    if mark is None:
        return
    assert mark in text and not text.startswith(mark)
    assert judge_stop(text, mark, text.partition(mark)[0]) == "honoured"
    assert judge_stop(text, mark, text) == "ignored"


@pytest.mark.parametrize("text", ["", "!", "!!!!!!!!", "aaaa"])
def test_texts_without_a_stop_string(text):
    assert stop_string(text) is None
