"""The load generator's own error is that of a run's load: a closed loop's users, an open loop's requests in flight."""

from __future__ import annotations

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from loadgen.analysis.floors import beyond_calibration, floors_ms, streams_of
from loadgen.cli.app import app
from loadgen.metrics.window import Cut
from loadgen.monitoring.memory import Memory
from loadgen.presentation.language import CHINESE
from loadgen.report.data import build_report_data
from loadgen.report.headline import notices
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import BlockFacts, Manifest
from tests.loadgen.known_run import MS, Truth, known_run
from tests.loadgen.records import record

ERRORS = {"p50": 0.1, "p99": 0.2, "max": 1.0}


def calibration(*steps, spoilt=()):
    """A calibration of (streams, p99 of the error in ms)."""
    known = {
        "requests": 10,
        "events_per_s": 1.0,
        "verdict": "ok",
        "oracle_write_p99_ms": 0.01,
        "itl_error_ms": ERRORS,
        "e2e_error_ms": ERRORS,
        "tpot_error_percent": ERRORS,
        "tpot_mean_error_percent": 0.0,
    }
    made = [
        known | {"streams": n, "valid": n not in spoilt, "ttft_error_ms": ERRORS | {"p99": p99}} for n, p99 in steps
    ]
    return {
        "measured_at": "2026-01-01",
        "hostname": "h",
        "host": {},
        "packages": {},
        "git": {},
        "server_core": 0,
        "client_core": 1,
        "realtime": True,
        "load_average": 0.0,
        "timing": {},
        "steps": made,
    }


LADDER = calibration((1, 0.1), (16, 0.3), (64, 1.0), (256, 10.0))


def manifest(floor=LADDER):
    return Manifest(run_id="r", started_at=1.0, floor=floor)


def block(users=0, rate=0.0, in_flight=0):
    """A block of `users`, or one whose requests of 2 s are sent so often that `in_flight` of them are under way."""
    facts = BlockFacts(
        **{"id": "b", "record_id": "b", "engine": "vllm", "cell": "c", "repeat": 1, "status": "complete"},
        **{"users": users, "rate": rate, "warmup_requests": 0, "measured_requests": None, "started_at": 1.0},
    )
    every = 2000 * MS // in_flight if in_flight else 0
    count = 40 * in_flight
    records = [record(t_send=i * every, t_done=i * every + 2000 * MS) for i in range(count)]
    return BlockData(facts, records, Cut(["measure"] * count, None, complete=True))


@pytest.mark.parametrize(("users", "error"), [(1, 0.1), (2, 0.3), (16, 0.3), (65, 10.0), (512, 10.0)])
def test_a_closed_loop_has_its_users_in_flight(users, error):
    assert floors_ms([(manifest(), [block(users=1), block(users=users)])]) == {"ttft_ms": error}


@pytest.mark.parametrize(("in_flight", "error"), [(10, 0.3), (50, 1.0), (100, 10.0)])
def test_an_open_loop_has_as_many_in_flight_as_littles_law_says(in_flight, error):
    loaded = block(rate=in_flight / 2, in_flight=in_flight)
    assert 0.95 * in_flight <= streams_of(loaded) <= in_flight
    assert floors_ms([(manifest(), [loaded])]) == {"ttft_ms": error}


def test_steps_that_were_spoilt_do_not_count_and_an_unknown_error_is_none():
    spoilt = manifest(calibration((1, 0.3), (16, 0.7), (64, 2.0), (256, 90.0), spoilt={256}))
    assert floors_ms([(spoilt, [block(users=300)])]) == {"ttft_ms": 2.0}
    assert floors_ms([(manifest(None), [block(users=1)])]) == {}
    assert floors_ms([(manifest(), [block(users=1)]), (manifest(None), [block(users=1)])]) == {}


def test_of_two_runs_the_larger_error_counts():
    better = manifest(calibration((1, 0.1), (64, 0.5)))
    assert floors_ms([(manifest(), [block(users=1)]), (better, [block(users=60)])]) == {"ttft_ms": 1.0}


def test_beyond_the_calibration_is_said():
    assert beyond_calibration(manifest(), [block(users=256)]) is None
    assert beyond_calibration(manifest(None), [block(users=512)]) is None
    said = beyond_calibration(manifest(), [block(users=512)])
    assert "Up to 512 streams were in flight" in str(said) and "calibrated up to 256 only" in str(said)
    assert "512" in CHINESE.shown(said) and "256" in CHINESE.shown(said)


def compared(runs, *arguments):
    done = CliRunner().invoke(app, [*arguments, "--runs-dir", str(runs)], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


FAST = Truth(ttft_ms=10.0, block_spread=0.0005, spread=0.01)
SLOW = dataclasses.replace(FAST, ttft_ms=10.6)


def test_a_gate_knows_the_floor_within_one_run_and_between_two(tmp_path):
    """0.6 ms of difference, of which the load generator may be off by 1 ms: no verdict, and no failure either."""
    known = {"manifest": {"floor": calibration((1, 1.0), (16, 1.0))}, "repeats": 4, "requests": 60}
    known_run(tmp_path, "race", truths={"vllm": FAST, "ksana": SLOW}, **known)
    known_run(tmp_path, "a", FAST, **known)
    known_run(tmp_path, "b", SLOW, **known)
    gate = ("--fail-if", "ttft.p50 > +2%")
    for arguments in (("report", "race"), ("compare", "a", "b")):
        code, output = compared(tmp_path, *arguments, *gate)
        assert code == 4, output
        assert "the difference is less than the load generator's own error" in output
    sharper = calibration((1, 0.1), (16, 0.1))
    known_run(tmp_path, "sharp", truths={"vllm": FAST, "ksana": SLOW}, **known | {"manifest": {"floor": sharper}})
    assert compared(tmp_path, "report", "sharp", *gate)[0] == 3


def test_a_comparison_beyond_the_calibration_says_so(tmp_path):
    known = {"manifest": {"floor": calibration((1, 0.1))}, "repeats": 2, "requests": 30}
    folder = known_run(tmp_path, "race", truths={"vllm": FAST, "ksana": SLOW}, **known)
    texts = [notice.text for notice in notices(build_report_data(folder.load(), Memory()))]
    assert any(text.startswith("Up to 4 streams were in flight") for text in texts)
    known_run(tmp_path, "b", FAST, **known)
    code, output = compared(tmp_path, "compare", "race", "b", "--a", "vllm", "--b", "vllm")
    assert code == 0 and "Run A: Up to 4 streams were in flight" in output
    written = json.loads((tmp_path / "b" / "compare-race" / "compare.json").read_text())
    assert written["statistics"]["settings"]["floors_ms"] == {"ttft_ms": 0.1}
