"""A small share of the inputs that `python -m benchmarks.security` feeds to what strangers can reach."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(("what", "expected"), [("otlp", "taken"), ("runs", "read")])
def test_spoilt_inputs_are_taken_or_refused_and_end_nothing(what, expected):
    told = importlib.import_module(f"benchmarks.security.{what}").run(400)
    outcomes = told["outcomes"]
    assert sum(outcomes.values()) == 400
    assert 0 < outcomes[expected] < 400
