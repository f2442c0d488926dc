"""`bakeoff run` while its core is really taken away from it: it says so wherever its figures are not the server's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.client.verdict import IDLE_TOLERANCE_SHARE, TPOT_TOLERANCE_SHARE
from loadgen.errors import CLIENT_LIMITED
from loadgen.record import RequestRecord
from loadgen.runs.record_file import read_records
from tests.loadgen.bench.races import LIMIT_S, WENT_WELL, one_line
from tests.loadgen.stream.test_truth import CONTENT
from tests.simulator.client import running

TOP = Path(__file__).resolve().parents[3]
TTFT_MS, GAP_MS, TOKENS = 40, 5, 48
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned on this system"),
]


@contextlib.contextmanager
def busy_loops(core: int, count: int) -> Iterator[None]:
    """Processes that never give their core back."""
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in spinning:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def run(
    folder: Path, users: int, requests: int, core: int | None
) -> tuple[dict[str, Any], list[RequestRecord], list[float], str]:
    """Run the client (on one core, if told); return its result, its records, the server's true TTFTs in ms, stdout."""

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    json_file, records_file = folder / "result.json", folder / "records.jsonl"
    with running("--ttft-ms", str(TTFT_MS), "--tpot-ms", str(GAP_MS)) as server:
        command = [sys.executable, "-m", "loadgen", "run", "--base-url", server.url, "--concurrency", str(users)]
        command += ["--requests", str(requests), "--prompt-tokens", "32", "--output-tokens", str(TOKENS)]
        command += ["--json", str(json_file), "--records", str(records_file), "--request-ids"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, timeout=LIMIT_S, preexec_fn=pin)
        assert done.returncode in WENT_WELL, done.stdout + done.stderr
        served = {request["id"]: request for request in server.truth()[1]}
    records = [record for record in read_records(records_file)[0] if record.ok and record.events == TOKENS]
    # Both ends as the kernel and the writer stamped them: a server that got its core late has no part in it.
    asked = [served[record.request_id] for record in records]
    truth = [(next(w for w in each["events"] if w[3] & CONTENT)[1] - each["t_arrived"]) / 1e6 for each in asked]
    result = json.loads(json_file.read_text())
    assert (done.returncode == CLIENT_LIMITED) == result["client"]["limited"]
    return result, records, truth, done.stdout


def check_consistent(client: dict[str, Any], stdout: str) -> None:
    """The verdict is what its own figures say, whatever they are on this machine."""
    beyond = client["ttft_error_ms"] > client["ttft_tolerance_ms"]
    beyond |= client["tpot_error_share"] > client["tpot_tolerance_share"] == TPOT_TOLERANCE_SHARE
    beyond |= client["idle_share"] > IDLE_TOLERANCE_SHARE
    busy = any(each["cpu_share"] > 0.9 for each in client["workers"])
    assert client["limited"] == beyond or busy
    assert bool(client["reasons"]) == client["limited"]
    stdout = one_line(stdout)
    line = "The load generator was the limit: " if client["limited"] else "The load generator was not the limit: "
    assert line in stdout
    for reason in client["reasons"]:
        assert reason in stdout


def test_a_client_whose_core_is_taken_says_so(tmp_path):
    core = max(os.sched_getaffinity(0))
    with busy_loops(core, 2):
        result, records, truth, stdout = run(tmp_path, users=48, requests=150, core=core)
    client = result["client"]
    check_consistent(client, stdout)
    seen = [(record.t_first - record.t_send) / 1e6 for record in records if record.t_first is not None]
    off = float(np.percentile(seen, 99) - np.percentile(truth, 99))
    assert client["limited"] or off <= client["ttft_tolerance_ms"]
    (worker,) = client["workers"]
    assert worker["cpu_share"] < 0.9, "two others wanted the same core all the time"
    if worker["waiting_share"] is not None and client["limited"]:
        assert worker["waiting_share"] > 0.05
        assert client["workers_needed"] is None, "more workers on a core that is taken would not help"


def test_a_client_with_little_to_do_agrees_with_the_server(tmp_path):
    result, records, truth, stdout = run(tmp_path, users=2, requests=20, core=None)
    client = result["client"]
    check_consistent(client, stdout)
    assert client["requests"] == 20
    (worker,) = client["workers"]
    assert worker["events"] == result["client"]["events"] >= TOKENS * len(records)
    assert 0 < worker["events_per_s"] <= 2 * 1000 / GAP_MS
    assert worker["read_lag_ms"]["max"] >= worker["read_lag_ms"]["p99"] >= worker["read_lag_ms"]["p50"] > 0
    assert worker["loop_lag_ms"]["max"] > 0 and worker["schedule_lag_ms"]["max"] is None
    assert min(truth) >= TTFT_MS
    if not client["limited"]:
        assert client["ttft_error_ms"] <= client["ttft_tolerance_ms"]
        assert client["workers_needed"] is None
