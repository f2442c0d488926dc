"""Two runs whose blocks are independent: against scipy's Welch test, a plain rewrite, and simulated truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadgen.statistics.metrics import METRICS, BlockSample, CellSample, Metric, Total
from loadgen.statistics.result import Settings, Statistics
from loadgen.statistics.unpaired import alone, compare_unpaired, measure_unpaired

MEAN = Metric("tpot_ms.mean", "tpot_ms", "mean", "ms")
P95 = Metric("tpot_ms.p95", "tpot_ms", 95, "ms")
RATE = Metric("output_tokens_per_s", "output_tokens", "rate", "tok/s", "higher")


def blocks(values, *, invalid=None):
    """Blocks of request values, each array one block."""
    return [
        BlockSample(i + 1, float(i), {"tpot_ms": np.asarray(own, dtype=np.float64)}, invalid=invalid)
        for i, own in enumerate(values)
    ]


def rates(values):
    return [BlockSample(i + 1, float(i), totals={"output_tokens": Total(10 * v, 10.0)}) for i, v in enumerate(values)]


def measured(metric, a, b):
    return measure_unpaired(metric, alone(metric, a), alone(metric, b))


figures = st.lists(st.floats(99, 101), min_size=2, max_size=9)


@given(figures, figures)
def test_equal_blocks_of_one_figure_are_welchs_test(a, b):
    """A rate over windows of one length is the mean of the blocks' rates; near 100 a logarithm is nearly a line."""
    if np.std(a) < 1e-3 or np.std(b) < 1e-3:
        return
    found = measured(RATE, rates(a), rates(b))
    expected = stats.ttest_ind(b, a, equal_var=False)
    freedom = min(expected.df, 2 * (min(len(a), len(b)) - 1))
    error = abs(np.mean(b) - np.mean(a)) / abs(expected.statistic) if expected.statistic else None
    assert found.difference is not None and found.figures is not None
    assert found.figures == pytest.approx((np.mean(a), np.mean(b)))
    assert found.difference.estimate == pytest.approx(np.mean(b) - np.mean(a), abs=1e-9)
    if error is not None:
        reach, wanted = np.diff(found.difference.interval())[0], 2 * stats.t.ppf(0.975, freedom) * error
        assert reach == pytest.approx(wanted, rel=0.05, abs=0.01)


@given(st.lists(st.lists(st.floats(1, 50), min_size=3, max_size=6), min_size=2, max_size=5), st.data())
def test_percentiles_are_pooled_and_halved_by_block(a, data):
    """A rewrite with plain lists: never a mean of percentiles, never a request for a block."""
    b = data.draw(st.lists(st.lists(st.floats(1, 50), min_size=3, max_size=6), min_size=2, max_size=5))
    found = measured(P95, blocks(a), blocks(b))

    def side(own):
        def p95(lists):
            values = sorted(value for one in lists for value in one)
            place = 0.95 * (len(values) - 1)
            low = values[math.floor(place)]
            return math.log(low + (values[math.ceil(place)] - low) * (place % 1))

        kept = len(own) // 2
        found = [p95(choice) for choice in itertools.combinations(own, kept)]
        mean = sum(found) / len(found)
        return p95(own), kept / (len(own) - kept) * sum((x - mean) ** 2 for x in found) / len(found)

    (log_a, var_a), (log_b, var_b) = side(a), side(b)
    assert found.ratio is not None
    assert found.ratio.estimate == pytest.approx(log_b - log_a)
    assert found.ratio.error == pytest.approx(math.sqrt(var_a + var_b), abs=1e-12)


def test_the_order_of_blocks_pairs_nothing():
    chance = np.random.default_rng(1)
    a, b = chance.lognormal(3, 0.1, (5, 40)), chance.lognormal(3, 0.1, (7, 40))
    one, other = measured(MEAN, blocks(a), blocks(b)), measured(MEAN, blocks(a), blocks(b[::-1]))
    assert one.ratio is not None and other.ratio is not None
    assert one.ratio.interval() == pytest.approx(other.ratio.interval())


def test_one_block_has_an_interval_of_its_own_scatter_and_no_verdict():
    chance = np.random.default_rng(2)
    a, b = chance.lognormal(3, 0.1, (1, 400)), chance.lognormal(4, 0.1, (1, 400))
    found = compare_unpaired("A", "B", [CellSample("p0512-o0128-c004", blocks(a), blocks(b))], metrics=[MEAN])
    one = found.cells[0].metrics["tpot_ms.mean"]
    assert one.ratio is not None and one.ratio.ci95 is not None
    assert (one.verdict, one.reason) == ("undecided", "one_repeat")


def test_blocks_that_decide_nothing_are_left_out_and_named():
    good, bad = blocks([[10.0, 10.1]] * 3), blocks([[99.0]] * 3, invalid="client-limited")
    found = compare_unpaired("A", "B", [CellSample("p0512-o0128-c004", good, bad)], metrics=[MEAN])
    cell = found.cells[0]
    assert (cell.verdict, cell.reason) == ("invalid", "no_valid_pair")
    assert [(one.engine, one.repeat, one.reason) for one in cell.left_out] == [
        ("b", repeat, "client-limited") for repeat in (1, 2, 3)
    ]


def test_a_side_without_the_metric_is_not_measured():
    other = [BlockSample(1, 0.0, {"ttft_ms": np.array([1.0])})]
    assert measured(MEAN, blocks([[1.0]]), other).problem == "not_measured"


def simulated(chance, cells, repeats, ratio, *, scatter=0.01, start_scatter=0.0, requests=60):
    """Cells whose blocks scatter by themselves, and with the start of the engine that they share."""
    starts = [np.exp(chance.normal(0, start_scatter, repeats)) for _ in "ab"]

    def side(factor, start):
        own = factor * start * np.exp(chance.normal(0, scatter, repeats))
        return blocks([f * chance.lognormal(2, 0.05, requests) for f in own])

    return [
        CellSample(f"p{512 + i:04d}-o0128-c004", side(1.0, starts[0]), side(ratio, starts[1])) for i in range(cells)
    ]


@pytest.mark.parametrize(("metric", "repeats"), [(MEAN, 3), (MEAN, 6), (P95, 6)])
def test_intervals_cover_the_true_ratio(metric, repeats):
    chance, hits, rounds = np.random.default_rng(3), 0, 800
    for _ in range(rounds):
        (cell,) = simulated(chance, 1, repeats, 1.03)
        found = measured(metric, cell.a, cell.b)
        assert found.ratio is not None
        low, high = found.ratio.interval()
        hits += low <= math.log(1.03) <= high
    # Welch's degrees of freedom are a little off with few blocks; the rest is chance (0.8% for 800 rounds).
    assert 0.925 <= hits / rounds <= 0.985


def test_equal_engines_are_seldom_called_different_over_many_cells():
    chance, alarms, rounds = np.random.default_rng(4), 0, 200
    for _ in range(rounds):
        found = compare_unpaired("A", "B", simulated(chance, 4, 4, 1.0, start_scatter=0.01), metrics=[MEAN])
        called = {one.metrics["tpot_ms.mean"].verdict for one in found.cells} | {found.overall["tpot_ms.mean"].verdict}
        alarms += bool(called & {"a", "b"})
    assert alarms <= 18  # 5% of 200, and chance


def test_a_difference_of_8_percent_is_found_and_has_its_direction():
    found = compare_unpaired("A", "B", simulated(np.random.default_rng(5), 3, 5, 1.08), metrics=[MEAN])
    assert found.verdict == "a"
    faster = found.overall["tpot_ms.mean"].faster
    assert faster is not None and faster.ci95 is not None and faster.ci95[0] <= 0.08 <= faster.ci95[1]
    assert {cell.verdict for cell in found.cells} == {"a"}


def test_exchanging_the_sides_exchanges_the_verdict():
    cells = simulated(np.random.default_rng(6), 2, 5, 1.05)
    turned = [CellSample(cell.id, cell.b, cell.a) for cell in cells]
    one, other = (compare_unpaired("x", "y", c, metrics=[MEAN]).overall["tpot_ms.mean"] for c in (cells, turned))
    assert one.ratio is not None and other.ratio is not None
    assert one.ratio.estimate == pytest.approx(1 / other.ratio.estimate)
    assert {one.verdict, other.verdict} == {"a", "b"}


def test_the_result_is_of_the_same_schema():
    found = compare_unpaired("A", "B", simulated(np.random.default_rng(7), 2, 3, 1.0), Settings(), METRICS)
    assert Statistics.model_validate_json(found.model_dump_json()) == found


def test_a_cell_that_is_given_twice_is_a_mistake():
    cells = simulated(np.random.default_rng(8), 1, 2, 1.0)
    with pytest.raises(ValueError, match="same id"):
        compare_unpaired("A", "B", cells * 2)
