"""The rule that says whether the load generator was the limit, on constructed blocks."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from loadgen.client.health import LagHistogram, ProbeReport
from loadgen.client.verdict import HABIT_REQUESTS, ClientVerdict, Lateness, idle_share, judge, possible_errors
from loadgen.record import ErrorKind
from tests.loadgen.records import MS, record

TOKENS = 33
GAP = 10 * MS
E2E = 50 * MS + (TOKENS - 1) * GAP
QUIET = 50_000


def stream(index=0, user=0, *, first=1, lag=QUIET, tail=MS // 10, pause=MS // 10, gap=GAP, **fields):
    """A request of 33 tokens at 10 ms, TTFT 50 ms, its first `first` events merged into one read, `lag` unread."""
    send = index * (E2E + pause) + user * 1_000_003
    offsets = [50 * MS + max(i, first - 1) * gap for i in range(TOKENS)]
    known = {
        **{"worker": "w", "user": user, "index": index, "clock": "kernel", "output_tokens": TOKENS},
        **{"read_lags_ns": [lag] * TOKENS, "done": send + offsets[-1] + tail},
    }
    return record(send, offsets, **{**known, **fields})


def probe(*, cpu=0.3, waiting=0.0, late=(), lags=(QUIET,), gc_max_s=0.0, wall_s=10.0) -> ProbeReport:
    lag = LagHistogram()
    lag.add(list(lags))
    return ProbeReport(wall_s, cpu * wall_s, waiting * wall_s, lag, list(late), 1, gc_max_s, gc_max_s)


def late_at(records, lag):
    """Late wakes of the probe right when each request's first event was read."""
    return [(r.t_first + r.read_lags_ns[0], lag) for r in records]


DATA = TypeAdapter(ClientVerdict)
"""A verdict as manifests and the master's status hold it."""


def verdict(records, *reports: ProbeReport) -> ClientVerdict:
    names = ["w", "v", "u"]
    made = judge(records, records, dict(zip(names, reports or (probe(),), strict=False)))
    assert DATA.validate_json(json.dumps(DATA.dump_python(made, mode="json"), allow_nan=False)) == made
    assert made.limited == bool(made.reasons)
    return made


def test_a_quiet_client_is_not_the_limit():
    told = verdict([stream(i) for i in range(50)])
    assert (told.limited, told.ttft_error_ms, told.tpot_error_share, told.workers_needed) == (False, 0.0, 0.0, None)
    assert "was not the limit" in told.sentence() and "less than 0.1 ms" in told.sentence()


def test_late_reads_of_single_events_falsify_nothing_by_kernel_stamps():
    records = [stream(i, lag=8 * MS, pause=MS) for i in range(50)]
    told = verdict(records, probe(late=late_at(records, 9 * MS)))
    assert (told.limited, told.ttft_error_ms) == (False, 0.0)


def test_first_events_merged_while_the_reader_was_late():
    records = [stream(i, first=2, lag=MS) for i in range(50)]
    told = verdict(records, probe(late=late_at(records, 12 * MS)))
    assert told.limited
    # 12 ms of lateness were seen; up to 2 more may have passed since the probe's last look; less the read's own lag.
    assert told.ttft_error_ms == pytest.approx(12 + 2 - 1)
    assert "TTFT may be off by up to 13.0 ms (tolerance 1.2 ms)" in told.sentence()


def test_a_merged_event_is_off_by_as_much_as_it_usually_comes_earlier():
    records = [stream(i, first=3 if i % 10 == 0 else 1) for i in range(50)]
    told = verdict(records, probe(late=late_at(records[::10], 90 * MS)))
    assert told.ttft_error_ms == pytest.approx(2 * GAP / MS)


@pytest.mark.parametrize(("seen", "error"), [(0, 0), (0.9, 0.9), (1.1, 1.5), (5, 1.5)])
def test_a_stall_of_which_the_probe_saw_the_end_only(seen, error):
    """The first two events, 1.5 ms apart, were merged while the process stood still; the probe was due late in that."""
    records = [stream(i, first=2 if i % 10 == 0 else 1, lag=0, gap=3 * MS // 2) for i in range(50)]
    told = verdict(records, probe(late=late_at(records[::10], round(seen * MS))))
    assert told.ttft_error_ms == pytest.approx(error)
    assert any(reason.startswith("TTFT") for reason in told.reasons) == (error > 1)


def test_a_habit_is_not_learnt_from_a_few_requests():
    records = [stream(i, first=2 if i == 0 else 1, lag=0) for i in range(HABIT_REQUESTS)]
    late = probe(late=late_at(records[:1], 20 * MS))
    assert verdict(records, late).ttft_error_ms == pytest.approx(22, rel=0.05)
    assert verdict([*records, stream(HABIT_REQUESTS)], late).ttft_error_ms == pytest.approx(10, rel=0.06)


def test_another_stream_that_lay_unread_tells_of_the_lateness_too():
    records = [stream(i, first=2, lag=MS) for i in range(50)]
    # Another user's events, read at the same moments, whose stamps show that they had waited for 6 ms.
    others = [stream(i, user=1, lag=6 * MS, tail=MS) for i in range(50)]
    for r, other in zip(records, others, strict=True):
        shift = (r.t_first + MS) - (other.t_first + 6 * MS)
        other.t_send += shift
    told = judge(records, records + others, {"w": probe()})
    assert told.ttft_error_ms == pytest.approx(6 + 2 - 1)
    assert told.limited


def test_a_server_that_sends_several_events_at_once_is_no_fault_of_a_punctual_reader():
    records = [stream(i, first=4) for i in range(50)]
    told = verdict(records, probe(late=late_at(records, 2 * QUIET)))
    assert (told.limited, told.ttft_error_ms) == (False, pytest.approx(0.05))
    told = verdict(records, probe(late=late_at(records[::5], 7 * MS)))
    assert (told.limited, told.ttft_error_ms) == (False, pytest.approx(0.0))


@pytest.mark.parametrize(("merged", "limited"), [(1, False), (20, True)])
def test_the_share_of_requests_decides(merged, limited):
    records = [stream(i, first=2 if i % 400 < merged else 1) for i in range(400)]
    told = verdict(records, probe(late=late_at(records, 30 * MS)))
    assert told.limited is limited


def test_the_tolerance_grows_with_the_ttft():
    records = [stream(i, first=2, clock="user", read_lags_ns=[]) for i in range(50)]
    told = verdict(records, probe(late=[(r.t_first, round(1.1 * MS)) for r in records]))
    assert (told.limited, told.ttft_error_ms, told.ttft_tolerance_ms) == (False, pytest.approx(1.1), pytest.approx(1.2))


def test_without_kernel_stamps_every_lateness_counts():
    records = [stream(i, clock="user", read_lags_ns=[]) for i in range(50)]
    late = [(r.t_first, 3 * MS) for r in records]
    told = verdict(records, probe(late=late))
    assert told.limited and told.ttft_error_ms == pytest.approx(3)
    assert verdict(records, probe()).limited is False


def test_without_stamps_and_without_a_probe_nothing_is_known():
    records = [stream(i, clock="user", read_lags_ns=[]) for i in range(5)]
    told = judge(records, records, {})
    assert (told.limited, told.ttft_error_ms, told.tpot_error_share) == (False, None, None)
    assert "not known" in told.sentence()


def test_tpot_of_short_answers_suffers_from_both_ends():
    records = [stream(i, first=2, lag=0, tail=0, output_tokens=TOKENS) for i in range(50)]
    for r in records:  # a tail that was merged with the last event while the process was late
        r.t_done = r.t_last
    late = late_at(records, 4 * MS) + [(r.t_last, 4 * MS) for r in records]
    told = verdict(records, probe(late=late))
    # 4 ms at either end, and at the first up to 2 more since the probe's last look.
    assert told.tpot_error_share == pytest.approx(10 * MS / (records[0].t_last - records[0].t_first))
    assert any(reason.startswith("TPOT") for reason in told.reasons)


def test_a_tail_that_usually_follows_at_once_is_taken_to_do_so_when_nobody_looked():
    records = [stream(i, tail=MS // 20) for i in range(40)] + [stream(i, tail=0) for i in range(40, 50)]
    told = verdict(records, probe(late=[(r.t_last + QUIET, 20 * MS) for r in records[40:]]))
    assert told.tpot_error_share is not None and told.tpot_error_share < 0.001
    assert not told.limited


def test_errors_cannot_exceed_the_time_since_sending():
    records = [stream(i, first=2, lag=0) for i in range(3)]
    ttft, _ = possible_errors(records, records, {"w": probe(late=late_at(records, 10**12))})
    assert ttft == [(r.t_first - r.t_send) / MS for r in records]


@pytest.mark.parametrize(("pause", "limited"), [(MS, False), (20 * MS, True)])
def test_users_that_wake_late_lower_the_load(pause, limited):
    records = [stream(i, user, pause=pause, tail=0) for user in range(4) for i in range(10)]
    told = verdict(records)
    assert told.idle_share == pytest.approx(pause / (E2E + pause), rel=0.01)
    assert told.limited is limited
    assert not limited or "load was lower" in told.sentence()


def test_pauses_that_are_not_the_clients_are_no_idle_time():
    def pair(**fields):
        return [stream(0, tail=0), stream(1, tail=0, pause=100 * MS, **fields)]

    assert idle_share(pair()) == pytest.approx(100 / (100 + E2E / MS), rel=0.01)
    assert idle_share(pair(connect_ns=100 * MS)) == pytest.approx(0, abs=0.001)
    assert idle_share(pair(t_intended=0)) is None, "an open loop has no idle users"
    before, after = pair()
    after.index = 2
    assert idle_share([before, after]) is None, "a record between them is missing"
    before, after = pair()
    before.error = "http_503"
    assert idle_share([before, after]) is None, "a user backs off after a failure"
    assert idle_share([]) is None


@pytest.mark.parametrize(("lag", "limited"), [(MS, False), (5 * MS, True)])
def test_requests_behind_their_schedule(lag, limited):
    records = [stream(i) for i in range(50)]
    for r in records:
        r.t_intended = r.t_send - lag
    told = verdict(records)
    assert (told.limited, told.schedule_lag_ms, told.idle_share) == (limited, pytest.approx(lag / MS), None)
    assert not limited or "behind their schedule" in told.sentence()


def test_a_busy_core_alone_is_no_reason_but_with_lag_it_is():
    records = [stream(i) for i in range(50)]
    assert not verdict(records, probe(cpu=0.99)).limited
    assert not verdict(records, probe(cpu=0.5, lags=[3 * MS])).limited
    told = verdict(records, probe(cpu=0.99, lags=[3 * MS]))
    assert told.limited and told.workers_needed == 2
    assert "2 workers would do (BAKEOFF_WORKERS=2" in told.sentence() and "--workers 2" in told.sentence()


def test_workers_needed_leaves_each_a_reserve():
    records = [stream(i, worker=worker) for worker in "wvu" for i in range(20)]
    busy = [probe(cpu=0.95, lags=[3 * MS]) for _ in range(3)]
    assert verdict(records, *busy).workers_needed == 5  # 2.85 cores at 60% each


def test_a_starved_process_is_told_to_get_a_core_not_more_workers():
    records = [stream(i, first=2, lag=0) for i in range(50)]
    told = verdict(records, probe(cpu=0.3, waiting=0.6, late=late_at(records, 9 * MS)))
    assert told.limited and told.workers_needed is None
    assert "kept it from its CPU for 60% of the time" in told.sentence()


def test_long_collections_are_named():
    records = [stream(i, first=2, lag=0) for i in range(50)]
    told = verdict(records, probe(gc_max_s=0.02, late=late_at(records, 9 * MS)))
    assert "garbage collector paused it for up to 20.0 ms" in told.sentence()


def test_failed_and_aborted_requests_are_not_judged():
    bad = [stream(i, first=2, lag=0, error=error) for i, error in enumerate(["truncated", ErrorKind.ABORTED])]
    records = [stream(i + 2) for i in range(5)]
    told = judge(bad + records, bad + records, {"w": probe(late=late_at(bad, 40 * MS))})
    assert (told.requests, told.limited) == (5, False)
    nothing = judge([], bad, {})
    assert (nothing.limited, nothing.requests) == (False, 0) and "cannot be judged" in nothing.sentence()


def test_one_worker_does_not_answer_for_the_other():
    mine, theirs = [stream(i, first=2, lag=0) for i in range(50)], [stream(i, worker="v") for i in range(50)]
    late = probe(late=late_at(mine, 9 * MS))
    assert verdict(mine + theirs, late, probe()).limited
    assert not verdict(mine + theirs, probe(), late).limited
    slow = [stream(i, worker="v", lag=9 * MS) for i in range(50)]
    assert not judge(mine, mine + slow, {"w": probe(), "v": probe()}).limited
    figures = verdict(mine + theirs, late, probe()).workers
    assert [each["worker"] for each in figures] == ["v", "w"]


def test_lateness_is_looked_up_near_a_moment_only():
    late = Lateness([], "w", probe(late=[(100 * MS, 7), (100 * MS + 1, 9)]))
    assert [late.around(ms * MS) for ms in (90, 98, 100, 102, 110)] == [0, 9, 9, 9, 0]


def test_a_verdict_of_a_later_version_can_be_read():
    told = verdict([stream(0)])
    assert DATA.validate_python({**DATA.dump_python(told), "news": 1}) == told
    with pytest.raises(ValidationError):
        DATA.validate_python({"limited": True})


@pytest.mark.parametrize(("spread_ms", "limited"), [(0.9, False), (1.1, True)])
def test_a_batch_whose_requests_leave_apart_is_the_clients_doing(spread_ms, limited):
    records = [stream(i // 4, i % 4, t_intended=-1) for i in range(40)]
    told = judge(records, records, {"w": probe()}, [0.1] * 5 + [spread_ms] * 5)
    assert (told.limited, told.send_spread_ms) == (limited, pytest.approx(spread_ms))
    assert (told.schedule_lag_ms, told.idle_share, told.workers_needed) == (None, None, None)
    if limited:
        assert "the requests of a batch were sent up to 1.1 ms apart (tolerance 1.0 ms)" in told.sentence()


def test_a_batch_that_waits_for_its_slowest_leaves_nobody_idle():
    fast = [stream(i, 0, pause=E2E, t_intended=-1) for i in range(50)]
    told = judge(fast, fast, {"w": probe(cpu=2.0)}, [0.0] * 50)
    assert (told.limited, told.idle_share) == (False, None)
