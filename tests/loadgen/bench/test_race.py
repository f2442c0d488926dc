"""`bakeoff bench` over real endpoints, Locust processes and signals, and what it leaves when things die."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from loadgen.runs.record_file import read_records
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import Bench, alive, one_line, wait_for
from tests.simulator.client import running

pytestmark = pytest.mark.integration

STEADY = "normal?ttft_ms=20&gap_ms=20"
"""An answer of 8 tokens takes 160 ms."""
SLOW = "normal?ttft_ms=20&gap_ms=120"
"""A block of 100 such answers to two users lasts 43 s, to strike in the middle of."""
LONG = {"requests": 100}
ENDLESS = {"requests": 20_000}
"""Where the strike ends it."""


@pytest.fixture
def steady():
    with FaultServer(in_process=False, fault=STEADY) as server:
        yield server


def assert_kept(before: list[str], bench: Bench) -> None:
    """Nothing that was on disk then is missing now."""
    missing = collections.Counter(before) - collections.Counter(bench.lines())
    assert not missing


def test_race_of_two_endpoints_by_two_workers(tmp_path):
    logs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    with (
        FaultServer(in_process=False, log=logs[0]) as a,
        FaultServer(in_process=False, log=logs[1], fault="normal?style=llamacpp&gap_ms=2") as b,
        Bench(tmp_path, {"a": a, "b": b}, workers=2, prompt_tokens=[17, 40], load={"concurrency": [1, 3]}) as bench,
    ):
        assert bench.wait() == 0, bench.output
        run = bench.load()
        locusts = bench.locusts()
    assert locusts == []
    assert run.bad_lines == []
    assert run.manifest.status == "complete"
    wanted = {f"{e}.p{p:04d}-o0008-c{c:03d}.r1" for e in "ab" for p in (17, 40) for c in (1, 3)}
    assert {block.facts.id for block in run.blocks} == wanted
    for block in run.blocks:
        facts = block.facts
        assert (facts.status, facts.attempt, facts.reason) == ("complete", 1, None)
        assert len(block.measured) == 10
        assert all(r.ok and r.output_tokens == 8 for r in block.measured)
        assert {r.prompt_tokens for r in block.records if not r.aborted} == {int(facts.cell[1:5])}
        warm = [r for r, phase in zip(block.records, block.cut.phases, strict=True) if phase == "warmup"]
        assert len(warm) >= facts.users
        if facts.users > 1:
            assert len({r.worker for r in block.records}) == 2
        assert facts.client is not None
        assert facts.client.requests == 10
        told = {worker["worker"]: worker for worker in facts.client.workers}
        assert {r.worker for r in block.records} <= told.keys() and len(told) == 2
        for name, worker in told.items():
            assert worker["events"] == sum(r.events for r in block.records if r.worker == name)
            assert worker["cpu_share"] > 0 and worker["loop_lag_ms"]["p99"] > 0
    # What the workers say they sent is what arrived: nobody had to be waited for in vain.
    assert not [m for m in run.manifest.messages if "confirmed" in m], run.manifest.messages

    records, _ = read_records(run.folder / "requests.jsonl")
    table = pl.read_parquet(run.folder / "requests.parquet")
    assert table.height == len(records) == sum(len(block.records) for block in run.blocks)
    ids = ["block", "worker", "user", "index"]
    by_id = {tuple(row[k] for k in ids): row for row in table.to_dicts()}
    for record in records:
        row = by_id[tuple(getattr(record, k) for k in ids)]
        phase = row.pop("phase")
        assert phase in ("warmup", "measure", "drain")
        assert row == record.to_dict()

    manifest = run.manifest
    assert [engine.name for engine in manifest.engines] == ["a", "b"]
    assert {fact.check for fact in manifest.parity} >= {"prompt tokens", "measured prompts", "greedy text"}
    assert any(message.startswith("Preflight: ") for message in manifest.messages)
    assert manifest.scenario["requests"] == 10
    assert manifest.command[-1] == "2"
    for facts in (manifest.host, manifest.packages, manifest.clock):
        assert facts
    # Both engines were asked the very same.
    asked = []
    for log in logs:
        bodies = [json.loads(line) for line in log.read_text().splitlines()]
        asked.append({body["messages"][0]["content"] for body in bodies if body["stream"]})
    shorter, longer = sorted(asked, key=len)
    assert len(shorter) >= 4 * 10
    assert len(shorter & longer) >= 4 * 10
    # Each worker goes through the same prompts; how many it sends past the measured ones is a matter of speed.
    sent = {name: collections.Counter() for name in "ab"}
    for block in run.blocks:
        sent[block.facts.engine].update((block.facts.cell, record.worker) for record in block.records)
    for one, other, asked_more, asked_less in (("a", "b", *asked), ("b", "a", *reversed(asked))):
        assert len(asked_more - asked_less) <= (sent[one] - sent[other]).total()
    bench.assert_reportable()


def test_a_search_finds_how_many_users_an_engine_takes_before_it_turns_them_away(tmp_path):
    settings = {"slo": {"ttft_ms": 20_000}, "find_capacity": {"of": "concurrency", "from": 8}, "max_error_share": 0}
    with (
        running("--ttft-ms", "50", "--tpot-ms", "25", "--fault", "http:status=429,over=8") as full,
        Bench(tmp_path, {"full": full}, **settings, load={}, requests=75, between_blocks="keep") as bench,
    ):
        assert bench.wait() == 0, bench.output
    assert "[step 1] full 32 prompt tokens x 8 users: complete" in bench.output
    assert "8 users [8, 9]" in one_line(bench.output)
    assert re.search(
        r"full at 9 users: (at most )?7\d of 75 requests met the SLO, it rejected .* with 429", bench.output
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_worker_costs_one_attempt(tmp_path, workers):
    with FaultServer(fault=SLOW) as engine, Bench(tmp_path, {"a": engine}, workers, **LONG) as bench:
        before = bench.wait_for_records(4)
        bench.locusts()[1].kill()
        engine.fault = STEADY
        assert bench.wait() == 0, bench.output
        bench.assert_nothing_left()
    assert_kept(before, bench)
    run = bench.load()
    first, second = (block.facts for block in run.blocks)
    assert (first.status, first.attempt) == ("failed", 1)
    assert "Locust worker" in first.reason and "was lost" in first.reason
    assert (second.id, second.status, second.attempt) == (first.id, "complete", 2)
    assert "was lost in mid-block" in bench.output and "once more" in bench.output
    assert len(run.blocks[1].measured) == 100


def test_serving_settings_are_said_not_to_reach_endpoints_that_already_run(tmp_path, steady):
    with Bench(tmp_path, {"a": steady}, serving={"max_batch_size": 4}) as bench:
        assert bench.wait() == 0, bench.output
        manifest = bench.load().manifest
    assert "serving settings are not applied" in one_line(bench.output)
    assert any("serving settings are not applied" in message for message in manifest.messages)
    assert manifest.scenario["serving"]["max_batch_size"] == 4


def test_killed_engine_loses_its_block_and_the_other_goes_on(tmp_path, steady):
    with (
        FaultServer(in_process=False, fault=SLOW) as doomed,
        Bench(tmp_path, {"doomed": doomed, "fine": steady}, **LONG) as bench,
    ):
        before = bench.wait_for_records(4)
        doomed.kill()
        assert bench.wait() == 1, bench.output
    assert_kept(before, bench)
    run = bench.load()
    assert run.manifest.status == "failed"
    *lost, fine = run.blocks
    assert {block.facts.engine for block in lost} == {"doomed"}
    assert {block.facts.status for block in lost} == {"failed"}
    assert "died in mid-block" in lost[0].facts.reason
    assert (fine.facts.engine, fine.facts.status, len(fine.measured)) == ("fine", "complete", 100)
    assert "doomed" in bench.output and "does not answer" in one_line(bench.output)
    failed = [r for block in lost for r in block.records if r.error and not r.aborted]
    assert len(failed) < 40, "a dead engine was hammered"
    assert "Traceback" not in bench.output
    bench.assert_reportable()


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 3], ids=["int", "term", "3"])
def test_interrupt_leaves_a_readable_run_and_no_process(tmp_path, steady, signals):
    with Bench(tmp_path, {"a": steady}, **ENDLESS) as bench:
        before = bench.wait_for_records(4)
        for each in signals:
            bench.signal(each)
            time.sleep(0.05)
        assert bench.wait() == 130, bench.output
        bench.assert_nothing_left()
    assert_kept(before, bench)
    run = bench.load()
    assert run.manifest.status == "interrupted"
    assert run.blocks[0].facts.status == "interrupted"
    who = "ended by SIGTERM" if signals == [signal.SIGTERM] else "interrupted by the user"
    assert run.blocks[0].facts.reason == who
    assert "Traceback" not in bench.output
    assert "Interrupted" in bench.output
    if len(signals) == 1:
        assert f"bakeoff report {run.folder}" in bench.output and f"--resume {run.folder}" in bench.output
        assert (run.folder / "requests.parquet").is_file()
    if signals == [signal.SIGINT]:
        bench.assert_reportable()


def test_interrupt_while_locust_starts_leaves_no_file_beside_the_runs(tmp_path, steady):
    with Bench(tmp_path, {"a": steady}, **ENDLESS) as bench:
        wait_for(lambda: list(bench.runs_dir.glob("*")) + list(bench.runs_dir.glob(".*")), what="the log of Locust")
        bench.signal()
        assert bench.wait() == 130, bench.output
    assert all(path.is_dir() for path in bench.runs_dir.iterdir())


def test_killed_bench_takes_its_locust_along(tmp_path, steady):
    with Bench(tmp_path, {"a": steady}, **ENDLESS) as bench:
        before = bench.wait_for_records(4)
        assert len(bench.seen) == 2
        bench.process.kill()
        bench.process.wait()
        bench.assert_nothing_left()
    assert_kept(before, bench)
    assert bench.load().manifest.status == "running"
    bench.assert_reportable()


def test_killed_master_ends_the_run_with_its_records(tmp_path, steady):
    with Bench(tmp_path, {"a": steady}, **ENDLESS) as bench:
        before = bench.wait_for_records(4)
        bench.locusts()[0].kill()
        assert bench.wait() == 1, bench.output
        bench.assert_nothing_left()
    assert_kept(before, bench)
    run = bench.load()
    assert run.manifest.status == "failed"
    assert run.blocks[0].facts.status == "failed"
    assert "does not answer" in one_line(bench.output)
    assert "Traceback" not in bench.output
    bench.assert_reportable()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tiny file system: root only")
def test_full_disk_is_told_once_and_keeps_what_fitted(tmp_path, steady):
    runs = tmp_path / "runs"
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(runs)], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with Bench(tmp_path, {"a": steady}, requests=2000) as bench:
            before = bench.wait_for_records(4)
            filler = runs / "filler"
            fill(filler)
            assert bench.wait() == 1, bench.output
            bench.assert_nothing_left()
        assert_kept(before, bench)
        assert bench.load().bad_lines == []
        told = [line for line in bench.output.splitlines() if line.startswith("Error: ")]
        assert len(told) == 1
        assert "cannot be written" in told[0] and "space" in told[0]
        assert "Traceback" not in bench.output
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(runs)], check=True)  # the report needs more
        bench.assert_reportable()
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)


def fill(path: Path) -> None:
    """Leave no block of the file system free."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    for size in (4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(file, b"x" * size)
    os.close(file)


def test_engine_that_is_not_there_is_told_at_once(tmp_path):
    with FaultServer(in_process=False) as gone:
        pass
    with Bench(tmp_path, {"gone": gone}) as bench:
        assert bench.wait() == 2
        assert not any(alive(p) for p in bench.seen)
    assert bench.output.startswith("Error: Nothing answers at")
    assert len(bench.output.strip().splitlines()) == 1


def test_open_loop_race_by_two_workers(tmp_path):
    with (
        FaultServer(in_process=False, fault="normal?ttft_ms=200") as a,
        FaultServer(in_process=False, fault="normal?gap_ms=5") as b,
        Bench(tmp_path, {"a": a, "b": b}, workers=2, load={"rate": [20]}, warmup_requests=4, requests=30) as bench,
    ):
        assert bench.wait() == 0, bench.output
        run = bench.load()
        report = bench.assert_reportable()
    intended = {}
    for block in run.blocks:
        assert block.facts.status == "complete"
        assert (block.facts.cell, block.facts.users, block.facts.rate) == ("p0032-o0008-r20", 0, 20.0)
        assert sorted(r.index for r in block.measured) == list(range(4, 34))
        assert len({r.worker for r in block.records}) == 2
        finished = sorted((r for r in block.records if not r.aborted), key=lambda r: r.index)
        assert [r.index for r in finished[:34]] == list(range(34)), "every scheduled request was sent"
        # Either worker took every second arrival.
        assert len({(r.index % 2, r.worker) for r in finished}) == 2
        due = [r.t_intended + r.wall_offset_ns for r in finished[:34]]
        assert due == sorted(due)
        intended[block.facts.engine] = [at - due[0] for at in due]
    # Both engines met the same arrivals (each worker's wall clock offset is read once, to within microseconds).
    assert all(abs(x - y) < 1_000_000 for x, y in zip(intended["a"], intended["b"], strict=True))
    assert "20 req/s" in report


def test_nobody_wins_in_tpot_whose_events_come_in_clumps(tmp_path):
    """The same engine behind a proxy that hands on eight at a time, which then looks faster, and a slower one there."""
    gaps = {"direct": 20, "proxied": 20, "slow": 30}
    with contextlib.ExitStack() as stack:
        engines = {
            name: stack.enter_context(
                FaultServer(
                    in_process=False, fault=f"normal?gap_ms={gap}&ttft_ms=50&clump={1 if name == 'direct' else 8}"
                )
            )
            for name, gap in gaps.items()
        }
        cell = {"output_tokens": [32], "requests": 4, "repeats": 2, "between_blocks": "keep"}
        bench = stack.enter_context(Bench(tmp_path, engines, **cell))
        assert bench.wait() == 0, bench.output
        bench.locusts()
        run = bench.load()
    (clumps,) = (fact for fact in run.manifest.parity if fact.name == "clumps")
    arrive = {name: str(value)[:6] for name, value in clumps.values.items()}
    # A busy machine makes a server late, which then writes several events at once: it may pass for one that does.
    assert arrive.pop("direct") in ("apart", "clumps")
    assert arrive == dict.fromkeys(("proxied", "slow"), "clumps")
    assert "proxy_buffering off" in clumps.advice
    bases = {name: {r.tpot_basis for b in run.blocks for r in b.measured if b.facts.engine == name} for name in gaps}
    assert "events" in bases["direct"] and "clumps" in bases["proxied"] & bases["slow"]
    bench.assert_reportable()
    told = json.loads((bench.folder.path / "summary.json").read_text())
    assert [each["b"] for each in told["statistics"]] == ["proxied", "slow"]
    for each in told["statistics"]:
        tpot = each["overall"]["tpot_ms.mean"]
        assert (tpot["verdict"], tpot["faster"]) == ("invalid", None)
        assert tpot["reason"] in ("tpot_basis", "no_valid_pair"), "the latter where the load generator was the limit"
        engine = each["b"]
        why = re.compile(rf"No TPOT of {engine}: events arrive in clumps of \d, as from a proxy that buffers them\.")
        assert any(why.fullmatch(fact["text"]) for fact in told["headline"]["facts"]), told["headline"]
    assert not re.search("TPOT[^;.]* faster", told["headline"]["sentence"])
