"""Each fault and stream shape of the simulator through the real client: what the record says, held to the truth log.

What is expected of a fault is written here by hand, and times come from the simulator's process, so nothing is checked
by the code that made it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadgen.metrics.definitions import tpot_ms
from loadgen.record import RequestRecord, TpotBasis
from loadgen.runs.folder import read_records
from loadgen.stream.exchange import RequestSettings, exchange
from loadgen.stream.http_stream import Connection
from loadgen.stream.timeouts import Timeouts
from tests.loadgen.bench.races import LIMIT_S, SCENARIO, TOP, WENT_WELL, environment
from tests.loadgen.records import MS
from tests.loadgen.records import record as make_record
from tests.loadgen.stream.test_truth import (
    BLOCKED,
    CONTENT,
    SLACK_NS,
    Findings,
    Truth,
    check_arrivals,
    check_sending,
    truth_of,
)
from tests.simulator.client import Simulator, running

pytestmark = pytest.mark.integration

ROLE, FAULTED = 1, 64
TTFT, TPOT, TOKENS = 30, 5, 8
PATIENT = Timeouts(connect_s=60, stall_s=120, total_s=240)
SHORT_S = 4.0
"""A limit that is waited for, and that no busy machine reaches by itself."""
FIXED = ("--ttft-ms", str(TTFT), "--tpot-ms", str(TPOT))
ENGINES = {
    "vllm": FIXED,
    "ksana": ("--personality", "ksana", *FIXED),
    "batching": ("--timing", "batching", "--set", "batching.base_ms=5"),
}
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
ROUTES = [("vllm", "chat"), ("vllm", "completions"), ("ksana", "chat"), ("batching", "completions")]
REASON = {"vllm": "length", "ksana": "stop", "batching": "length"}
_index = itertools.count()


@pytest.fixture(scope="module")
def simulators() -> Iterator[dict[str, Simulator]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(running(*options)) for name, options in ENGINES.items()}


def send(
    port: int,
    *,
    api="completions",
    fault="",
    tokens=TOKENS,
    timeouts=PATIENT,
    connection: Connection | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> RequestRecord:
    """One exchange through the real client; returns its record."""
    record = make_record(worker="faults", index=next(_index), output_tokens_wanted=tokens)
    body: dict[str, Any] = {"model": "simulated", "stream": True, "stream_options": {"include_usage": True}}
    body["max_tokens"] = tokens
    if api == "chat":
        body["messages"] = [{"role": "user", "content": "one two three"}]
        record.prompt_tokens_wanted = 10
    else:
        body["prompt"] = "one two three"
    headers = {"X-Request-Id": record.request_id, **({"X-Sim-Fault": fault} if fault else {})}
    own = connection or Connection(f"http://127.0.0.1:{port}", 60.0)
    try:
        settings = RequestSettings(PATHS[api], headers, timeouts, count_tokens=count_tokens)
        exchange(own, json.dumps(body).encode(), record, settings)
    finally:
        if connection is None:
            own.close()
    return record


HELD: list[str] = []
LATE: set[str] = set()


@pytest.fixture(scope="module", autouse=True)
def few_are_late() -> Iterator[None]:
    """As `Findings.wrong`: a busy machine's kernel takes up a segment when it can; of a biased client all are late."""
    yield
    assert len(LATE) <= max(1, 0.05 * len(HELD)), LATE


def held_to_truth(record: RequestRecord, request: dict[str, Any]) -> list[list[int]]:
    """Check all that was timed, and the status, against the truth; returns the truth's content writes."""
    found = Findings()
    check_sending(record, request, {}, found)
    # What ends a broken stream (FIN, last chunk) is no write of the log; an event that is read with it has its stamp.
    end = [[request["t_end"]] * 3 + [BLOCKED, 0]] if request["outcome"] == "fault" else []
    check_arrivals(record, {**request, "events": request["events"] + end}, found)
    HELD.append(record.request_id)
    LATE.update(found.late)
    assert not (wrong := [problem for problem in found.problems if problem.partition(":")[0] not in LATE]), wrong
    content = [write for write in request["events"] if write[3] & CONTENT]
    assert record.events == len(record.event_offsets_ns) == len(record.read_lags_ns) == len(content)
    assert record.http_status == request["http_status"]
    assert record.t_intended == record.t_send <= record.t_done
    if content:
        assert (record.t_first, record.t_last) == tuple(record.t_send + record.event_offsets_ns[end] for end in (0, -1))
        assert record.t_last <= record.t_done and record.clock == "kernel"
    else:
        assert record.t_first is record.t_last is None
    return content


@dataclass(frozen=True)
class Case:
    """A fault, and the record that it must give."""

    fault: str
    error: str | None
    events: int
    words: str = ""
    status: int = 200
    outcome: str = "fault"


CASES = [
    Case("spike:after=3,ms=12", None, TOKENS, outcome="ok"),
    Case("stall:after=3,ms=40", None, TOKENS, outcome="ok"),
    Case("slow:bytes=48,gap_ms=1", None, TOKENS, outcome="ok"),
    Case("reset:after=3", "connection_cut", 3, "reset"),
    Case("reset", "connection_cut", 0, "reset"),
    Case("truncate:after=3", "connection_cut", 3, "in the middle of the body"),
    Case("truncate", "connection_cut", 0, "in the middle of the body"),
    Case("truncate:after=3,clean=1", "truncated", 3, "without a finish reason"),
    Case("truncate:clean=1", "truncated", 0, "without a finish reason"),
    Case("http:status=429", "http_429", 0, "simulated fault: status 429", 429, "http"),
    Case("http:status=500", "http_500", 0, "simulated fault: status 500", 500, "http"),
    Case("http:status=503", "http_503", 0, "simulated fault: status 503", 503, "http"),
]


@pytest.mark.parametrize(("engine", "api"), ROUTES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_a_fault_gives_its_record_and_the_connection_serves_on(simulators, case, engine, api):
    simulator = simulators[engine]
    with Connection(f"http://127.0.0.1:{simulator.port}", 60.0) as connection:
        before = send(simulator.port, api=api, connection=connection)
        record = send(simulator.port, api=api, fault=case.fault, connection=connection)
        after = send(simulator.port, api=api, connection=connection)
    truth = truth_of(simulator)
    request = truth[record.request_id]
    content = held_to_truth(record, request)
    assert (record.error, len(content), record.http_status) == (case.error, case.events, case.status)
    assert (request["fault"], request["outcome"]) == (case.fault.partition(":")[0], case.outcome)
    if case.error is None:
        assert (record.finish_reason, record.output_tokens, record.error_detail) == (REASON[engine], TOKENS, None)
    else:
        assert case.words in record.error_detail
        assert (record.finish_reason, record.output_tokens, record.prompt_tokens) == (None, None, None)
    for other in (before, after):
        assert other.ok
        held_to_truth(other, truth[other.request_id])


@pytest.mark.parametrize("engine", ["vllm", "ksana"])
@pytest.mark.parametrize(
    ("fault", "late"),
    [
        # Event 3 is held back for 12 ms, and those due within these with it; then all are on time again.
        ("spike:after=3,ms=12", [0, 0, 0, 12, 7, 2, 0, 0]),
        ("stall:after=3,ms=40", [0, 0, 0, 40, 40, 40, 40, 40]),
    ],
)
def test_a_delay_is_seen_where_it_was_and_as_long_as_it_was(simulators, fault, late, engine):
    record = send(simulators[engine].port, api="chat", fault=fault)
    request = truth_of(simulators[engine])[record.request_id]
    content = held_to_truth(record, request)
    expected = [TTFT + TPOT * number + more for number, more in enumerate(late)]
    assert [round((due - request["t_start"]) / MS, 3) for due, *_ in content] == expected
    assert [bool(kind & FAULTED) for *_, kind, _ in content] == [more > 0 for more in late]
    for offset, least in zip(record.event_offsets_ns, expected, strict=True):
        assert offset >= least * MS - SLACK_NS


STALLS = [(*route, after, stall_s) for route in ROUTES for after in (0, 3) for stall_s in (SHORT_S, SHORT_S + 0.5)]


@pytest.fixture(scope="module")
def stalled(simulators) -> dict[tuple[Any, ...], RequestRecord]:
    """Records of stalled streams, which waited for their limits side by side."""

    def one(engine: str, api: str, after: int, stall_s: float) -> RequestRecord:
        port = simulators[engine].port
        with Connection(f"http://127.0.0.1:{port}", 60.0) as connection:
            timeouts = Timeouts(connect_s=60, stall_s=stall_s, total_s=240)
            record = send(port, api=api, fault=f"stall:after={after}", timeouts=timeouts, connection=connection)
            assert send(port, api=api, connection=connection).ok
        return record

    jobs = {case: gevent.spawn(one, *case) for case in STALLS}
    gevent.joinall(list(jobs.values()), raise_error=True)
    return {case: job.value for case, job in jobs.items()}


@pytest.mark.parametrize(("engine", "api", "after", "stall_s"), STALLS)
def test_a_stalled_stream_ends_by_the_timeout_with_what_was_timed(simulators, stalled, engine, api, after, stall_s):
    record = stalled[engine, api, after, stall_s]
    request = truth_of(simulators[engine])[record.request_id]
    assert len(held_to_truth(record, request)) == after
    assert (record.error, record.error_detail) == ("stall_timeout", f"no bytes for {stall_s:g} s")
    assert (record.finish_reason, record.output_tokens, request["outcome"]) == (None, None, "aborted")
    silent_since = record.t_last or record.t_send
    assert record.t_done - silent_since >= stall_s * 1e9
    assert request["t_end"] - silent_since >= stall_s * 1e9 - SLACK_NS


def test_a_trickle_passes_the_stall_limit_and_ends_by_the_total_one(simulators):
    timeouts = Timeouts(connect_s=60, stall_s=60, total_s=0.4)
    record = send(simulators["vllm"].port, fault="slow:bytes=64,gap_ms=20", timeouts=timeouts, tokens=200)
    assert (record.error, record.error_detail) == ("total_timeout", "no end of the response after 0.4 s")
    request = truth_of(simulators["vllm"])[record.request_id]
    content = [write for write in request["events"] if write[3] & CONTENT]
    # Of the event that was under way, all but the framing behind it may have come.
    assert record.events - len(content) in (0, 1)
    # The next one is overdue when one is through, so its first bytes may have come in the same read.
    for offset, (_, before, *_), (_, _, after, *_) in zip(record.event_offsets_ns, content, content[1:], strict=False):
        assert before - SLACK_NS <= record.t_send + offset <= after + SLACK_NS
    assert record.t_done - record.t_send >= 0.4e9


@pytest.mark.parametrize(
    ("engine", "fault", "error", "finish"),
    [
        # After the last content only the tail is left to lose: vLLM has finished by then, KsanaLLM has not.
        ("vllm", "truncate", "connection_cut", "length"),
        ("vllm", "reset", "connection_cut", "length"),
        ("vllm", "truncate:clean=1", "no_usage", "length"),
        ("ksana", "truncate", "connection_cut", None),
        ("ksana", "truncate:clean=1", "truncated", None),
    ],
)
def test_a_lost_tail(simulators, engine, fault, error, finish):
    kind, _, rest = fault.partition(":")
    record = send(simulators[engine].port, api="chat", fault=f"{kind}:after={TOKENS}" + (f",{rest}" if rest else ""))
    assert len(held_to_truth(record, truth_of(simulators[engine])[record.request_id])) == TOKENS
    assert (record.error, record.finish_reason, record.output_tokens) == (error, finish, None)


@pytest.mark.parametrize(("fault", "error"), [("reset", "connection_cut"), ("stall", "stall_timeout")])
def test_without_a_head_there_is_no_status(fault, error):
    with running(*FIXED, "--set", "stream.early_head=false") as simulator:
        timeouts = Timeouts(connect_s=60, stall_s=SHORT_S, total_s=120)
        record = send(simulator.port, fault=fault, timeouts=timeouts)
        late = send(simulator.port, fault="stall:after=2", timeouts=timeouts)
        truth = truth_of(simulator)
    assert (record.error, record.events, record.t_first, record.http_status) == (error, 0, None, None)
    assert (late.error, late.http_status) == ("stall_timeout", 200)
    assert len(held_to_truth(late, truth[late.request_id])) == 2


@pytest.mark.parametrize("personality", ["vllm", "ksana"])
def test_an_empty_role_event_is_no_token_however_early_it_comes(personality):
    with running("--personality", personality, *FIXED, "--set", "stream.role_lead_ms=[20, 20]") as simulator:
        record = send(simulator.port, api="chat")
        request = truth_of(simulator)[record.request_id]
    content = held_to_truth(record, request)
    role = request["events"][0]
    assert role[3] == ROLE and content[0][0] - role[0] == 20 * MS
    assert record.ok and record.events == TOKENS
    assert record.t_first >= role[1] + 20 * MS - SLACK_NS or role[1] > role[0]
    with running("--personality", personality, *FIXED, "--set", "stream.role_event=false") as simulator:
        record = send(simulator.port, api="chat")
        request = truth_of(simulator)[record.request_id]
    assert record.ok and request["events"][0][3] & CONTENT
    held_to_truth(record, request)


@pytest.mark.parametrize("personality", ["vllm", "ksana"])
@pytest.mark.parametrize("usage", ["own", "last", "finish", "none"])
def test_usage_is_found_wherever_it_sits(personality, usage):
    with running("--personality", personality, *FIXED, "--set", f"stream.usage={usage}") as simulator:
        records = [send(simulator.port, api=api) for api in (PATHS if personality == "vllm" else ["chat"])]
        truth = truth_of(simulator)
    for record in records:
        assert len(held_to_truth(record, truth[record.request_id])) == TOKENS
        assert record.finish_reason == REASON[personality]
        if usage == "none":
            assert (record.error, record.output_tokens, record.token_source) == ("no_usage", None, None)
        else:
            assert (record.error, record.output_tokens, record.token_source) == (None, TOKENS, "usage")
            assert record.prompt_tokens == record.prompt_tokens_wanted


@pytest.mark.parametrize("engine", ["vllm", "ksana", "batching"])
def test_several_tokens_in_an_event(engine):
    with running(*ENGINES[engine], "--set", "stream.tokens_per_event=4") as simulator:
        record = send(simulator.port, api="chat", tokens=11, count_tokens=lambda text: len(text.split()))
        untold = send(simulator.port, api="chat", tokens=11)
        truth = truth_of(simulator)
    request = truth[record.request_id]
    content = held_to_truth(record, request)
    held_to_truth(untold, truth[untold.request_id])
    # 11 tokens in 4 events: without a count of the first event's text, nobody knows over how many to take it.
    assert untold.ok and (untold.output_tokens, tpot_ms(untold)) == (11, None)
    assert untold.tpot_basis == TpotBasis.TOKENS_PER_EVENT
    if len(set(record.event_offsets_ns)) == len(content):
        assert (record.tpot_basis, record.tpot_tokens) == (TpotBasis.TOKENIZER, 10)
    assert [tokens for *_, tokens in content] == [1, 4, 4, 2]
    assert record.ok and record.output_tokens == 11
    if len(set(record.event_offsets_ns)) == len(content):
        least = content[-1][1] - content[0][2]
        # The last event may have been read together with the tail that follows it at once.
        most = request["events"][-1][2] - content[0][1]
        assert least - 2 * SLACK_NS <= tpot_ms(record) * 10 * MS <= most + 2 * SLACK_NS
    if engine != "batching":
        assert content[-1][0] - content[0][0] == 10 * TPOT * MS


def test_tokens_an_event_that_grow_with_the_load():
    with running(*FIXED, "--set", "stream.tokens_per_event_per_stream=1") as simulator:
        others = [gevent.spawn(send, simulator.port, tokens=64) for _ in range(3)]
        gevent.joinall(others, raise_error=True)
        records = [job.value for job in others]
        truth = truth_of(simulator)
    assert all(record.ok and record.output_tokens == 64 for record in records)
    in_order = sorted(records, key=lambda record: truth[record.request_id]["number"])
    sizes = [held_to_truth(r, truth[r.request_id])[1][4] for r in in_order]
    assert sizes == [1, 2, 3]
    assert [record.events for record in in_order] == [64, 33, 22]


def test_an_engine_that_slows_down_is_seen_to():
    """Half of its first speed is lost each second, so TTFT and TPOT grow in proportion to the time of arrival."""
    with running(*FIXED, "--drift-per-minute", "30") as simulator:
        records = []
        for _ in range(4):
            records.append(send(simulator.port))
            gevent.sleep(0.2)
        truth = truth_of(simulator)
    factors = []
    for record in records:
        request = truth[record.request_id]
        content = held_to_truth(record, request)
        ttft, span = content[0][0] - request["t_start"], content[-1][0] - content[0][0]
        factors.append((request["t_start"], ttft / (TTFT * MS)))
        assert ttft / TTFT == pytest.approx(span / (7 * TPOT), rel=1e-4)
        assert record.t_first - record.t_send >= ttft - SLACK_NS
    for (before, low), (after, high) in itertools.pairwise(factors):
        assert high - low == pytest.approx(0.5 * (after - before) / 1e9, rel=1e-4)


EVERY_HTTP, EVERY_STALL, SHARE_RESET = 7, 25, 0.2
RATES = (
    *("--fault", f"http:status=429,every={EVERY_HTTP}", "--fault", f"stall:after=2,every={EVERY_STALL}"),
    *("--fault", f"reset:after=4,share={SHARE_RESET}"),
)
KIND = {"http": ("http_429", 0), "stall": ("stall_timeout", 2), "reset": ("connection_cut", 4), "": (None, TOKENS)}


@pytest.mark.parametrize("personality", ["vllm", "ksana"])
def test_faults_come_at_their_rate_and_none_is_lost_or_made_up(personality, tmp_path):
    file, result = tmp_path / "records.jsonl", tmp_path / "result.json"
    model = ["--engine", "ksana", "--model", "simulated"] if personality == "ksana" else []
    with running("--personality", personality, *FIXED, *RATES) as simulator:
        command = [
            *(sys.executable, "-m", "loadgen", "run", "--base-url", f"http://127.0.0.1:{simulator.port}", *model),
            *("--concurrency", "16", "--requests", "250", "--prompt-tokens", "32", "--output-tokens", str(TOKENS)),
            *("--warmup-requests", "0", "--stall-timeout", f"{SHORT_S}", "--request-ids"),
            *("--records", str(file), "--json", str(result)),
        ]
        done = subprocess.run(
            command, cwd=TOP, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        truth = truth_of(simulator)
    assert done.returncode == 1, done.stdout + done.stderr
    records, broken = read_records(file)
    assert not broken
    kinds: Counter[str] = Counter()
    for record in records:
        request = truth.get(record.request_id)
        if record.aborted:
            continue
        number = request["number"]
        by_rule = "http" if number % EVERY_HTTP == 0 else "stall" if number % EVERY_STALL == 0 else None
        assert request["fault"] == by_rule if by_rule else request["fault"] in ("", "reset")
        kinds[request["fault"]] += 1
        content = held_to_truth(record, request)
        assert (record.error, len(content)) == KIND[request["fault"]]
    told = json.loads(result.read_text())
    assert told["errors"] == {KIND[fault][0]: count for fault, count in kinds.items() if fault}
    assert sum(kinds.values()) >= 250
    eligible = kinds[""] + kinds["reset"]
    spread = math.sqrt(eligible * SHARE_RESET * (1 - SHARE_RESET))
    assert abs(kinds["reset"] - eligible * SHARE_RESET) < 5 * spread


def race(folder: Path, stall: str, timeouts: dict[str, float]) -> tuple[int, list[RequestRecord], Truth]:
    """`bakeoff bench` of a scenario with these timeouts: its exit code, the records that it kept, and the truth.

    Every fourth request stalls, but for those that are alone: preflight asks one by one, and is not to wait.
    """
    folder.mkdir()
    scenario = folder / "faulty.yaml"
    changes = {"load": {"concurrency": [4]}, "requests": 24, "output_tokens": [TOKENS], "warmup_requests": 0}
    scenario.write_text(json.dumps({**SCENARIO, **changes, "timeouts": timeouts}))
    command = [*(sys.executable, "-m", "loadgen", "bench", str(scenario)), "--runs-dir", str(folder / "runs")]
    env = {**environment(), "BAKEOFF_REQUEST_IDS": "1"}
    with running(*FIXED, "--fault", f"{stall},every=4,over=1") as simulator:
        command += ["--engine", f"sim={simulator.url}"]
        done = subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        truth = truth_of(simulator)
    assert (folder / "runs").is_dir(), done.stdout + done.stderr
    records, broken = read_records(next((folder / "runs").glob("*/requests.jsonl")))
    assert not broken, done.stdout + done.stderr
    return done.returncode, [record for record in records if not record.aborted], truth


def test_the_scenario_sets_when_a_stalled_stream_ends(tmp_path):
    """The same fault under three scenarios: it is waited for, or it ends by the limit that the scenario has."""
    patient = {"connect_s": 60, "stall_s": 120, "total_s": 240}
    races = [
        ("waited", "stall:after=3,ms=1500", patient),
        ("stalled", "stall:after=3", {**patient, "stall_s": SHORT_S}),
        ("ended", "stall:after=3", {**patient, "total_s": SHORT_S + 0.5}),
    ]
    with ThreadPoolExecutor() as side_by_side:
        waited, stalled, ended = side_by_side.map(lambda each: race(tmp_path / each[0], *each[1:]), races)
    exit_code, records, truth = waited
    assert exit_code in WENT_WELL and all(record.ok for record in records)
    slow = [record for record in records if truth[record.request_id]["fault"]]
    assert len(slow) >= 24 // 4 - 2
    assert all(len(held_to_truth(r, truth[r.request_id])) == TOKENS for r in records)
    assert all(r.event_offsets_ns[3] - r.event_offsets_ns[0] >= 1500 * MS for r in slow)
    for (exit_code, records, truth), error, detail, limit_s in (
        (stalled, "stall_timeout", "no bytes for 4 s", 4),
        (ended, "total_timeout", "no end of the response after 4.5 s", 4.5),
    ):
        assert exit_code == 1
        struck = [record for record in records if truth[record.request_id]["fault"]]
        assert len(struck) >= 24 // 4 - 2
        for record in records:
            content = held_to_truth(record, truth[record.request_id])
            if record not in struck:
                assert record.ok
                continue
            assert (record.error, record.error_detail, record.http_status) == (error, detail, 200)
            assert len(content) == 3 and record.output_tokens is None
            since = record.t_last if error == "stall_timeout" else record.t_send
            assert record.t_done - since >= limit_s * 1e9
