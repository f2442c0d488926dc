"""Figures of many requests, against hand-computed values and plain Python that shares nothing with them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.metrics.summary import Distribution, summarise, tokens_in_window
from loadgen.metrics.window import Window
from loadgen.record import ErrorKind
from tests.loadgen.records import MS, record


def quantile(values, percent):
    """Linear interpolation between order statistics (Hyndman and Fan, type 7), in exact arithmetic."""
    ordered = sorted(map(Fraction, values))
    place = Fraction(percent, 100) * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=200))
def test_distribution_against_exact_arithmetic(values):
    got = Distribution.of(values)
    assert got.count == len(values)
    assert got.mean == pytest.approx(float(sum(map(Fraction, values)) / len(values)), rel=1e-9)
    assert got.max == max(values)
    for percent in (50, 90, 95, 99):
        expected = float(quantile(values, percent))
        assert getattr(got, f"p{percent}") == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_distribution_by_hand():
    got = Distribution.of([float(v) for v in range(1, 12)])  # 1..11
    assert (got.count, got.mean, got.p50, got.p90, got.p95, got.max) == (11, 6.0, 6.0, 10.0, 10.5, 11.0)
    assert got.p99 == pytest.approx(10.9)
    assert Distribution.of([]) == Distribution(0, None, None, None, None, None, None)


request = st.builds(
    lambda send, gaps, tokens, prompt, boot: (
        send,
        [sum(gaps[: i + 1]) for i in range(len(gaps))],
        tokens,
        prompt,
        boot,
    ),
    st.integers(0, 1000),
    st.lists(st.integers(0, 300), max_size=8),
    st.none() | st.integers(1, 40),
    st.none() | st.integers(1, 9),
    st.integers(0, 500),
)


@settings(deadline=None)
@given(st.lists(request, max_size=8), st.integers(0, 1500), st.integers(1, 1500))
def test_tokens_in_window_event_by_event(requests, start, length):
    window = Window(start, start + length)
    records = [
        record(send - boot, offsets, wall_offset_ns=boot, output_tokens=tokens, prompt_tokens=prompt)
        for send, offsets, tokens, prompt, boot in requests
    ]
    counted = [(tokens, len(offsets)) for _, offsets, tokens, _, _ in requests if tokens is not None and offsets]
    usual = Fraction(sum(t for t, _ in counted), sum(n for _, n in counted)) if counted else Fraction(1)
    output = prompts = Fraction(0)
    for send, offsets, tokens, prompt, _ in requests:
        for number, offset in enumerate(offsets):
            if start < send + offset <= start + length:
                output += usual if tokens is None else Fraction(tokens, len(offsets))
                if number == 0:
                    prompts += 4 if prompt is None else prompt
    got = tokens_in_window(records, window)
    assert got == (pytest.approx(float(output)), pytest.approx(float(prompts)))


def test_no_token_is_lost_between_adjoining_windows():
    records = [record(i * 7, [3, 8, 20, 41], output_tokens=9, prompt_tokens=5) for i in range(20)]
    parts = [tokens_in_window(records, Window(a, a + 50)) for a in range(0, 200, 50)]  # (start, end]
    assert sum(p[0] for p in parts) == pytest.approx(20 * 9)
    assert sum(p[1] for p in parts) == 20 * 5


def test_a_block_by_hand():
    """A window of 1 s. Times in ms."""
    before = record(0, [50 * MS, 1050 * MS], output_tokens=2, prompt_tokens=4)  # one event inside
    good = record(200 * MS, [10 * MS, 30 * MS, 50 * MS], output_tokens=6, prompt_tokens=4)
    failed = record(400 * MS, [100 * MS], done=600 * MS, output_tokens=None, error="stall")
    cut_off = record(900 * MS, [50 * MS, 300 * MS], done=1300 * MS, output_tokens=None, error=ErrorKind.ABORTED)
    every = [before, good, failed, cut_off]
    # tokens an event, where known: (2 + 6) / (2 + 3) = 1.6
    summary = summarise([(every, [good, failed], Window(100 * MS, 1100 * MS))])
    assert (summary.requests, summary.errors, summary.window_s) == (2, {"stall": 1}, 1.0)
    assert (summary.ttft_ms.count, summary.ttft_ms.p50, summary.e2e_ms.max) == (1, 10, 50)
    assert summary.tpot_ms.mean == pytest.approx(40 / 5)
    assert (summary.itl_ms.count, summary.itl_ms.mean) == (2, 20)
    # before: 1 token; good: 6; failed: 1 event at 500; cut off: 1 event at 950
    assert summary.output_tokens_per_s == pytest.approx(1 + 6 + 1.6 + 1.6)
    # first events inside: good 4, failed 4 (as wanted), cut off 4 (as wanted)
    assert summary.total_tokens_per_s == pytest.approx(10.2 + 12)
    assert summary.requests_per_s == 2, "before and good ended inside; failed and cut off do not count"
    assert (summary.prompt_tokens, summary.output_tokens, summary.tokens_per_event) == (4, 6, 2)


def test_blocks_pool_their_raw_values_and_never_average_percentiles():
    fast = [record(i * 1000 * MS, [1 * MS], output_tokens=1, index=i) for i in range(9)]
    slow = [record(0, [101 * MS], output_tokens=1)]
    one, three = Window(0, 10**9), Window(0, 3 * 10**9)
    summary = summarise([(fast, fast, three), (slow, slow, one)])
    assert summary.requests == 10
    assert summary.ttft_ms.p50 == 1, "the mean of the blocks' medians would be 51"
    assert summary.ttft_ms.mean == pytest.approx(11)
    assert summary.window_s == 4
    assert summary.requests_per_s == pytest.approx((3 + 1) / 4)


def test_a_block_without_a_window_gives_latencies_and_no_rates():
    summary = summarise([([], [], None)])
    assert (summary.requests, summary.window_s, summary.output_tokens_per_s, summary.requests_per_s) == (
        0,
        None,
        None,
        None,
    )


def test_a_lone_user_ends_as_many_requests_as_were_measured():
    """The warm-up request whose end opens the window is none of them."""
    every = [record(i * 10, [4, 10], output_tokens=2) for i in range(6)]
    opened, ended = every[0].t_done, every[5].t_done
    found = summarise([(every, every[1:], Window(opened, ended))])
    assert found.requests_per_s == pytest.approx(5 / ((ended - opened) / 1e9))
