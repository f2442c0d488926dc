"""Values with their units."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.boards.model import Unit
from loadgen.boards.units import LADDERS, digits, scale_for, text


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.99999, "s", "1,000 ms"),
        (1.5, "s", "1.50 s"),
        (90, "s", "1.50 min"),
        (2e-6, "s", "2 µs"),
        (0, "s", "0 s"),
        (1.5 * 2**30, "bytes", "1.50 GiB"),
        (2.5e6, "Bps", "2.50 MB/s"),
        (0.123, "percentunit", "12.3%"),
        (1500, "reqps", "1.50 K req/s"),
        (12, "reqps", "12 req/s"),
        (1234, "none", "1,234"),
        (1_500_000, "short", "1.50 Mil"),
        (700, "watt", "700 W"),
        (1.98e9, "hertz", "1.98 GHz"),
        (36000, "joule", "36 kJ"),
        (61, "celsius", "61 °C"),
        (-0.005, "s", "-5 ms"),
        (None, "s", "–"),
        (math.nan, "s", "–"),
        (math.inf, "bytes", "–"),
    ],
)
def test_a_value_is_written_with_its_unit(value, unit, words):
    assert text(value, unit) == words


def test_decimals_that_a_board_asks_for_are_kept():
    assert text(0.5, "percentunit", 1) == "50.0%"
    assert text(3, "none", 0) == "3"
    assert digits(1234.5678, 2) == "1,234.57"


@given(st.sampled_from(sorted(LADDERS)), st.floats(1e-12, 1e15))
def test_the_scale_is_the_largest_that_leaves_a_whole(unit, value):
    scale = scale_for(unit, value)
    ladder = [each.divisor for each in LADDERS[unit]]
    assert ladder == sorted(ladder)
    larger = [divisor for divisor in ladder if divisor > scale.divisor]
    assert all(value < divisor for divisor in larger)
    assert scale.divisor == ladder[0] or value >= scale.divisor * 0.999999


@given(st.floats(-1e12, 1e12))
def test_the_written_number_is_the_number_to_three_digits(value):
    shown = float(digits(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.0051, abs=1e-9)


def test_every_unit_has_its_scales():
    assert set(LADDERS) == set(get_args(Unit))
