"""Batches: which are measured, and their figures, by hand and against what a batch is."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.metrics.batches import batches_of, send_spreads_ms
from loadgen.metrics.summary import summarise
from loadgen.metrics.window import CutRule, Window
from loadgen.record import ErrorKind, RequestRecord
from tests.loadgen.records import MS, record


def member(batch: int, place: int, send: float, offsets: list[float], **more) -> RequestRecord:
    """One request: number of its batch, place in it, sending and events in ms."""
    events = [round(offset * MS) for offset in offsets]
    sent = round(send * MS)
    known = {"output_tokens": len(offsets), "prompt_tokens": 4, "t_intended": sent}
    return record(sent, events, index=batch, user=place, **{**known, **more})


WARM = [member(0, place, 0.0, [5.0, 6.0]) for place in range(3)]
FIRST = [member(1, 0, 100.0, [10.0, 20.0]), member(1, 1, 101.0, [29.0, 39.0]), member(1, 2, 102.0, [18.0, 48.0])]
SECOND = [member(2, place, 200.0 + place, [10.0 * (place + 1), 40.0]) for place in range(3)]
RULE = CutRule(users=0, warmup_requests=1, measured_requests=6, batch=3)


def test_figures_by_hand() -> None:
    # Sent at 100, 101, 102; first tokens at 110, 130, 120 and last ones at 120, 140, 150.
    one, two = batches_of([*FIRST, *SECOND])
    assert (one.ttft_first_ms, one.ttft_median_ms, one.ttft_last_ms) == (10.0, 20.0, 30.0)
    assert (one.latency_ms, one.output_tokens, one.send_spread_ms) == (50.0, 6, 2.0)
    assert one.tokens_per_s == pytest.approx(120.0)
    assert (two.ttft_first_ms, two.ttft_median_ms, two.ttft_last_ms, two.latency_ms) == (10.0, 21.0, 32.0, 42.0)
    assert send_spreads_ms([*SECOND, *FIRST]) == [2.0, 2.0]


def test_an_even_batch_has_the_mean_of_its_middle_two() -> None:
    (one,) = batches_of([member(0, place, 0.0, [first, 90.0]) for place, first in enumerate((10.0, 20.0, 40.0, 80.0))])
    assert one.ttft_median_ms == 30.0


def test_throughput_is_over_the_batches_and_not_over_what_lies_between_them() -> None:
    every = [*WARM, *FIRST, *SECOND]
    cut = RULE.cut(every)
    assert cut.phases == ["warmup"] * 3 + ["measure"] * 6
    assert cut.complete
    spans = ((100 * MS, 150 * MS), (200 * MS, 242 * MS))
    assert cut.window == Window(100 * MS, 242 * MS, spans)
    found = summarise([(every, cut.measured(every), cut.window)])
    assert found.window_s == pytest.approx(0.092)
    assert found.output_tokens_per_s == pytest.approx(12 / 0.092)
    assert found.requests_per_s == pytest.approx(6 / 0.092)
    assert found.total_tokens_per_s == pytest.approx((12 + 24) / 0.092)
    assert found.batches is not None
    assert (found.batches.latency_ms.count, found.batches.latency_ms.p50) == (2, 46.0)
    assert found.batches.ttft_last_ms.mean == 31.0
    assert found.batches.tokens_per_s.max == pytest.approx(6 / 0.042)
    assert found.ttft_ms.count == 6


def test_a_batch_with_a_failed_request_has_no_figures_of_a_batch() -> None:
    failed = member(2, 1, 201.0, [20.0], error=ErrorKind.STALL_TIMEOUT, done=900 * MS, output_tokens=None)
    every = [*WARM, *FIRST, SECOND[0], failed, SECOND[2]]
    cut = RULE.cut(every)
    assert cut.complete, "its wait has ended like any other"
    # It took its time all the same, so its good requests do not flatter the throughput.
    assert cut.window == Window(100 * MS, 900 * MS, ((100 * MS, 150 * MS), (200 * MS, 900 * MS)))
    found = summarise([(every, cut.measured(every), cut.window)])
    assert found.errors == {"stall_timeout": 1}
    assert found.batches is not None
    assert (found.batches.latency_ms.count, found.batches.latency_ms.p50) == (1, 50.0)


def test_a_batch_that_still_runs_or_was_cut_off_counts_nowhere() -> None:
    running = RULE.cut([*WARM, *FIRST, *SECOND[:2]])
    assert running.phases == ["warmup"] * 3 + ["measure"] * 3 + ["drain"] * 2
    assert not running.complete
    cut_off = RULE.cut([*WARM, *FIRST, *SECOND[:2], member(2, 2, 202.0, [10.0], error=ErrorKind.ABORTED)])
    assert cut_off.phases == ["warmup"] * 3 + ["measure"] * 3 + ["drain"] * 3
    assert not cut_off.complete
    nothing = RULE.cut(WARM)
    assert (nothing.phases, nothing.window, nothing.complete) == (["warmup"] * 3, None, False)


def test_other_loads_have_no_batches() -> None:
    assert summarise([(WARM, WARM, Window(0, 10 * MS))]).batches is None


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 5),
    warmup=st.integers(0, 2),
    wanted=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    extra=st.booleans(),
)
def test_the_measured_are_the_first_whole_batches_behind_the_warm_up(size, warmup, wanted, seed, extra) -> None:
    rng = random.Random(seed)
    batches = warmup + wanted + extra
    records = [
        member(batch, place, 100.0 * batch + rng.random(), [1 + rng.random(), 50 * rng.random() + 3])
        for batch, place in itertools.product(range(batches), range(size))
    ]
    rng.shuffle(records)
    rule = CutRule(0, warmup, wanted * size, batch=size)
    was = False
    for known in range(len(records) + 1):
        cut = rule.cut(records[:known])
        chosen = cut.measured(records[:known])
        of = {r.index for r in chosen}
        assert len(chosen) == size * len(of), "whole batches only"
        assert not of or min(of) >= warmup
        assert len(of) <= wanted
        was = was or cut.complete
    assert was
    assert {r.index for r in rule.cut(records).measured(records)} == set(range(warmup, warmup + wanted))
    window = rule.cut(records).window
    assert window is not None
    assert window.seconds <= (window.end_ns - window.start_ns) / 1e9 + 1e-12
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(window.batches))
