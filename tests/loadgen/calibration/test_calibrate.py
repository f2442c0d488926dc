"""Calibration: its arithmetic against hand-made truth, its file, and the command as a user runs it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from loadgen.calibration.calibrate import compare, floor_table
from loadgen.client.floor import NOT_CALIBRATED, Floor, floor_facts, floor_words, read_floor, save_floor
from loadgen.errors import UserError
from loadgen.machine import host_facts
from loadgen.record import RequestRecord
from tests.loadgen.bench.races import LIMIT_S, TOP, environment
from tests.loadgen.records import record as make

MS = 1_000_000
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the simulator needs Linux")


def record(user: int, index: int, t_send: int, arrivals: list[int], **more: object) -> RequestRecord:
    offsets = [at - t_send for at in arrivals]
    return make(t_send, offsets, worker="local", user=user, index=index, output_tokens=len(arrivals), **more)


def truth(requests: dict[str, tuple[int, list[int]]], *, width: int = 0) -> dict[str, np.ndarray]:
    """Truth of requests: id -> (arrival, content writes in the middle of `width` ns); rows are mixed on purpose."""
    rows = [
        (number, at, kind)
        for number, (_, times) in enumerate(requests.values())
        for at, kind in [(times[0] - 1, 1), *((at, 2) for at in times), (times[-1] + 1, 12)]
    ]
    rows.sort(key=lambda row: row[1])
    request, at, kind = (np.array(column) for column in zip(*rows, strict=True))
    arrays = {"event_request": request, "event_before": at - width // 2, "event_after": at + width // 2}
    arrived = np.array([arrived for arrived, _ in requests.values()])
    return {**arrays, "event_kind": kind, "request_id": np.array(list(requests)), "request_t_arrived": arrived}


def test_errors_are_client_minus_truth():
    true = {"local.0.0": (0, [9 * MS]), "local.0.1": (100 * MS, [150 * MS, 160 * MS, 170 * MS])}
    true["local.1.1"] = (103 * MS, [152 * MS, 162 * MS, 172 * MS])
    records = [
        record(0, 0, 0, [99 * MS]),  # each stream's first one is left out
        record(0, 1, 99 * MS, [150 * MS, 161 * MS, 172 * MS]),
        record(1, 1, 103 * MS, [152 * MS, 162 * MS, 172 * MS]),
    ]
    found = compare(records, truth(true, width=2000))
    assert found["ttft_ms"] == pytest.approx([1, 0])
    assert found["e2e_ms"] == pytest.approx([3, 0])
    assert found["tpot_ms"] == pytest.approx([1, 0])
    assert found["tpot_percent"] == pytest.approx([10, 0])
    assert found["itl_ms"] == pytest.approx([1, 1, 0, 0])


def test_a_failed_request_is_left_out_and_a_missing_event_is_no_small_error():
    true = truth({"local.0.1": (0, [5, 6])})
    assert not len(compare([record(0, 1, 0, [5, 6], error="stall_timeout")], true)["ttft_ms"])
    with pytest.raises(UserError, match="saw 3 events, the simulator wrote 2"):
        compare([record(0, 1, 0, [5, 6, 7])], true)
    with pytest.raises(UserError, match=r"local\.7\.1"):
        compare([record(7, 1, 0, [5, 6])], true)


def test_request_ids_are_safe_in_a_header_and_bounded():
    made = record(3, 41, 0, [1])
    made.worker = "höst name\r\nX: y_" + "f" * 300
    assert len(made.request_id) == 120 and made.request_id.endswith("ff.3.41")
    made.worker = "a b\r\n_1"
    assert made.request_id == "a_b___1.3.41"


def floor(**changes: object) -> Floor:
    errors = {"p50": 0.05, "p99": 0.25, "max": 1.0}
    step = dict.fromkeys(("ttft_error_ms", "itl_error_ms", "e2e_error_ms", "tpot_error_percent"), errors)
    step |= {"requests": 9, "events_per_s": 1.0, "valid": True, "verdict": "valid", "oracle_write_p99_ms": 0.01}
    step |= {"tpot_mean_error_percent": 0.01}
    steps = [{**step, "streams": 1}, {**step, "streams": 64}, {**step, "streams": 256, "limited": True}]
    return Floor.model_validate(
        {
            **{"measured_at": "2026-11-22T15:00:00+00:00", "hostname": platform.node(), "host": host_facts()},
            **{"packages": {}, "git": {}, "server_core": 0, "client_core": 1, "realtime": True, "load_average": 0.1},
            **{"timing": {}, "steps": steps, **changes},
        }
    )


def test_a_floor_is_kept_and_quoted_on_its_own_host_only(tmp_path):
    path = tmp_path / "new" / "calibration.json"
    assert floor_facts(path) is None
    save_floor(floor(), path)
    assert read_floor(path) == floor()
    words = floor_words(floor_facts(path))
    assert "TTFT error p50 0.05, p99 0.25 ms" in words and "at 64 streams" in words and "2026-11-22" in words
    assert "client-limited from 256 streams" in words
    save_floor(floor(hostname="elsewhere"), path)
    assert floor_facts(path) is None
    assert floor_words(None) == floor_words({"of": "another form"}) == NOT_CALIBRATED


def test_steps_whose_oracle_was_late_are_not_quoted(tmp_path):
    made = floor()
    for step in made.steps:
        step.valid = False
    assert made.limited_at is None
    assert "missed its schedule" in made.words()
    made.steps[0].valid = True
    assert "at 1 streams" in made.words()
    assert floor_table(made).row_count == 3


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\xff", '{"schema_version": 99}'])
def test_a_broken_file_is_no_floor(text, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="bakeoff calibrate"):
        read_floor(path)
    assert floor_facts(path) is None


def start(*options: str) -> psutil.Popen:
    command = [sys.executable, "-m", "loadgen", "calibrate", "--quick", *options]
    return psutil.Popen(command, cwd=TOP, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@LINUX
@pytest.mark.integration
def test_the_command_writes_a_floor(tmp_path):
    path = tmp_path / "calibration.json"
    process = start("--streams", "4", "--output", str(path))
    out = process.communicate(timeout=LIMIT_S)[0].decode()
    made = read_floor(path)
    assert process.returncode == (0 if made.steps[0].valid else 1), out
    (step,) = made.steps
    assert (step.streams, step.requests >= 8) == (4, True)
    assert 0 < step.ttft_error_ms.p50 <= step.ttft_error_ms.p99 <= step.ttft_error_ms.max
    assert abs(step.tpot_mean_error_percent) < 100 and step.cpu_us_per_event > 0 and step.peak_rss_mb > 10
    assert made.is_of(platform.node(), host_facts()["cpu"]) and made.packages["gevent"]
    assert f"Written to {path}" in out and "4 streams" in out and "Traceback" not in out


@LINUX
@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file(number, tmp_path):
    path = tmp_path / "calibration.json"
    process = start("--streams", "4", "--output", str(path))
    deadline = time.monotonic() + LIMIT_S
    while len(children := process.children(recursive=True)) < 2:  # the simulator and the client
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out = process.communicate(timeout=LIMIT_S)[0].decode()
    assert process.returncode == 130 and "Traceback" not in out, out
    assert psutil.wait_procs(children, timeout=120)[1] == []
    assert not path.exists()


@LINUX
@pytest.mark.integration
def test_one_core_is_enough_and_said_to_be_pessimistic(tmp_path):
    path = tmp_path / "calibration.json"
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        process = start("--streams", "1", "--output", str(path))
    finally:
        os.sched_setaffinity(0, usable)
    out = process.communicate(timeout=LIMIT_S)[0].decode()
    assert "one core only" in out and "pessimistic" in out
    made = json.loads(path.read_text())
    assert (made["server_core"], made["realtime"]) == (made["client_core"], False)
