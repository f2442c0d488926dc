"""A whole comparison: against scipy's paired t-test, by hand, and what must not change it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadgen.statistics.compare import compare
from loadgen.statistics.interval import all_but_one, halves
from loadgen.statistics.metrics import CellSample, Load, Metric
from loadgen.statistics.result import Settings
from tests.loadgen.statistics.samples import block, cell

MEAN = Metric("tpot_ms.mean", "tpot_ms", "mean", "ms")
P95 = Metric("tpot_ms.p95", "tpot_ms", 95, "ms")
RATE = Metric("output_tokens_per_s", "output_tokens", "rate", "tok/s", "higher")
HEADLINE = Settings(headline=("tpot_ms.mean",))


def one(a, b, metric=MEAN, options=HEADLINE, **more):
    """The comparison of one cell's values by one metric."""
    found = compare("left", "right", [cell(a, b, **more)], options, [metric])
    return found.cells[0].metrics[metric.key]


def values(rng, repeats, requests=30, scale=1.0, block_effect=0.03):
    effects = rng.normal(0, block_effect, (repeats, 1))
    return scale * 10 * np.exp(effects + rng.normal(0, 0.3, (repeats, requests)))


def test_the_difference_of_means_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    a, b = values(rng, 5), values(rng, 5, scale=1.1)
    found = one(a, b)
    expected = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1)).confidence_interval(0.95)
    assert found.difference.estimate == pytest.approx(b.mean() - a.mean())
    assert found.difference.ci95 == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (found.a.estimate, found.b.estimate) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert found.ratio.estimate == pytest.approx(b.mean() / a.mean())
    assert (found.repeats, found.requests_a, found.requests_b) == (5, 150, 150)


def test_the_ratio_is_close_to_the_paired_t_test_of_logarithms():
    rng = np.random.default_rng(2)
    a, b = values(rng, 6, 200), values(rng, 6, 200, scale=1.1)
    logs = np.log(b.mean(axis=1) / a.mean(axis=1))
    expected = stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))
    found = one(a, b)
    assert np.log(found.ratio.ci95) == pytest.approx(expected, abs=2e-3)
    assert found.p_value == pytest.approx(stats.ttest_1samp(logs, 0).pvalue, rel=0.1)


def test_by_hand_with_two_repeats():
    # Log ratios 0.04 and 0.06: mean 0.05, s / sqrt(2) = 0.01, t(1) = 12.7062.
    found = one([[10.0] * 20, [20.0] * 20], [[10 * math.exp(0.04)] * 20, [20 * math.exp(0.06)] * 20], metric=P95)
    alone = [math.log(10), math.log(20)]
    # p95 of 20 tens and 20 twenties is 20: of the pooled values, not the mean of 10 and 20.
    assert found.a.estimate == pytest.approx(20)
    assert found.a.ci95[0] == pytest.approx(20 * math.exp(-12.7062 * (alone[1] - alone[0]) / 2), rel=1e-4)
    assert found.ratio.estimate == pytest.approx(math.exp(0.06))
    assert np.log(found.ratio.ci95) == pytest.approx([0.06 - 12.7062 * 0.01, 0.06 + 12.7062 * 0.01], rel=1e-4)


def test_rates_are_of_sums():
    a = [block(1, rate=100.0), block(2, rate=300.0, at=3)]
    b = [block(1, rate=120.0, at=1), block(2, rate=360.0, at=2)]
    found = (
        compare("l", "r", [CellSample("c", a, b)], Settings(headline=(RATE.key,)), [RATE]).cells[0].metrics[RATE.key]
    )
    assert (found.a.estimate, found.b.estimate) == (200, pytest.approx(240))
    assert found.ratio.estimate == pytest.approx(1.2)
    assert found.ratio.ci95 == (pytest.approx(1.2), pytest.approx(1.2))
    assert (found.verdict, found.requests_a) == ("b", None)
    assert found.faster.estimate == pytest.approx(0.2)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0.1, 100), min_size=1, max_size=9), min_size=2, max_size=5),
    st.sampled_from(["mean", 0, 50, 95, 99, 100]),
)
def test_a_choice_of_blocks_is_as_good_as_those_blocks_alone(blocks, figure):
    metric = Metric("x", "x", figure, "ms")
    units = [np.array(block) for block in blocks]
    choices = [*halves(len(units)), *all_but_one(len(units))]
    expected = [metric.pooled([units[i] for i in choice]) for choice in choices]
    assert metric.pooled_choices(units, choices) == pytest.approx(expected)


def test_faster_is_the_ratio_of_speeds_whoever_wins():
    rng = np.random.default_rng(3)
    a = values(rng, 4, block_effect=0.001)
    slow, fast = one(a, a * 1.05), one(a, a / 1.05)
    assert (slow.verdict, fast.verdict) == ("a", "b")
    assert slow.faster.estimate == pytest.approx(0.05) == fast.faster.estimate
    assert slow.ratio.estimate == pytest.approx(1.05)
    assert fast.ratio.estimate == pytest.approx(1 / 1.05)


RUNS = st.integers(0, 10_000).map(np.random.default_rng)
MIRROR = {"a": "b", "b": "a"}


@settings(deadline=None, max_examples=30)
@given(RUNS, st.integers(1, 5), st.sampled_from([MEAN, P95]), st.floats(0.8, 1.25))
def test_swapping_the_engines_mirrors_the_verdict(rng, repeats, metric, scale):
    a, b = values(rng, repeats, 40), values(rng, repeats, 40, scale=scale)
    there, back = one(a, b, metric), one(b, a, metric)
    assert back.verdict == MIRROR.get(there.verdict, there.verdict)
    assert (back.reason, back.further_repeats) == (there.reason, there.further_repeats)
    assert back.ratio.estimate == pytest.approx(1 / there.ratio.estimate)
    assert back.ratio.ci95 == (pytest.approx(1 / there.ratio.ci95[1]), pytest.approx(1 / there.ratio.ci95[0]))
    assert back.difference.estimate == pytest.approx(-there.difference.estimate)


@settings(deadline=None, max_examples=30)
@given(RUNS, st.integers(1, 5), st.sampled_from([MEAN, P95]), st.floats(0.01, 1000))
def test_another_unit_changes_no_ratio(rng, repeats, metric, factor):
    a, b = values(rng, repeats, 40), values(rng, repeats, 40, scale=1.1)
    plain, scaled = one(a, b, metric), one(a * factor, b * factor, metric)
    assert scaled.ratio.estimate == pytest.approx(plain.ratio.estimate)
    assert scaled.ratio.ci95 == (pytest.approx(plain.ratio.ci95[0]), pytest.approx(plain.ratio.ci95[1]))
    assert scaled.verdict == plain.verdict
    assert scaled.difference.estimate == pytest.approx(plain.difference.estimate * factor)
    assert scaled.a.ci95 == (pytest.approx(plain.a.ci95[0] * factor), pytest.approx(plain.a.ci95[1] * factor))


@settings(deadline=None, max_examples=30)
@given(RUNS, st.integers(2, 5), st.sampled_from([MEAN, P95]))
def test_the_order_of_requests_and_blocks_does_not_matter(rng, repeats, metric):
    a, b = values(rng, repeats), values(rng, repeats)
    sample = cell(a, b)
    shuffled = CellSample(
        sample.id,
        [dataclasses.replace(x, requests={"tpot_ms": rng.permutation(x.requests["tpot_ms"])}) for x in sample.a[::-1]],
        [dataclasses.replace(x, requests={"tpot_ms": rng.permutation(x.requests["tpot_ms"])}) for x in sample.b[::-1]],
    )
    first, second = (
        compare("l", "r", [s], HEADLINE, [metric]).cells[0].metrics[metric.key] for s in (sample, shuffled)
    )
    for name in ("a", "b", "ratio", "difference"):
        left, right = getattr(first, name), getattr(second, name)
        assert left.estimate == pytest.approx(right.estimate)
        assert left.ci95 == (pytest.approx(right.ci95[0], abs=1e-9), pytest.approx(right.ci95[1], abs=1e-9))
    assert (first.verdict, first.reason, first.further_repeats) == (
        second.verdict,
        second.reason,
        second.further_repeats,
    )


@settings(deadline=None, max_examples=30)
@given(RUNS, st.lists(st.floats(0.5, 2), min_size=4, max_size=4))
def test_what_hits_both_engines_of_a_repeat_widens_no_interval(rng, effects):
    a = np.full((4, 30), 10.0) * np.exp(rng.normal(0, 0.001, (4, 1)))
    b = np.full((4, 30), 10.5) * np.exp(rng.normal(0, 0.001, (4, 1)))
    shared = np.array(effects)[:, None]
    moved = one(a * shared, b * shared)
    assert moved.ratio.estimate == pytest.approx(1.05, rel=5e-3)
    assert moved.ratio.ci95[1] - moved.ratio.ci95[0] < 0.02
    assert moved.verdict == "a"


def test_cells_in_another_order_get_the_same_verdicts():
    rng = np.random.default_rng(4)
    cells = [cell(values(rng, 3), values(rng, 3, scale=s), id=f"p{i}") for i, s in enumerate((1, 1.02, 1.1, 1.5, 0.9))]
    there, back = compare("l", "r", cells, HEADLINE), compare("l", "r", cells[::-1], HEADLINE)
    assert {c.id: c for c in there.cells} == {c.id: c for c in back.cells}
    assert there.overall["tpot_ms.mean"].ratio.ci95 == pytest.approx(back.overall["tpot_ms.mean"].ratio.ci95)


def test_holm_over_cells_headline_metrics_and_their_means():
    rng = np.random.default_rng(5)
    cells = [cell(values(rng, 4), values(rng, 4, scale=1.06), id=f"p{i}") for i in range(4)]
    found = compare("l", "r", cells, HEADLINE)
    tested = [c.metrics["tpot_ms.mean"] for c in found.cells] + [found.overall["tpot_ms.mean"]]
    assert found.family == 5
    # The mean over cells has half of the level, each of the four cells an eighth.
    order = sorted(zip(tested, [1 / 8] * 4 + [1 / 2], strict=True), key=lambda pair: pair[0].p_value / pair[1])
    (first, share), (second, own) = order[:2]
    assert first.p_adjusted == pytest.approx(first.p_value / share)
    assert second.p_adjusted == pytest.approx(max(first.p_adjusted, second.p_value * (1 - share) / own))
    assert all(t.p_adjusted >= t.p_value for t in tested)
    other = found.cells[0].metrics["tpot_ms.p95"]
    assert (other.headline, other.p_adjusted) == (False, None)
    assert other.p_value is not None


def test_cells_of_one_load_have_a_mean_of_their_own():
    effects = {
        (1, 0): [0.02, 0.06],
        (1, 1): [0.04, 0.10],
        (16, 0): [0.30, 0.34],
        (16, 1): [0.10, 0.08],
        (64, 0): [0, 0],
    }
    base = np.full((2, 20), 10.0)
    cells = [
        dataclasses.replace(
            cell(base, base * np.exp(row)[:, None], id=f"p{length}c{load}"), load=Load("users", float(load))
        )
        for (load, length), row in effects.items()
    ]
    found = compare("l", "r", cells, HEADLINE, [MEAN])
    assert [(one.unit, one.value, one.metrics[MEAN.key].cells) for one in found.loads] == [
        ("users", 1.0, 2),
        ("users", 16.0, 2),
    ]  # a load of one cell has none
    assert found.family == 5 + 1 + 2
    means = [math.log(one.metrics[MEAN.key].ratio.estimate) for one in found.loads]
    assert means == pytest.approx([0.055, 0.205], abs=1e-3)
    single = compare("l", "r", cells[:2], HEADLINE, [MEAN])
    assert (single.loads, single.family) == ([], 3)


def test_the_mean_over_cells_by_repeat():
    effects = np.array([[0.02, 0.06, 0.04], [0.10, 0.08, 0.12]])  # of log b / a: cells x repeats
    base = np.full((3, 20), 10.0)
    cells = [cell(base, base * np.exp(row)[:, None], id=f"p{i}") for i, row in enumerate(effects)]
    found = compare("l", "r", cells, HEADLINE).overall["tpot_ms.mean"]
    by_repeat = effects.mean(axis=0)
    expected = stats.t.interval(0.95, 2, by_repeat.mean(), stats.sem(by_repeat))
    assert found.cells == 2
    assert math.log(found.ratio.estimate) == pytest.approx(by_repeat.mean(), abs=3e-4)
    assert np.log(found.ratio.ci95) == pytest.approx(expected, abs=2e-3)
    assert sum(found.verdicts.values()) == 2


def test_one_cell_is_its_own_mean():
    rng = np.random.default_rng(6)
    found = compare("l", "r", [cell(values(rng, 4), values(rng, 4, scale=1.3))], HEADLINE)
    mean, alone = found.overall["tpot_ms.mean"], found.cells[0].metrics["tpot_ms.mean"]
    assert found.family == 1
    assert (mean.ratio, mean.p_adjusted, mean.verdict) == (alone.ratio, alone.p_adjusted, alone.verdict)
    assert (found.verdict, found.cells[0].verdict) == ("a", "a")


def test_one_block_each_has_an_interval_of_its_own_scatter_and_no_verdict():
    rng = np.random.default_rng(7)
    a, b = values(rng, 1, 200), values(rng, 1, 200, scale=3)
    found = one(a, b)
    assert (found.verdict, found.reason, found.p_value, found.detectable) == ("undecided", "one_repeat", None, None)
    assert found.ratio.ci95[0] > 2
    assert found.further_repeats >= 1
    means = [np.array([x.mean() for x in np.split(side[0], 10)]) for side in (a, b)]
    expected = stats.ttest_ind(means[1], means[0], equal_var=False).confidence_interval(0.95)
    assert found.difference.ci95 == (pytest.approx(expected.low, rel=0.05), pytest.approx(expected.high, rel=0.05))
    short = one(a[:, :19], b[:, :19])
    assert (short.verdict, short.ratio.ci95, short.further_repeats) == ("undecided", None, None)


def test_blocks_that_decide_nothing_are_left_out_in_pairs():
    rng = np.random.default_rng(8)
    a, b = values(rng, 4), values(rng, 4, scale=1.1)
    sample = cell(a, b)
    spoilt = [dataclasses.replace(sample.b[1], invalid="client-limited"), *sample.b[::2]]
    found = compare("l", "r", [CellSample("c", sample.a, spoilt)], HEADLINE, [MEAN]).cells[0]
    assert found.metrics["tpot_ms.mean"].repeats == 2
    assert found.metrics["tpot_ms.mean"].a.estimate == pytest.approx(a[[0, 2]].mean())
    assert [(x.engine, x.repeat, x.reason) for x in found.left_out] == [
        ("a", 2, None),
        ("b", 2, "client-limited"),
        ("a", 4, None),
    ]


def test_without_a_valid_pair_a_cell_is_invalid_and_others_still_count():
    rng = np.random.default_rng(9)
    good = cell(values(rng, 4, block_effect=0.001), values(rng, 4, scale=1.5, block_effect=0.001), id="good")
    bad = CellSample("bad", [block(1, [1.0])], [block(1, [1.0], invalid="it failed")])
    found = compare("l", "r", [bad, good], HEADLINE, [MEAN])
    assert [(c.verdict, c.reason) for c in found.cells] == [("invalid", "no_valid_pair"), ("a", "difference")]
    assert (found.verdict, found.overall["tpot_ms.mean"].cells) == ("a", 1)
    alone = compare("l", "r", [bad], HEADLINE, [MEAN])
    assert (alone.verdict, alone.reason, alone.family) == ("invalid", "no_valid_pair", 0)
    assert compare("l", "r", [], HEADLINE, [MEAN]).verdict == "invalid"


def test_what_was_not_measured_or_is_zero():
    rng = np.random.default_rng(10)
    found = compare("l", "r", [cell(values(rng, 2), values(rng, 2))], HEADLINE).cells[0].metrics
    assert (found["ttft_ms.p50"].verdict, found["ttft_ms.p50"].reason) == ("invalid", "not_measured")
    assert found["ttft_ms.p50"].a is None
    zero = one(np.zeros((2, 20)), values(rng, 2, 20))
    assert (zero.verdict, zero.reason, zero.ratio, zero.a.estimate) == ("invalid", "not_positive", None, 0)


def test_a_percentile_needs_as_many_requests():
    rng = np.random.default_rng(11)
    p99 = Metric("tpot_ms.p99", "tpot_ms", 99, "ms")
    a, b = values(rng, 3, 33), values(rng, 3, 33, scale=2)
    assert (one(a, b, p99).verdict, one(a, b, p99).reason) == ("undecided", "few_requests")
    assert one(values(rng, 3, 34), values(rng, 3, 34, scale=3), p99).reason != "few_requests"
    assert one(a, b, P95).reason != "few_requests"


def test_the_clients_floor():
    rng = np.random.default_rng(12)
    a = values(rng, 4, block_effect=0.0005)
    free = Settings(headline=("tpot_ms.mean",), floors_ms={"tpot_ms": 0.9})
    held = Settings(headline=("tpot_ms.mean",), floors_ms={"tpot_ms": 1.1})
    difference = a.mean() * 0.1  # about 1 ms
    assert 0.9 < difference < 1.1
    assert one(a, a * 1.1, options=free).verdict == "a"
    assert one(a, a * 1.1, options=held).reason in ("within_floor", "below_floor")
    mean = compare("l", "r", [cell(a, a * 1.1, id=str(i)) for i in range(2)], held, [MEAN]).overall[MEAN.key]
    assert mean.verdict not in ("a", "b")


def test_mistakes_of_the_caller():
    with pytest.raises(ValueError, match="two valid blocks of engine a in repeat 1"):
        compare("l", "r", [CellSample("c", [block(1, [1.0])] * 2, [block(1, [1.0])])])
    with pytest.raises(ValueError, match="same id"):
        compare("l", "r", [CellSample("c", [], [])] * 2)
