"""Money for tokens: figures worked out by hand, and what must hold for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.analysis.cost import at_load, per_million, per_million_interval, saving


@pytest.mark.parametrize(
    ("gpu_hour", "gpus", "tokens_per_s", "money"),
    [
        (3.6, 1, 1000.0, 1.0),  # a thousandth of the money a second, a thousand seconds
        (2.5, 1, 2500.0, 0.2777777777777778),  # 400 s of 3,600 at 2.5
        (2.5, 8, 10_000.0, 0.5555555555555556),  # 100 s of eight GPUs: 800 / 3,600 hours
    ],
)
def test_a_million_tokens_cost_what_the_gpus_do_meanwhile(
    gpu_hour: float, gpus: int, tokens_per_s: float, money: float
) -> None:
    assert per_million(gpu_hour, gpus, tokens_per_s) == pytest.approx(money, rel=1e-12)


def test_the_fast_end_of_throughput_is_the_cheap_end() -> None:
    assert per_million_interval(3.6, 1, (500.0, 2000.0)) == pytest.approx((0.5, 2.0))


def test_nothing_measured_costs_nothing_known() -> None:
    assert per_million(2.5, 1, None) is None
    assert per_million(2.5, 1, 0.0) is None
    assert per_million_interval(2.5, 1, None) is None
    assert per_million_interval(2.5, 1, (0.0, 10.0)) is None


def test_a_saving_by_hand() -> None:
    """b has 1.25 times the throughput: 0.8 of the price; between 1.1 and 1.6 times, 1/1.1 and 0.625 of it."""
    found = saving("b", 1.25, (1.1, 1.6), 1, 1)
    assert found is not None and found.cheaper == "b"
    assert found.share == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((1 - 1 / 1.1, 0.375))
    found = saving("a", 0.8, (0.75, 0.9), 2, 2)
    assert found is not None and found.cheaper == "a"
    assert found.share == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((0.1, 0.25))


def test_a_faster_engine_on_more_gpus_may_be_dearer() -> None:
    found = saving("b", 1.6, (1.5, 1.7), 1, 2)  # twice the price of an hour, 1.6 times the tokens
    assert found is not None and found.cheaper == "a"
    assert found.share == pytest.approx(1 - 1.6 / 2)
    assert saving("b", 1.98, (1.9, 2.1), 1, 2) is None, "the interval holds equal prices"


@pytest.mark.parametrize("verdict", ["none", "undecided", "invalid"])
def test_no_saving_where_nobody_is_named(verdict: str) -> None:
    assert saving(verdict, 1.25, (1.1, 1.6), 1, 1) is None


def test_a_figure_between_loads() -> None:
    assert at_load([4.0, 8.0], [100.0, 180.0], 6.0) == pytest.approx(140.0)
    assert at_load([4.0, 8.0], [100.0, 180.0], 8.0) == pytest.approx(180.0)
    assert at_load([4.0, 8.0], [100.0, 180.0], 9.0) is None
    assert at_load([4.0, 8.0], [100.0, 180.0], None) is None
    assert at_load([], [], 1.0) is None


SPEED = st.floats(1e-3, 1e6)
PRICE = st.floats(0.01, 1000.0)
GPUS = st.integers(1, 64)


@given(PRICE, GPUS, GPUS, st.lists(SPEED, min_size=3, max_size=3), SPEED)
def test_the_saving_is_that_of_the_prices(
    price: float, gpus_a: int, gpus_b: int, speeds: list[float], base: float
) -> None:
    """Whichever engine is named, shares follow from the two prices, lie in their interval, and are above 0."""
    low, middle, high = sorted(speeds)
    a = per_million(price, gpus_a, base)
    b, ends = per_million(price, gpus_b, middle), per_million_interval(price, gpus_b, (low, high))
    assert a is not None and b is not None and ends is not None
    assert ends[0] <= b <= ends[1]
    found = saving("a", middle / base, (low / base, high / base), gpus_a, gpus_b)
    if found is None:
        assert ends[0] <= a * (1 + 1e-9) and a * (1 - 1e-9) <= ends[1]
        return
    cheap, dear = (a, b) if found.cheaper == "a" else (b, a)
    assert found.share == pytest.approx(1 - cheap / dear, rel=1e-6, abs=1e-9)
    assert 0 < found.ci95[0] <= found.share * (1 + 1e-9) + 1e-12 and found.share <= found.ci95[1] + 1e-9 < 1 + 1e-8
