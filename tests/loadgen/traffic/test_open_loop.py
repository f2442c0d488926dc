"""The open loop sends every scheduled request: none waits for another, none is dropped, lateness is recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadgen.metrics.window import CutRule
from loadgen.record import RequestRecord
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, WENT_WELL
from tests.loadgen.records import record

CHECKOUT = Path(__file__).parents[3]


def start(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "loadgen", "run", "--base-url", url, "--prompt-tokens", "16"]
    command += ["--output-tokens", "4", "--json", str(folder / "out.json"), "--records", str(folder / "records.jsonl")]
    return subprocess.Popen(
        [*command, *arguments], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read(folder: Path) -> list[RequestRecord]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return sorted((RequestRecord.from_dict(json.loads(line)) for line in lines), key=lambda r: r.index)


@pytest.mark.integration
@pytest.mark.parametrize("arrival", ["poisson", "constant"])
def test_every_arrival_is_sent_while_the_server_is_slow(tmp_path: Path, arrival: str) -> None:
    # Each answer takes a second and 25 are asked for in that time: a pool of any size would hold some back.
    with FaultServer(in_process=False, fault="normal?ttft_ms=1000") as server:
        process = start(server.url, tmp_path, "--rate", "25", "--arrival", arrival, "--requests", "60")
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode in WENT_WELL, out + err
    records = read(tmp_path)
    finished = [r for r in records if not r.aborted]
    assert {r.index for r in finished} >= set(range(70))
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["requests"] == 60
    assert (result["rate"], result["arrival"], result["concurrency"]) == (25.0, arrival, None)
    assert all(r.t_send >= r.t_intended for r in finished)
    # Many were in flight at once, though nothing but the schedule started them.
    starts = sorted((r.t_send, 1) for r in finished) + sorted((r.t_done, -1) for r in finished)
    level = peak = 0
    for _, step in sorted(starts):
        level += step
        peak = max(peak, level)
    assert peak > 10


@pytest.mark.integration
def test_a_stopped_process_sends_late_but_sends_all(tmp_path: Path) -> None:
    with FaultServer(in_process=False) as server:
        process = start(server.url, tmp_path, "--rate", "40", "--arrival", "constant", "--requests", "400")
        deadline = time.monotonic() + LIMIT_S
        while not (tmp_path / "records.jsonl").exists() or not read_whole(tmp_path):  # ten seconds are left then
            assert time.monotonic() < deadline, "no records came"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(process.pid, signal.SIGCONT)
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode in WENT_WELL, out + err
    records = [r for r in read(tmp_path) if not r.aborted]
    assert [r.index for r in records][:410] == list(range(410))
    late = [r for r in records if r.t_send - r.t_intended > 0.3e9]
    # A second at 40 a second: those due early in it are the latest. Their lag shows in TTFT from intended alone.
    assert len(late) >= 20
    for r in late:
        assert r.t_first is not None
        assert r.t_first - r.t_intended > 0.3e9
    # What was due after the stall is on the old schedule again: the schedule has not moved.
    offsets = [r.t_intended - records[0].t_intended for r in records]
    assert all(abs(offset - number * 1e9 / 40) <= 2 for number, offset in enumerate(offsets))


def read_whole(folder: Path) -> list[str]:
    return (folder / "records.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "5", "--concurrency", "2"], "not both"),
        (["--rate", "0"], "more than 0"),
        (["--rate", "-1"], "more than 0"),
        (["--arrival", "trace"], "go together"),
        (["--trace", "none.jsonl"], "go together"),
        (["--arrival", "trace", "--trace", "none.jsonl"], "cannot be read"),
        (["--arrival", "trace", "--trace", "none.jsonl", "--rate", "3"], "own rate"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    process = start("http://127.0.0.1:9", tmp_path, *arguments)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert said in err, out + err
    assert "Traceback" not in err


def arrived(number: int, *, took_ms: float = 10, **changes: object) -> RequestRecord:
    due = number * 100_000_000
    times = {"t_intended": due, "t_send": due + 1000, "t_done": due + int(took_ms * 1e6)}
    return record(index=number, **{**times, **changes})


def test_an_open_loop_is_cut_by_the_number_of_the_arrival() -> None:
    # The third measured one is slow: it ends after those that keep up the load.
    records = [arrived(n, took_ms=900 if n == 4 else 10) for n in range(9)]
    known: list[RequestRecord] = []
    for r in sorted(records, key=lambda r: r.t_done):
        known.append(r)
        cut = CutRule(users=0, warmup_requests=2, measured_requests=4, open_loop=True).cut(known)
        assert cut.complete == (r.index == 4)
    by_index = {r.index: phase for r, phase in zip(known, cut.phases, strict=True)}
    expected = ["warmup"] * 2 + ["measure"] * 4 + ["drain"] * 3
    assert [by_index[n] for n in range(9)] == expected
    assert cut.window is not None
    assert cut.window.end_ns - cut.window.start_ns == 4 * 100_000_000


def test_an_aborted_arrival_leaves_the_block_incomplete() -> None:
    records = [arrived(n, error="aborted" if n == 3 else None) for n in range(9)]
    assert not CutRule(users=0, warmup_requests=2, measured_requests=4, open_loop=True).cut(records).complete


def test_a_trace_ends_with_its_last_answer() -> None:
    records = [arrived(n, took_ms=900 if n == 3 else 10) for n in range(6)]
    known: list[RequestRecord] = []
    for r in sorted(records, key=lambda r: r.t_done):
        known.append(r)
        cut = CutRule(users=0, warmup_requests=2, measured_requests=4, open_loop=True, arrivals=6).cut(known)
        assert cut.complete == (r.index == 3)
    assert cut.window is not None
    assert cut.window.end_ns == max(r.t_done for r in records)
    # One arrival more than is measured: it is waited for, as in any open loop.
    assert not CutRule(users=0, warmup_requests=2, measured_requests=4, open_loop=True, arrivals=7).cut(known).complete


@pytest.mark.integration
@pytest.mark.parametrize("asked", [[], ["--requests", "500"], ["--requests", "4"]])
def test_a_trace_with_lengths_is_replayed_to_its_end(tmp_path: Path, asked: list[str]) -> None:
    entries = [{"t": 0.02 * n, "prompt_tokens": 12 + n, "output_tokens": 1 + n % 5} for n in range(20)]
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, entries)))
    with FaultServer() as server:
        trace = ["--arrival", "trace", "--trace", str(tmp_path / "trace.jsonl"), "--warmup-requests", "3"]
        process = start(server.url, tmp_path, *trace, *asked)
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode in WENT_WELL, out + err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["requests"] == (4 if "4" in asked else 17)
    records = [r for r in read(tmp_path) if not r.aborted]
    wanted = {r.index: (r.prompt_tokens, r.output_tokens) for r in records}
    assert wanted == {n: (entries[n]["prompt_tokens"], entries[n]["output_tokens"]) for n in wanted}
    assert len(wanted) == 20 or "4" in asked
    due = {r.index: r.t_intended - records[0].t_intended for r in records}
    assert all(abs(at - n * 20_000_000) <= 2 for n, at in due.items())


@pytest.mark.integration
def test_more_than_a_process_can_carry_ends_in_a_sentence(tmp_path: Path) -> None:
    with FaultServer(in_process=False, fault="normal?ttft_ms=20000") as server:
        command = [sys.executable, "-m", "loadgen", "run", "--base-url", server.url, "--prompt-tokens", "16"]
        command += ["--output-tokens", "4", "--rate", "100", "--requests", "5000"]
        done = subprocess.run(
            ["sh", "-c", 'ulimit -n 160; exec "$@"', "sh", *command],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot carry this load: 96 requests are in flight" in done.stderr
    assert "Traceback" not in done.stderr
