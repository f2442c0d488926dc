import itertools
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from simulator import http
from tests.simulator.client import Answer, Client, Simulator, chat, completion, running

MS = 1_000_000
CONTENT = 2
METRICS = Path(__file__).resolve().parents[1] / "data" / "vllm-0.24.0-gpu.metrics.txt"


@pytest.fixture(scope="module")
def vllm() -> Iterator[Simulator]:
    with running("--ttft-ms", "20", "--tpot-ms", "5", "--lag-limit-ms", "600000") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def ksana() -> Iterator[Simulator]:
    with running("--personality", "ksana", "--ttft-ms", "20", "--tpot-ms", "5", "--model", "m") as simulator:
        yield simulator


def truth_of(simulator: Simulator, name: str) -> dict[str, Any]:
    return next(request for request in simulator.truth()[1] if request["id"] == name)


def contents(truth: dict[str, Any]) -> list[list[int]]:
    return [row for row in truth["events"] if row[3] & CONTENT]


def assert_agrees(answer: Answer, truth: dict[str, Any]) -> None:
    """The reader never saw a content event before it was written, and saw each as a write of its own."""
    rows = contents(truth)
    assert len(rows) == len(answer.content)
    for (read, _), (due, before, after, _, _) in zip(answer.content, rows, strict=True):
        assert due <= before <= after
        assert before <= read
    assert answer.t_send <= truth["t_arrived"] <= truth["t_read"] <= truth["t_head"]
    assert truth["peer_port"] == answer.port


def test_a_stream_is_on_its_schedule_and_in_the_truth_log(vllm: Simulator) -> None:
    answer = vllm.ask("POST", "/v1/completions", completion(), X_Request_Id="stream-1")
    assert (answer.status, answer.end) == (200, "complete")
    assert answer.headers["x-oracle"] == "valid"
    *events, usage, done = answer.events
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 4, "total_tokens": 10, "completion_tokens": 6}
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 5 + ["length"]
    truth = truth_of(vllm, "stream-1")
    assert_agrees(answer, truth)
    start = truth["t_start"]
    assert start == truth["t_arrived"]
    assert [row[0] - start for row in contents(truth)] == [(20 + 5 * i) * MS for i in range(6)]
    assert (truth["outcome"], truth["tokens_written"], truth["prompt_tokens"]) == ("ok", 6, 4)


def test_one_connection_serves_many_requests_even_pipelined(vllm: Simulator) -> None:
    with Client(vllm.port) as client:
        for _ in range(3):
            assert len(client.ask("POST", "/v1/chat/completions", chat(max_tokens=3)).content) == 3
        assert client.ask("GET", "/health").status == 200
        body = b'{"prompt":"a","max_tokens":1,"stream":true}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.sock.sendall(2 * (head + body))
        received = b""
        while received.count(b"[DONE]") < 2:
            received += client.sock.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 2


def test_requests_sent_together_start_one_admit_gap_apart(vllm: Simulator) -> None:
    answers: list[Answer] = []
    barrier = threading.Barrier(8)

    def one(name: str) -> None:
        with Client(vllm.port) as client:
            barrier.wait()
            answers.append(client.ask("POST", "/v1/completions", completion(), X_Request_Id=name))

    threads = [threading.Thread(target=one, args=(f"together-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    truths = [request for request in vllm.truth()[1] if request["id"].startswith("together")]
    starts = sorted(truth["t_start"] for truth in truths)
    assert all(later - earlier >= 35_000 for earlier, later in itertools.pairwise(starts))
    for answer in answers:
        assert_agrees(answer, next(truth for truth in truths if truth["peer_port"] == answer.port))


def test_an_answer_in_one_piece(vllm: Simulator) -> None:
    answer = vllm.ask("POST", "/v1/completions", completion(stream=False), X_Request_Id="whole")
    assert answer.json()["choices"][0]["text"].split() == [f"w{i:03d}" for i in range(4, 10)]
    assert answer.json()["usage"]["completion_tokens"] == 6
    truth = truth_of(vllm, "whole")
    assert truth["events"][0][0] == truth["t_start"] + 45 * MS
    assert answer.chunks[0][0] >= truth["events"][0][1]
    message = vllm.ask("POST", "/v1/chat/completions", chat(stream=False)).json()["choices"][0]["message"]
    assert message["role"] == "assistant"


def test_prompts_are_counted_as_tokenize_counts_them(vllm: Simulator) -> None:
    def used(path: str, body: dict[str, Any]) -> int:
        count: int = vllm.ask("POST", path, body).json()["usage"]["prompt_tokens"]
        return count

    def tokenized(**body: Any) -> int:
        reply = vllm.ask("POST", "/tokenize", body).json()
        assert reply["count"] == len(reply["tokens"])
        assert reply["max_model_len"] == 131072
        return int(reply["count"])

    text = "the quick  brown\nfox"
    assert used("/v1/completions", completion(prompt=text, stream=False)) == tokenized(prompt=text) == 5
    assert tokenized(prompt=text, add_special_tokens=False) == 4
    ids = vllm.ask("POST", "/tokenize", {"prompt": text}).json()["tokens"]
    assert used("/v1/completions", completion(prompt=ids, stream=False)) == 5
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    assert used("/v1/chat/completions", chat(messages=messages, stream=False)) == tokenized(messages=messages) == 16


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/completions", b"{", 400, "JSON"),
        ("/v1/completions", {"prompt": 3}, 400, "prompt"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 131072}, 400, "context length"),
        ("/v1/completions", {"model": "other", "prompt": "a"}, 404, "does not exist"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages"),
        ("/nothing", {}, 404, "Not Found"),
        ("/metrics", {}, 405, "Allowed"),
    ],
)
def test_bad_requests_are_refused(vllm: Simulator, path: str, body: Any, status: int, words: str) -> None:
    answer = vllm.ask("POST", path, body)
    assert answer.status == status
    assert words in answer.body.decode()


def test_what_is_not_http_is_refused(vllm: Simulator) -> None:
    with socket.create_connection(("127.0.0.1", vllm.port), timeout=120) as sock:
        sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400")


def test_metrics_are_those_of_vllm(vllm: Simulator) -> None:
    before = vllm.ask("GET", "/metrics").body.decode()
    vllm.ask("POST", "/v1/completions", completion())
    vllm.truth()
    after = vllm.ask("GET", "/metrics").body.decode()

    def value(page: str, name: str) -> float:
        return float(re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", page, re.MULTILINE)[1])  # type: ignore[index]

    for name, grown in (
        ("vllm:prompt_tokens_total", 4),
        ("vllm:generation_tokens_total", 6),
        ("vllm:time_to_first_token_seconds_count", 1),
        ("vllm:inter_token_latency_seconds_count", 5),
        ("vllm:e2e_request_latency_seconds_count", 1),
        ("vllm:request_generation_tokens_sum", 6),
    ):
        assert value(after, name) - value(before, name) == pytest.approx(grown)
    ttft = "vllm:time_to_first_token_seconds_sum"
    assert value(after, ttft) - value(before, ttft) >= 0.02
    assert value(after, "vllm:num_requests_running") == 0
    theirs = {
        re.sub(r'model_name="m"', 'model_name="simulated"', line.rsplit(" ", 1)[0])
        for line in METRICS.read_text(encoding="utf-8").splitlines()
        if line.startswith("vllm:")
    }
    ours = {line.rsplit(" ", 1)[0] for line in after.splitlines() if line.startswith("vllm:")}
    assert {line for line in ours - theirs if "cache_config_info" not in line} == set()
    theirs_help = {line for line in METRICS.read_text(encoding="utf-8").splitlines() if line.startswith("# TYPE vllm:")}
    assert {line for line in after.splitlines() if line.startswith("# TYPE vllm:")} <= theirs_help


def test_ksana_answers_as_it_was_captured(ksana: Simulator) -> None:
    assert ksana.ask("GET", "/models").json()["data"][0]["id"] == "m"
    assert ksana.ask("GET", "/v1/models").status == 404
    assert ksana.ask("GET", "/metrics").status == 404
    assert ksana.ask("GET", "/health").status == 200
    assert ksana.ask("POST", "/v1/completions", completion()).status == 500
    answer = ksana.ask("POST", "/v1/chat/completions", chat(model="any"), X_Request_Id="k")
    role, *contents_, finish, done = answer.events
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["choices"][0]["finish_reason"] is None for event in contents_)
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["usage"]["completion_tokens"] == 6
    assert done == "[DONE]"
    rows = truth_of(ksana, "k")["events"]
    assert 50_000 <= rows[1][0] - rows[0][0] <= 150_000
    silent = ksana.ask("POST", "/v1/chat/completions", chat(stream_options=None))
    assert all("usage" not in event for event in silent.events[:-1])


@pytest.mark.parametrize(
    ("fault", "contents_read", "end", "outcome"),
    [
        ("reset:after=2", 2, "reset", "fault"),
        ("reset", 0, "reset", "fault"),
        ("truncate:after=2", 2, "closed", "fault"),
        ("truncate:after=2,clean=1", 2, "complete", "fault"),
        ("stall:after=2", 2, "timeout", "aborted"),
        ("slow:bytes=60,gap_ms=1", 6, "complete", "ok"),
    ],
)
def test_a_fault_is_what_the_client_sees(
    vllm: Simulator, fault: str, contents_read: int, end: str, outcome: str
) -> None:
    name = f"fault-{fault}"
    with Client(vllm.port, timeout=4.0 if "stall" in fault else 120.0) as client:
        answer = client.ask("POST", "/v1/completions", completion(), X_Sim_Fault=fault, X_Request_Id=name)
    assert len(answer.content) == contents_read
    assert answer.end == end
    truth = truth_of(vllm, name)
    assert (truth["outcome"], truth["fault"]) == (outcome, fault.partition(":")[0])
    if outcome == "ok":
        # All of an event is written only after several small writes.
        assert all(row[2] - row[1] >= 2 * MS for row in contents(truth))
    if end != "complete":
        assert all(event != "[DONE]" for event in answer.events)


@pytest.mark.parametrize(("fault", "gap", "late"), [("spike:after=2,ms=40", 45, 0), ("stall:after=2,ms=40", 45, 40)])
def test_spikes_and_stalls_move_events(vllm: Simulator, fault: str, gap: int, late: int) -> None:
    answer = vllm.ask("POST", "/v1/completions", completion(max_tokens=20), X_Sim_Fault=fault, X_Request_Id=fault)
    assert len(answer.content) == 20
    due = [row[0] for row in contents(truth_of(vllm, fault))]
    assert due[2] - due[1] == gap * MS
    assert due[-1] - due[0] == (19 * 5 + late) * MS


@pytest.mark.parametrize("status", [429, 500, 503])
def test_refusals_have_their_status(vllm: Simulator, status: int) -> None:
    answer = vllm.ask("POST", "/v1/completions", completion(), X_Sim_Fault=f"http:status={status}")
    assert answer.status == status
    assert answer.json()["error"]["code"] == status
    assert ("retry-after" in answer.headers) == (status == 429)


def test_a_client_that_goes_away_is_told_and_one_that_does_not_read_holds_nobody_up(vllm: Simulator) -> None:
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", vllm.port))
        body = b'{"prompt":"a","max_tokens":30000,"stream":true}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: s\r\nX-Request-Id: lazy\r\nContent-Length: %d\r\n"
        # All at once, so that the socket's buffers fill up.
        lazy.sendall(head % len(body) + b"X-Sim-Fault: spike:ms=1000\r\n\r\n" + body)
        assert len(vllm.ask("POST", "/v1/completions", completion()).content) == 6
    truth = truth_of(vllm, "lazy")
    assert truth["outcome"] == "aborted"


def wait_until_written(simulator: Simulator, tokens: int) -> None:
    """Until the simulator has written, or holds back for a reader, so many tokens."""
    deadline = time.monotonic() + 300
    while f'vllm:generation_tokens_total{{engine="0",model_name="simulated"}} {tokens}.0' not in (
        page := simulator.ask("GET", "/metrics").body.decode()
    ):
        assert time.monotonic() < deadline, page


def test_backpressure_is_kept_out_of_the_lag() -> None:
    with running("--ttft-ms", "0", "--tpot-ms", "0", "--set", "coalesce=2") as simulator:
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", simulator.port))
            body = b'{"prompt":"a","max_tokens":40000,"stream":true}'
            lazy.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            select.select([lazy], [], [], 120)
            wait_until_written(simulator, 40_000)  # far more than sockets take
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            received = bytearray()
            while not received.endswith(b"0\r\n\r\n"):
                received += lazy.recv(1 << 20)
        assert received.count(b"data: {") == 40000
        summary, requests = simulator.truth()
        assert summary["writes_blocked_by_client"] > 0
        assert len(requests[0]["events"]) == 40001
        assert requests[0]["outcome"] == "ok"


def test_batching_serves_in_turn_and_counts_its_queue() -> None:
    settings = [
        "base_ms=200",
        "prefill_us_per_token=0",
        "decode_us_per_sequence=0",
        "kv_us_per_token=0",
        "max_num_seqs=2",
    ]
    options = [part for setting in settings for part in ("--set", f"batching.{setting}")]
    with running("--timing", "batching", *options) as simulator:
        answers: list[Answer] = []

        def one() -> None:
            answers.append(simulator.ask("POST", "/v1/chat/completions", chat(max_tokens=20)))

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 120
        seen = False
        while not seen and time.monotonic() < deadline:
            page = simulator.ask("GET", "/metrics").body.decode()
            seen = 'vllm:num_requests_waiting{engine="0",model_name="simulated"} 2.0' in page
        for thread in threads:
            thread.join()
        assert seen
        assert all(len(answer.content) == 20 for answer in answers)
        _, truths = simulator.truth()
        for truth in truths:
            due = [row[0] for row in contents(truth)]
            assert due[-1] - due[0] == pytest.approx(19 * 200 * MS, abs=2 * 25_000)
        firsts = sorted(contents(truth)[0][0] for truth in truths)
        assert firsts[2] - firsts[0] > 3600 * MS
        for answer in answers:
            assert_agrees(answer, next(truth for truth in truths if truth["peer_port"] == answer.port))


def test_it_says_when_it_is_no_oracle() -> None:
    with running("--lag-limit-ms", "0.000001", "--ttft-ms", "1", "--tpot-ms", "1", "--require-valid") as simulator:
        assert simulator.ask("POST", "/v1/completions", completion()).headers["x-oracle"] == "valid"
        answer = simulator.ask("POST", "/v1/completions", completion())
        assert answer.headers["x-oracle"] == "invalid: schedule missed"
        assert simulator.ask("GET", "/truth/summary").json()["verdict"] == "invalid: schedule missed"
        assert simulator.ask("POST", "/truth/reset").status == 200
        assert simulator.truth()[0]["verdict"] == "valid"
        simulator.ask("POST", "/v1/completions", completion())
        status, printed = simulator.stop()
        assert status == 3
        assert "invalid: schedule missed" in printed


def test_the_truth_is_not_told_while_a_stream_is_open(vllm: Simulator) -> None:
    with Client(vllm.port, timeout=0.5) as client:
        client.ask("POST", "/v1/completions", completion(), X_Sim_Fault="stall:after=1")
        deadline = time.monotonic() + 120
        while vllm.ask("GET", "/truth/summary").status != 409:  # it has not read the request yet
            assert time.monotonic() < deadline, "it tells the truth of a stream that is open"


def test_a_process_that_cuts_in_between_two_clocks_spoils_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 1, 9_000_000, 9_000_100, 9_000_300, 9_000_500])
    clocks = SimpleNamespace(monotonic_ns=lambda: next(moments), time_ns=lambda: next(moments) + 10**18)
    monkeypatch.setattr(http, "time", clocks)
    assert http._both_clocks() == (9_000_300, 9_000_300 + 10**18)


@pytest.mark.parametrize(("begins_s", "slower"), [(0, True), (1_000_000, False)])
def test_drift_begins_when_it_is_told_to(begins_s: int, slower: bool) -> None:
    with running(
        "--ttft-ms", "1", "--tpot-ms", "5", "--drift-per-minute", "60", "--set", f"drift_from_s={begins_s}"
    ) as simulator:
        simulator.ask("POST", "/v1/completions", completion(), X_Request_Id="drifting")
        first, second, *_ = contents(truth_of(simulator, "drifting"))
    assert (second[0] - first[0] > 5 * MS) == slower
