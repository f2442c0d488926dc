"""The batch load: all of a batch leave together, and none before the last batch has ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from threading import Barrier

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loadgen.record import RequestRecord
from loadgen.scenario.cell import Cell
from loadgen.traffic import batch as module
from loadgen.traffic.batch import BatchSender, Gate, backoff_s
from loadgen.traffic.plan import BlockRequest
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, WENT_WELL, wait_for
from tests.loadgen.stream.test_truth import CONTENT
from tests.simulator.client import Answer, Client, Simulator, running

CHECKOUT = Path(__file__).parents[3]


class NoConnection:
    closed = False

    def close(self) -> None:
        self.closed = True


class Story:
    """What a batch sender does, in order, with requests that behave as they are told."""

    def __init__(self, size: int, fates: list[list[str]]) -> None:
        self.happened: list[tuple[str, int, int]] = []
        self.fates = fates
        self.connections: list[NoConnection] = []
        self.sender = BatchSender(size, len(fates), self.make, self.send)  # type: ignore[arg-type]

    def make(self) -> NoConnection:
        self.connections.append(NoConnection())
        return self.connections[-1]

    def send(self, connection: object, number: int, place: int, gate: Gate) -> bool:
        assert connection is self.connections[place]
        fate = self.fates[number][place]
        for _ in range(place % 3):
            gevent.sleep(0)  # prompts take their time
        if fate == "no connection":
            self.happened.append(("ended", number, place))
            return False
        gate.wait()
        self.happened.append(("sent", number, place))
        assert gate.opened_ns is not None
        for _ in range(1 + place * 7 % 4):
            gevent.sleep(0)
        self.happened.append(("ended", number, place))
        return fate == "ok"


FATES = st.sampled_from(["ok", "ok", "ok", "failed", "no connection"])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(FATES, min_size=n, max_size=n), min_size=1, max_size=4)))
def test_no_batch_begins_before_all_of_the_last_have_ended(fates: list[list[str]]) -> None:
    size = len(fates[0])
    story = Story(size, fates)
    was, module.backoff_s = module.backoff_s, lambda failures: 0.0
    try:
        story.sender.run()
    finally:
        module.backoff_s = was
    batches = [number for _, number, _ in story.happened]
    assert batches == sorted(batches)
    for number, fate in enumerate(fates):
        own = [what for what, of, _ in story.happened if of == number]
        sent = [place for what, of, place in story.happened if (what, of) == ("sent", number)]
        assert sorted(sent) == [place for place in range(size) if fate[place] != "no connection"]
        assert own.count("ended") == size
        # Nobody's answer is in before everybody's request is out; those that never had a connection aside.
        first = next((i for i, what in enumerate(own) if what == "sent"), len(own))
        assert own[first : first + len(sent)] == ["sent"] * len(sent)
    assert all(connection.closed for connection in story.connections)


def test_a_batch_sender_that_is_killed_ends_its_requests() -> None:
    ended: list[int] = []

    def send(connection: object, number: int, place: int, gate: Gate) -> bool:
        try:
            gate.wait()
            gevent.sleep(3600)
        finally:
            ended.append(place)
        return True

    sender = BatchSender(3, None, NoConnection, send)  # type: ignore[arg-type]
    running = gevent.spawn(sender.run)
    gevent.sleep(0.01)
    running.kill()
    assert sorted(ended) == [0, 1, 2]


def test_a_dead_engine_is_not_hammered() -> None:
    assert [backoff_s(failures) for failures in (0, 1, 2, 9, 10**6)] == [0.0, 0.1, 0.2, 2.0, 2.0]


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_requests_are_rounded_up_to_whole_batches(requests: int, batch: int) -> None:
    whole = Cell(4, 2, 0, batch=batch).whole(requests)
    assert whole % batch == 0
    assert requests <= whole < requests + batch
    assert Cell(4, 2, 3).whole(requests) == requests


def test_a_plan_of_less_than_whole_batches_is_refused() -> None:
    request = {"run_id": "r", "scenario": "s", "block": "b", "engine": "e", "warmup_requests": 1, "seed": "1"}
    cell = Cell(4, 2, 0, batch=4)
    assert BlockRequest(**request, cell=cell, requests=8).cell.batch == 4
    with pytest.raises(ValidationError, match="9 requests are no whole batches of 4"):
        BlockRequest(**request, cell=cell, requests=9)


def start(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "loadgen", "run", "--base-url", url]
    command += ["--json", str(folder / "out.json"), "--records", str(folder / "records.jsonl"), *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(folder: Path) -> list[RequestRecord]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [RequestRecord.from_dict(json.loads(line)) for line in lines]


def batch_of_plain_clients(server: Simulator, size: int, prompt: int, output: int) -> dict[str, float]:
    """The same figures by threads with blocking sockets, which share no code with Bakeoff; ms."""
    together = Barrier(size)
    body = {"prompt": list(range(10, 10 + prompt)), "max_tokens": output, "stream": True, "ignore_eos": True}

    def one(_: int) -> Answer:
        with Client(server.port) as client:
            together.wait()
            return client.ask("POST", "/v1/completions", body, Content_Type="application/json")

    with ThreadPoolExecutor(size) as pool:
        answers = list(pool.map(one, range(size)))
    sent = min(answer.t_send for answer in answers)
    firsts = sorted((answer.content[0][0] - sent) / 1e6 for answer in answers)
    last = max(answer.content[-1][0] for answer in answers)
    found = {"ttft_first": firsts[0], "ttft_median": median(firsts), "ttft_last": firsts[-1]}
    return {**found, "latency": (last - sent) / 1e6}


def check_in_step(records: list[RequestRecord], size: int) -> None:
    """All of a batch were sent before any of them ended, and after all of the last one had ended."""
    ended = 0
    for number in sorted({r.index for r in records}):
        own = [r for r in records if r.index == number]
        assert sorted(r.user for r in own) == list(range(size))
        assert min(r.t_send for r in own) >= ended
        assert max(r.t_send for r in own) < min(r.t_done for r in own)
        ended = max(r.t_done for r in own)


def latest_by_truth(batch: list[RequestRecord], served: dict[str, list[list[int]]]) -> dict[str, float]:
    """What a batch's figures are at most, ms: a first token was there before the second was written, all at the end."""
    sent = min(r.t_send for r in batch)
    written = [[event for event in served[r.request_id] if event[3] & CONTENT] for r in batch]
    firsts = sorted((content[1][2] - sent) / 1e6 for content in written)
    last = max(served[r.request_id][-1][2] for r in batch)
    found = {"ttft_first": firsts[0], "ttft_median": median(firsts), "ttft_last": firsts[-1]}
    return {**found, "latency": (last - sent) / 1e6 + 1}


SIZE, OUTPUT = 4, 5


@pytest.mark.integration
def test_batches_against_an_engine_whose_times_are_known_on_paper(tmp_path: Path) -> None:
    """The engine has one slot, and a step, prompt or token, takes 60 ms. A request takes five of them, so first tokens
    come at 60, 360, 660 and 960 ms, and the last token of a batch at 1200 ms, in whatever order the requests arrive.
    """
    known = {"base_ms": 60, "prefill_us_per_token": 0, "decode_us_per_sequence": 0, "kv_us_per_token": 0}
    known |= {"max_num_seqs": 1}
    words = [word for key, value in known.items() for word in ("--set", f"batching.{key}={value}")]
    with running("--timing", "batching", *words) as server:
        process = start(
            *(server.url, tmp_path, "--batch", str(SIZE), "--requests", "7", "--prompt-tokens", "20"),
            *("--output-tokens", str(OUTPUT), "--request-ids"),
        )
        out, err = process.communicate(timeout=LIMIT_S)
        served = {request["id"]: request["events"] for request in server.truth()[1]}
        plain = batch_of_plain_clients(server, SIZE, 20, OUTPUT)
    assert process.returncode in WENT_WELL, out + err
    records = read(tmp_path)
    assert len(records) == SIZE * (1 + 2), "a batch of warm-up, and seven requests are two batches"
    check_in_step(records, SIZE)
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["requests"], result["batch"], result["concurrency"], result["batches"]["count"]) == (8, 4, None, 2)
    found = result["batches"]
    latest = [latest_by_truth([r for r in records if r.index == number], served) for number in (1, 2)]
    for name, paper in (("ttft_first", 60), ("ttft_median", 510), ("ttft_last", 960), ("latency", 1200)):
        # Nothing can come early; how late this machine was at worst, the server knows.
        assert paper - 2 <= found[f"{name}_ms"]["p50"] <= max(figures[name] for figures in latest), name
        assert paper - 2 <= plain[name], name
    assert result["output_tokens_per_s"] == pytest.approx(SIZE * OUTPUT / found["latency_ms"]["mean"] * 1e3)
    # The same by the plain records, without the code under test.
    latencies = []
    for number in (1, 2):
        own = [r for r in records if r.index == number]
        sent = min(r.t_send for r in own)
        latencies.append((max(r.t_last or 0 for r in own) - sent) / 1e6)
        assert all(r.t_intended <= r.t_send for r in own)
    assert found["latency_ms"]["mean"] == pytest.approx(mean(latencies))


@pytest.mark.integration
def test_a_member_that_stalls_holds_its_batch_up_until_its_timeout(tmp_path: Path) -> None:
    with FaultServer(in_process=False, fault="stall?after=2") as server:
        process = start(
            *(server.url, tmp_path, "--batch", "2", "--requests", "4", "--warmup-requests", "0"),
            *("--stall-timeout", "0.5", "--prompt-tokens", "16", "--output-tokens", "8"),
        )
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, out + err
    records = read(tmp_path)
    assert {r.error for r in records} == {"stall_timeout"}
    check_in_step(records, 2)
    assert json.loads((tmp_path / "out.json").read_text())["batches"]["count"] == 0


@pytest.mark.integration
def test_ctrl_c_in_the_middle_of_a_batch_keeps_the_whole_ones(tmp_path: Path) -> None:
    with FaultServer(in_process=False, fault="normal?ttft_ms=400&gap_ms=50") as server:
        process = start(
            *(server.url, tmp_path, "--batch", "3", "--requests", "3000", "--warmup-requests", "0"),
            *("--prompt-tokens", "16", "--output-tokens", "4"),
        )
        path = tmp_path / "records.jsonl"
        wait_for(lambda: path.exists() and path.read_text().count("\n") >= 6, what="two batches")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, out + err
    whole = [r for r in read(tmp_path) if not r.aborted]
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["interrupted"]
    assert result["requests"] % 3 == 0
    assert result["requests"] >= 6
    assert len(whole) >= result["requests"]
