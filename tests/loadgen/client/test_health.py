"""What the load generator knows about itself: histograms against raw values, and what its probe reports."""

from __future__ import annotations

import json
import math
import time

import gevent
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.client import health as client_health
from loadgen.client import probe as client_probe
from loadgen.client.health import GRID_NS, LagHistogram, ProbeReport, schedule_lag_ns, worker_health
from loadgen.client.probe import ClientProbe
from tests.loadgen.records import MS, record

lags = st.lists(st.integers(0, 2 * 10**10), min_size=1, max_size=40)


def histogram(values) -> LagHistogram:
    made = LagHistogram()
    made.add(values)
    return made


@given(lags, st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_the_raw_ones_rounded_up_to_a_bucket(values, share):
    raw = sorted(values)[max(1, math.ceil(share * len(values))) - 1] / MS
    told = histogram(values).quantile_ms(share)
    assert told is not None and raw <= told
    assert told <= max(raw * 1.2501, GRID_NS[0] / MS) or told == max(values) / MS


@given(lags, lags)
def test_merging_and_json_lose_nothing(some, others):
    merged = histogram(some)
    merged.merge(histogram(others))
    single = LagHistogram()
    for value in some + others:
        single.add([value])
    assert merged.to_dict() == single.to_dict() == histogram(some + others).to_dict()
    again = LagHistogram.from_dict(json.loads(json.dumps(merged.to_dict())))
    assert again.to_dict() == merged.to_dict()
    assert merged.buckets()[-1] == ("+Inf", len(some + others))


def test_nothing_measured_is_no_figure():
    assert LagHistogram().figures() == {"p50": None, "p99": None, "max": None}
    assert histogram([]).count == 0
    assert histogram([-5]).figures() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


@pytest.mark.parametrize("counts", [{"-1": 1}, {"99": 1}])
def test_a_bucket_that_does_not_exist_is_refused(counts):
    with pytest.raises(ValueError, match="no such bucket"):
        LagHistogram.from_dict({"counts": counts, "sum_ns": 1, "max_ns": 1})


def test_a_newer_report_replaces_totals_and_adds_late_wakes():
    first = ProbeReport(wall_s=1, cpu_s=0.5, waiting_s=0.1, loop_lag=histogram([1, 2]), late=[(10, 1)], gc_pauses=1)
    second = ProbeReport(wall_s=2, cpu_s=1.5, waiting_s=0.1, loop_lag=histogram([1, 2, 3]), late=[(20, 2)], gc_pauses=2)
    kept = ProbeReport()
    for report in (first, second):
        kept.follow(ProbeReport.from_dict(json.loads(json.dumps(report.to_dict()))))
    assert kept.late == [(10, 1), (20, 2)]
    assert (kept.cpu_share, kept.waiting_share, kept.loop_lag.count, kept.gc_pauses) == (0.75, 0.05, 3, 2)
    assert first.late == [(10, 1)], "following must not change what it follows"


def test_a_block_without_an_end_stays_small(monkeypatch):
    monkeypatch.setattr(client_health, "KEPT_LATE", 10)
    kept = ProbeReport()
    for start in range(0, 1000, 5):
        kept.follow(ProbeReport(late=[(i, 1) for i in range(start, start + 5)]))
    assert 10 <= len(kept.late) <= 20
    assert kept.late[-1] == (999, 1)


def test_health_sums_up_each_worker():
    records = [
        record(0, [MS, 2 * MS], worker="a", read_lags_ns=[5, 2 * MS], clock="kernel"),
        record(9, [MS], worker="b", read_lags_ns=[MS], clock="kernel", t_intended=2, connect_ns=3),
    ]
    a, b = worker_health(records, {"a": ProbeReport(wall_s=2.0)})
    assert (a.worker, a.requests, a.events, a.events_per_s, a.read_lag.max_ns) == ("a", 1, 2, 1.0, 2 * MS)
    assert (b.worker, b.events_per_s, b.schedule_lag.max_ns, b.schedule_lag.count) == ("b", None, 4, 1)
    assert a.schedule_lag.count == 0, "a closed loop has no schedule"
    assert schedule_lag_ns(record(9, t_intended=8, connect_ns=5)) == 0
    json.dumps([a.figures(), b.figures()], allow_nan=False)


@pytest.fixture(params=["kernel timer", "gevent's timer"])
def probe(request, monkeypatch):
    if request.param != "kernel timer":
        monkeypatch.setattr(client_probe, "_KernelTimer", None)
        monkeypatch.setattr(client_probe, "_open_schedstat", lambda: None)

        def refuse(period_ns):
            raise OSError("no timerfd on this system")

        monkeypatch.setattr(client_probe, "_KernelTimer", refuse)
    made = ClientProbe()
    yield made
    made.close()
    made.close()


def test_probe_sees_a_loop_that_is_held_up(probe):
    gevent.sleep(0.1)
    probe.begin()
    spun_from = time.monotonic_ns()
    while time.monotonic_ns() - spun_from < 60 * MS:
        pass
    gevent.sleep(0.05)
    report = probe.report()
    late = [(at, lag) for at, lag in report.late if lag > 40 * MS]
    assert late, "60 ms without a look must be seen as more than 40"
    assert all(at >= spun_from + 60 * MS for at, _ in late)
    # Each period of the stall met it: it weighs as much as it lasted.
    held = sum(report.loop_lag.counts[np.searchsorted(GRID_NS, MS) :])
    assert held >= (60 * MS - client_probe.EVENT_LOOP_STEP_NS) // client_health.PROBE_PERIOD_NS - 2
    assert report.wall_s >= 0.11 and report.cpu_s > 0
    assert probe.report().late == [] or probe.report().loop_lag.count >= report.loop_lag.count


def test_probe_that_was_asked_by_the_one_who_holds_up_the_loop(probe):
    if probe._timer is None:
        pytest.skip("only the kernel's timer can be read at any moment")
    gevent.sleep(0.02)
    probe.begin()
    started = time.monotonic()
    while time.monotonic() - started < 0.05:
        pass
    assert probe.report().loop_lag.max_ns > 30 * MS


def test_late_wakes_that_could_not_be_sent_are_told_again(probe):
    report = probe.report()
    report.late = [(1, 2)]
    probe._late = [(3, 4)]
    probe.give_back(report)
    assert probe.report().late[:2] == [(1, 2), (3, 4)]


def test_probe_counts_collections(probe):
    import gc

    probe.begin()
    before = probe.process_report().gc_pauses
    gc.collect()
    report = probe.report()
    assert report.gc_pauses >= 1 and 0 < report.gc_max_s <= report.gc_total_s
    assert probe.process_report().gc_pauses >= before + 1
