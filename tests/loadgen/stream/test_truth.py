"""Every record against the simulator's truth log: what the client says it saw is what was really written.

The oracle is the truth log, whose times come from another process, and shares no code with the client's timing. Bounds
hold on a machine of any speed: on loopback the kernel stamps a segment while `send` runs, so an arrival lies between
the clock readings on both sides of that `send`. Events that the client was too late to read apart carry the stamp of
the last segment of that read, so a group of equal times may only match its last event's write or one after it, up to
the next group's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.record import RequestRecord
from loadgen.runs.record_file import read_records
from tests.loadgen.bench.races import LIMIT_S, SCENARIO, TOP, WENT_WELL, environment
from tests.simulator.client import Simulator, running

pytestmark = pytest.mark.integration

CONTENT, BLOCKED = 2, 32
MS = 1_000_000
SLACK_NS = 50_000
"""What mapping the wall clock to the monotonic one may cost on either side (sampled to well under that)."""
STREAMS, REQUESTS, TOKENS = 64, 128, 32
TIMINGS = {
    "fixed": ["--ttft-ms", "50", "--tpot-ms", "10"],
    "batching": ["--timing", "batching", "--set", "batching.max_num_seqs=48", "--set", "batching.base_ms=5"],
}
Truth = dict[str, dict[str, Any]]


@dataclass
class Findings:
    """What does not fit, in words, and how many arrivals were checked."""

    arrivals: int = 0
    merged: int = 0
    problems: list[str] = field(default_factory=list)
    late: set[str] = field(default_factory=set)
    """Requests with an event that arrived after its write by more than the slack."""

    def wrong(self, records: int) -> list[str]:
        """The problems, but for those of some late requests: a busy machine's kernel takes up a segment when it can.

        Of a client that is biased all are late.
        """
        few = self.late if len(self.late) <= 0.25 * records else set()
        return [problem for problem in self.problems if problem.partition(":")[0] not in few]


def compare(records: Sequence[RequestRecord], truth: Truth) -> Findings:
    """Check each record against the truth of its request. Aborted ones may lack their end, nothing else."""
    found = Findings()
    last_write: dict[tuple[str, int], int] = {}
    for record in sorted(records, key=lambda r: (r.worker, r.user, r.index)):
        name = record.request_id
        request = truth.get(name)
        if request is None:
            if not record.aborted:
                found.problems.append(f"{name}: the server never saw it")
            continue
        check_sending(record, request, last_write, found)
        check_arrivals(record, request, found)
        if not record.aborted:
            content = [w for w in request["events"] if w[3] & CONTENT]
            sent = (len(content), request["tokens_written"], request["prompt_tokens"])
            if (record.events, record.output_tokens, record.prompt_tokens) != sent:
                found.problems.append(f"{name}: {record.events} events, {record.output_tokens} tokens; sent {sent}")
            last_write[record.worker, record.user] = request["events"][-1][1]
    return found


def check_sending(record: RequestRecord, request: dict[str, Any], last_write: dict[Any, int], found: Findings) -> None:
    """It was sent before it arrived, and after the last answer to that user was written."""
    if not record.t_send <= request["t_arrived"] + SLACK_NS <= request["t_read"] + 2 * SLACK_NS:
        found.problems.append(f"{record.request_id}: sent {record.t_send - request['t_arrived']} ns after it arrived")
    earliest = last_write.get((record.worker, record.user))
    if earliest is not None and record.t_send < earliest:
        found.problems.append(f"{record.request_id}: sent {earliest - record.t_send} ns before the last answer's end")


def check_arrivals(record: RequestRecord, request: dict[str, Any], found: Findings) -> None:
    """Each event arrived while it was written."""
    writes = request["events"]
    content = [number for number, write in enumerate(writes) if write[3] & CONTENT]
    times = [record.t_send + offset for offset in record.event_offsets_ns]
    if times and (times[0], times[-1]) != (record.t_first, record.t_last):
        found.problems.append(f"{record.request_id}: t_first and t_last are not its events'")
    if times and record.clock != "kernel":
        found.problems.append(f"{record.request_id}: not timed by the kernel")
    for position, at in enumerate(times[: len(content)]):
        found.arrivals += 1
        last = position
        while last + 1 < len(times) and times[last + 1] == at:
            last += 1
        found.merged += last > position
        until = content[last + 1] if last + 1 < len(content) else len(writes)
        candidates = writes[content[min(last, len(content) - 1)] : until]
        if not any(
            before - SLACK_NS <= at and (at <= after + SLACK_NS or kind & BLOCKED)
            for _, before, after, kind, _ in candidates
        ):
            if all(at > after for _, _, after, _, _ in candidates):
                found.late.add(record.request_id)
            off = [(at - before, at - after) for _, before, after, _, _ in candidates]
            found.problems.append(f"{record.request_id}: event {position} arrived off its write by {off} ns")


def shifted(record: RequestRecord, ns: int, *, send: bool = False) -> RequestRecord:
    """The record as a client would have made it whose arrival times (or, with `send`, sending time) are off by `ns`."""
    assert record.t_first is not None and record.t_last is not None
    if send:
        offsets = [offset - ns for offset in record.event_offsets_ns]
        return replace(record, t_send=record.t_send + ns, event_offsets_ns=offsets)
    offsets = [offset + ns for offset in record.event_offsets_ns]
    return replace(record, t_first=record.t_first + ns, t_last=record.t_last + ns, event_offsets_ns=offsets)


def quickest_turn_ns(records: Sequence[RequestRecord], truth: Truth) -> int:
    """The least time from the last write of an answer to the sending of the same user's next request."""
    end = {(r.user, r.index + 1): truth[r.request_id]["events"][-1][1] for r in records}
    return min(r.t_send - end[r.user, r.index] for r in records if (r.user, r.index) in end)


def truth_of(simulator: Simulator) -> Truth:
    """Requests that carried an id, by it."""
    named = [request for request in simulator.truth()[1] if request["id"]]
    assert len({request["id"] for request in named}) == len(named)
    return {request["id"]: request for request in named}


def drive(simulator: Simulator, personality: str, folder: Path, *, program: Sequence[str] = ("-m", "loadgen")) -> Any:
    """Run 64 streams through `bakeoff run`; return its records and the truth."""
    file = folder / "records.jsonl"
    model = ["--engine", "ksana", "--model", "simulated"] if personality == "ksana" else []
    command = [
        *(sys.executable, *program, "run", "--base-url", f"http://127.0.0.1:{simulator.port}", *model),
        *("--concurrency", str(STREAMS), "--requests", str(REQUESTS), "--prompt-tokens", "32"),
        *("--output-tokens", str(TOKENS), "--request-ids", "--records", str(file)),
    ]
    done = subprocess.run(
        command, cwd=TOP, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode in WENT_WELL, done.stdout + done.stderr
    records, broken = read_records(file)
    assert not broken
    return records, truth_of(simulator)


@pytest.mark.parametrize("personality", ["vllm", "ksana"])
@pytest.mark.parametrize("timing", TIMINGS)
def test_every_record_tells_the_truth_and_a_biased_one_does_not(timing, personality, tmp_path):
    with running("--personality", personality, *TIMINGS[timing]) as simulator:
        records, truth = drive(simulator, personality, tmp_path)
    good = [record for record in records if record.ok]
    assert len(good) >= STREAMS + REQUESTS
    assert {record.clock for record in good} == {"kernel"}
    found = compare(records, truth)
    assert not found.wrong(len(records)), "\n".join(found.problems[:10])
    assert found.arrivals >= REQUESTS * TOKENS

    for ns in (MS, -MS):
        # Each record by itself: one that is off must not hide behind the others.
        caught = [record for record in good if compare([shifted(record, ns)], truth).problems]
        assert len(caught) > 0.9 * len(good), f"a bias of {ns} ns shows in {len(caught)} of {len(good)} records"
    assert compare([shifted(record, MS, send=True) for record in good], truth).problems
    # Nothing bounds a sending time from below but the end of the answer before it: a machine so slow that no user sent
    # within 1 ms of that can only be held to what it did.
    early = max(MS, quickest_turn_ns(good, truth) + 1)
    assert compare([shifted(record, -early, send=True) for record in good], truth).problems


BIASED = """
import sys
import locust
from loadgen.stream import kernel_time
exact = kernel_time.sample_offset_ns
kernel_time.sample_offset_ns = lambda tries=5: exact(tries) + 1_000_000
from loadgen.cli.app import main
sys.exit(main())
"""


def test_a_client_whose_clock_is_1_ms_off_is_caught(tmp_path):
    with running(*TIMINGS["fixed"]) as simulator:
        records, truth = drive(simulator, "vllm", tmp_path, program=("-c", BIASED))
    found = compare(records, truth)
    assert len(found.problems) > found.arrivals // 2


def test_two_workers_tell_the_truth(tmp_path):
    scenario = tmp_path / "tiny.yaml"
    changes = {"load": {"concurrency": [STREAMS]}, "requests": REQUESTS, "output_tokens": [TOKENS]}
    scenario.write_text(json.dumps({**SCENARIO, **changes}))
    with running(*TIMINGS["fixed"]) as simulator:
        command = [
            *(sys.executable, "-m", "loadgen", "bench", str(scenario), "--runs-dir", str(tmp_path / "runs")),
            *("--workers", "2", "--engine", f"sim=http://127.0.0.1:{simulator.port}"),
        ]
        env = {**environment(), "BAKEOFF_REQUEST_IDS": "1"}
        done = subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode in WENT_WELL, done.stdout + done.stderr
        truth = truth_of(simulator)
    records, broken = read_records(next((tmp_path / "runs").glob("*/requests.jsonl")))
    assert not broken
    assert len({record.worker for record in records if record.ok}) == 2
    found = compare(records, truth)
    assert not found.wrong(len(records)), "\n".join(found.problems[:10])
    assert found.arrivals >= REQUESTS * TOKENS
