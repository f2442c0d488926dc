"""One request into one record, over real sockets: every fault has its error kind, and what was timed stays."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from loadgen.record import RequestRecord
from loadgen.stream import http_stream
from loadgen.stream.exchange import RequestSettings, _check, exchange
from loadgen.stream.http_stream import Connection
from loadgen.stream.timeouts import Timeouts
from tests.fault_server import FaultServer, Served
from tests.loadgen.records import record as make_record

TOKENS = 6
WORDS = 4
TEXT = "".join(f" tok{i}" for i in range(TOKENS))
SHORT = Timeouts(connect_s=60, stall_s=4, total_s=60)
LONG = Timeouts(connect_s=60, stall_s=60, total_s=120)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def new_record(**fields) -> RequestRecord:
    now = time.monotonic_ns()
    wanted = {"prompt_tokens_wanted": WORDS + 1, "output_tokens_wanted": TOKENS}
    return make_record(now, **{**wanted, **fields})


def ask(server: FaultServer, fault="normal", *, connection=None, api="completions", prompt="a b c d", **options):
    """One exchange; returns its record."""
    body = {"model": f"fault:{fault}", "stream": True, "max_tokens": TOKENS}
    if options.pop("ask_usage", True):
        body["stream_options"] = {"include_usage": True}
    record = options.pop("record", None) or new_record()
    if api == "chat":
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": prompt}]
        record.prompt_tokens_wanted = WORDS + 5
    else:
        path, body["prompt"] = "/v1/completions", prompt
    own = connection or Connection(server.url, 60.0)
    options.setdefault("timeouts", LONG)
    scheduled = options.pop("scheduled", False)
    try:
        exchange(own, json.dumps(body).encode(), record, RequestSettings(path, {}, **options), scheduled=scheduled)
    finally:
        if connection is None:
            own.close()
    return record


def check_times(record: RequestRecord, served: Served | None, events: int) -> None:
    """The record's times are in order, and none is earlier than the server's own of the same thing."""
    assert record.events == len(record.event_offsets_ns) == events
    assert list(record.event_offsets_ns) == sorted(record.event_offsets_ns)
    assert record.t_intended == record.t_send <= record.t_done
    if not events:
        assert record.t_first is record.t_last is None
        return
    assert record.t_first is not None and record.t_last is not None
    assert record.t_first == record.t_send + record.event_offsets_ns[0]
    assert record.t_last == record.t_send + record.event_offsets_ns[-1]
    assert record.t_send < record.t_first <= record.t_last <= record.t_done
    if served is not None:
        assert record.t_send <= served.t_read
        for offset, written in zip(record.event_offsets_ns, served.t_content, strict=False):
            assert record.t_send + offset >= written


GOOD = [
    "normal",
    "normal?send=bytes",
    "normal?send=merged",
    "normal?eol=crlf",
    "normal?eol=cr",
    "normal?eol=mixed&send=bytes",
    "normal?comments=1&multiline=1&bom=1",
    "normal?done=0",
    "normal?blank=0",
    "normal?done=0&blank=0",
    "normal?usage=finish",
    "normal?usage=last",
    "normal?usage=last&done=0&blank=0",
    "normal?usage=always",
    "normal?framing=length",
    "normal?framing=close",
    "normal?style=ksana",
    "normal?style=llamacpp",
    "normal?close=1",
]


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("fault", GOOD)
def test_every_shape_of_a_proper_stream_succeeds(server, fault, api):
    record = ask(server, fault, api=api, keep_text=True)
    assert (record.error, record.error_detail) == (None, None)
    assert (record.output_tokens, record.token_source, record.http_status) == (TOKENS, "usage", 200)
    assert record.prompt_tokens == record.prompt_tokens_wanted
    assert record.text == TEXT
    assert record.finish_reason in ("length", "stop")
    check_times(record, server.served[-1], TOKENS)


@pytest.mark.parametrize("delta", ["reasoning", "reasoning_content", "tool"])
def test_reasoning_and_tool_calls_are_content(server, delta):
    record = ask(server, f"normal?delta={delta}", api="chat")
    assert record.ok
    check_times(record, server.served[-1], TOKENS)


def test_several_tokens_in_one_event_are_counted_by_usage_not_by_events(server):
    record = ask(server, "normal?tokens_per_event=4")
    assert record.ok and record.output_tokens == TOKENS
    check_times(record, server.served[-1], 2)


@pytest.mark.parametrize("usage", ["always", "last", "finish", "separate"])
def test_the_role_event_is_never_the_first_token(server, usage):
    record = ask(server, f"normal?style=ksana&usage={usage}&ttft_ms=150", api="chat")
    assert record.ok and record.t_first is not None
    # The role event leaves at once, the first content 150 ms after the request was read.
    assert record.t_first - record.t_send >= 150_000_000


def test_pauses_of_the_server_are_seen(server):
    record = ask(server, "normal?ttft_ms=60&gap_ms=20")
    served = server.served[-1]
    check_times(record, served, TOKENS)
    assert record.t_first - record.t_send >= 60_000_000
    assert record.t_last - record.t_send >= (60 + 20 * (TOKENS - 1)) * 1_000_000
    # Generous: this says that it is the arrival that was stamped, not the end of the stream.
    assert record.t_last - record.t_first >= (served.t_content[-1] - served.t_content[0]) // 2


APIS = ["chat", "completions"]
STRICKEN = [  # fault, error kind, words of its detail, content events kept
    ("fin?after=3", "connection_cut", "closed the connection in the middle", 3),
    ("fin?after=0", "connection_cut", "closed the connection in the middle", 0),
    ("rst?after=3", "connection_cut", "connection broke", 3),
    ("stall?after=3", "stall_timeout", "no bytes for 4 s", 3),
    ("stall?after=0", "stall_timeout", "no bytes for 4 s", 0),
    ("slow_head", "stall_timeout", "no bytes for 4 s", 0),
    ("error_event?after=3", "stream_error", "the engine gave up", 3),
    ("error_event?after=3&named=1", "stream_error", "the engine gave up", 3),
    ("garbage?after=3", "bad_event", "not JSON", TOKENS),
    ("bad_chunk?after=3", "bad_response", "not a proper HTTP response", 3),
    ("short", "connection_cut", "closed the connection in the middle", TOKENS),
    ("not_http", "bad_response", "not a proper HTTP response", 0),
    ("empty", "no_content", "without any generated text", 0),
    ("normal?drop_tokens=2", "output_tokens", "6 output tokens were asked for, 4 came", 4),
    ("normal?usage=none", "no_usage", "--tokenizer", TOKENS),
]


def struck(fault: str, kind: str, api: str = "completions") -> tuple[RequestRecord, Served, RequestRecord]:
    """A request's record with what its server did, and the record of the same user's next one."""
    with FaultServer() as server, Connection(server.url, 60.0) as connection:
        limits = SHORT if kind == "stall_timeout" else LONG
        record = ask(server, fault, api=api, connection=connection, timeouts=limits)
        return record, server.served[0], ask(server, api=api, connection=connection)


@pytest.fixture(scope="module")
def stalls() -> Callable[..., tuple[RequestRecord, Served, RequestRecord]]:
    """`struck`, of which those that wait for a time limit have waited side by side."""
    kinds = [(fault, kind, api) for fault, kind, _, _ in STRICKEN for api in APIS if kind == "stall_timeout"]
    waits = {case: gevent.spawn(struck, *case) for case in kinds}
    gevent.joinall(list(waits.values()), raise_error=True)
    return lambda *case: waits[case].value if case in waits else struck(*case)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("fault", "kind", "words", "events"), STRICKEN)
def test_every_fault_has_its_kind_and_keeps_what_was_timed(stalls, fault, kind, words, events, api):
    record, served, after = stalls(fault, kind, api)
    assert record.error == kind, record.error_detail
    assert words in record.error_detail
    check_times(record, served, events)
    assert after.ok, "the next request of the same user succeeds"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize("html", [0, 1])
def test_an_http_error_is_told_with_its_detail(server, status, html):
    record = ask(server, f"http?status={status}&html={html}")
    assert (record.error, record.http_status) == (f"http_{status}", status)
    assert ("upstream is away" if html else f"fault {status}") in record.error_detail
    check_times(record, None, 0)


def test_a_total_limit_ends_a_stream_that_never_stalls(server):
    record = ask(server, "normal?gap_ms=2000", timeouts=Timeouts(stall_s=60, total_s=4))
    assert record.error == "total_timeout"
    assert record.events >= 1
    check_times(record, server.served[-1], record.events)


def test_a_prompt_of_another_length_is_an_error(server):
    record = ask(server, prompt="a b c d e f")
    assert record.error == "prompt_tokens"
    assert record.error_detail == "5 prompt tokens were sent, the server counted 7"


def test_a_shorter_output_is_an_error_unless_it_is_allowed(server):
    assert ask(server, "normal?drop_tokens=2").error == "output_tokens"
    record = ask(server, "normal?drop_tokens=2", allow_short_output=True)
    assert record.ok and record.output_tokens == TOKENS - 2


@pytest.mark.parametrize("allowed", [False, True])
def test_a_longer_output_is_an_error_anywhere(server, allowed):
    record = ask(server, "normal?drop_tokens=-2", allow_short_output=allowed)
    assert record.error == "output_tokens"
    assert f"{TOKENS} output tokens were asked for, {TOKENS + 2} came" in record.error_detail


@pytest.mark.parametrize(
    ("counted", "finish_reason", "ok"),
    [(95, "length", True), (105, "length", True), (48, "length", False), (95, "stop", False)],
)
def test_a_text_that_ran_to_its_limit_may_split_into_a_few_tokens_more_or_less(counted, finish_reason, ok):
    fields = {"output_tokens": counted, "output_tokens_wanted": 100, "events": 3, "finish_reason": finish_reason}
    record = new_record(token_source="tokenizer", **fields)
    _check(record, RequestSettings("/", {}, LONG))
    assert (record.error is None) is ok


def test_without_usage_the_tokenizer_counts_the_text(server):
    record = ask(server, "normal?usage=none", count_tokens=lambda text: len(text.split()))
    assert record.ok
    assert (record.output_tokens, record.token_source, record.prompt_tokens) == (TOKENS, "tokenizer", None)
    assert record.text == TEXT


def test_usage_goes_before_the_tokenizer(server):
    record = ask(server, "normal", count_tokens=lambda text: 999)
    assert record.ok and record.token_source == "usage"


def test_a_connection_is_kept_and_its_cost_stands_apart(server):
    before = server.connections
    with Connection(server.url, 60.0) as connection:
        first, second = ask(server, connection=connection), ask(server, connection=connection)
    assert server.connections == before + 1
    assert first.ok and second.ok
    assert first.connect_ns > 0 and second.connect_ns == 0
    # Opened before t_send: the server's own reading of the request comes after.
    assert first.t_send <= server.served[-2].t_read


def test_a_connection_that_went_stale_is_opened_anew(server):
    with Connection(server.url, 60.0) as connection:
        assert ask(server, "normal?close=2", connection=connection).ok
        wait_for(connection._socket.is_stale)
        record = ask(server, connection=connection)
        assert record.ok and record.connect_ns > 0 and connection.opened == 2


def test_after_any_failures_the_next_request_of_the_same_user_succeeds(server):
    with Connection(server.url, 60.0) as connection:
        for fault, kind, _, _ in STRICKEN:
            if kind != "stall_timeout":
                assert ask(server, fault, connection=connection).error == kind
                assert ask(server, connection=connection).ok, fault


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    record = new_record()
    with Connection(f"http://127.0.0.1:{port}", 5.0) as connection:
        exchange(connection, b"{}", record, RequestSettings("/x", {}, timeouts=LONG))
    assert record.error == "connect" and "refused" in record.error_detail.lower()
    assert record.t_intended == record.t_send == record.t_done
    assert record.http_status is None


def test_an_open_loop_keeps_the_moment_that_its_schedule_wanted(server):
    record = new_record()
    record.t_intended = wanted = record.t_send - 5_000_000
    assert ask(server, record=record, scheduled=True).ok
    assert record.t_intended == wanted < record.t_send


class Scripted:
    """A server that answers the requests of each connection from a list, then closes it."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.requests = 0
        self._scripts = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        for script in self._scripts:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # the test has ended
            with sock:
                for answer in script:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        data = sock.recv(65536)
                        if not data:
                            break
                        head += data
                    self.requests += 1
                    if answer == b"wait":
                        time.sleep(3 * http_stream.IDLE_CLOSE_NS / 1e9)
                        continue
                    sock.sendall(answer)
            # Closed with all of the request read: a FIN, not a reset.


def answer(*payloads: object, status="200 OK", kind="text/event-stream", more="") -> bytes:
    lines = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in payloads]
    body = b"".join(b"data: " + line + b"\n\n" for line in lines)
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def delta(text="x", **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


def finish(reason: object = "length", usage: object = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}


def exchange_scripted(*connections: list[bytes], count=1, **options) -> tuple[list[RequestRecord], Scripted]:
    records = [new_record(prompt_tokens_wanted=5, output_tokens_wanted=2) for _ in range(count)]
    with Scripted(*connections) as server, Connection(server.url, 60.0) as connection:
        for record in records:
            exchange(connection, b"{}", record, RequestSettings("/x", {}, timeouts=LONG, **options))
    return records, server


USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
WHOLE = answer(delta(), delta(), finish(usage=USAGE), b"[DONE]")


def test_a_kept_connection_that_dies_under_a_request_is_tried_once_more(monkeypatch):
    """The second request reaches a server that closes without a byte of an answer; a new connection serves it."""
    monkeypatch.setattr(http_stream, "IDLE_CLOSE_NS", LONG.total_s * 10**9)  # however slow this machine is
    records, server = exchange_scripted([WHOLE, b""], [WHOLE], count=2)
    assert [r.error for r in records] == [None, None]
    assert server.requests == 3
    assert records[1].connect_ns > 0
    check_times(records[1], None, 2)


def test_a_new_connection_that_dies_is_not_tried_again():
    (record,), server = exchange_scripted([b""], [WHOLE])
    assert record.error == "connection_cut" and server.requests == 1


def test_a_server_that_had_the_request_for_a_while_is_not_asked_again():
    records, server = exchange_scripted([WHOLE, b"wait"], [WHOLE], count=2)
    assert records[1].error == "connection_cut" and server.requests == 2


def test_a_retry_that_dies_as_well_is_an_error(monkeypatch):
    monkeypatch.setattr(http_stream, "IDLE_CLOSE_NS", LONG.total_s * 10**9)
    records, server = exchange_scripted([WHOLE, b""], [b""], [WHOLE], count=2)
    assert records[1].error == "connection_cut" and server.requests == 3


@pytest.mark.parametrize(
    ("usage", "prompt", "output"),
    [
        ({"prompt_tokens": 5.0, "completion_tokens": 2.0}, 5, 2),
        ({"prompt_tokens": True, "completion_tokens": True}, None, None),
        ({"prompt_tokens": "5", "completion_tokens": "2"}, None, None),
        ({"prompt_tokens": 5.5, "completion_tokens": 1e300}, None, None),
        ({"prompt_tokens": -5, "completion_tokens": 2**63}, None, None),
        ({"prompt_tokens": None, "completion_tokens": [2]}, None, None),
        ([USAGE], None, None),
        ("5", None, None),
        ({}, None, None),
        ({"completion_tokens": 2}, None, 2),
    ],
)
def test_odd_usage_is_no_count(usage, prompt, output):
    (record,), _ = exchange_scripted([answer(delta(), delta(), finish(usage=usage), b"[DONE]")])
    assert (record.prompt_tokens, record.output_tokens) == (prompt, output)
    assert type(record.output_tokens) in (int, type(None))
    assert record.error == (None if output == 2 else "no_usage")


@pytest.mark.parametrize(
    ("reason", "kept"),
    [(7, "7"), (True, "True"), (["stop"], "['stop']"), ({"a": 1}, "{'a': 1}"), ("s" * 9999, "s" * 100)],
)
def test_an_odd_finish_reason_is_kept_as_text(reason, kept):
    (record,), _ = exchange_scripted([answer(delta(), delta(), finish(reason, USAGE), b"[DONE]")])
    assert record.ok and record.finish_reason == kept


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (answer(delta(), delta(), {"usage": USAGE, "choices": []}), "truncated", "without a finish reason"),
        (answer(kind="text/html"), "bad_response", "no event stream (content type text/html)"),
        (answer(status="200 OK", kind="application/json"), "bad_response", "application/json"),
        (answer(status="302 Found", more="Location: /login\r\n"), "http_302", "redirected to /login"),
        (answer(status="307 Temporary Redirect"), "http_307", "redirected to nowhere"),
        (answer(status="204 No Content").replace(b"Content-Length: 0\r\n", b""), "truncated", ""),
        (answer(status="500 Oops"), "http_500", "no detail"),
        (b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n[]", "http_400", "[]"),
        (b'HTTP/1.1 400 No\r\nContent-Length: 13\r\n\r\n{"error":"no"}'[:-1], "http_400", ""),
        (b"HTTP/1.1 500 No\r\nContent-Length: 500\r\n\r\n" + b"[" * 500, "http_500", "[[["),
        (answer(7, "text", None, [], True), "bad_event", "not a JSON object"),
        (answer({"choices": None}, {"choices": {}}, {"choices": [None, 3]}, b"[DONE]"), "no_content", "generated"),
    ],
)
def test_odd_answers_have_a_kind(raw, kind, words):
    (record,), _ = exchange_scripted([raw])
    assert record.error == kind, record.error_detail
    assert words in record.error_detail
    check_times(record, None, record.events)


def test_the_first_error_is_the_one_that_is_told():
    error = {"error": {"message": "out of memory", "type": "Fault"}}
    raw = answer(delta(), error, b"{", delta()).replace(b"Content-Length: ", b"Content-Length: 9")
    (record,), _ = exchange_scripted([raw])
    assert (record.error, record.events) == ("stream_error", 2)
    assert "out of memory" in record.error_detail


def test_details_are_bounded():
    error = {"error": {"message": "y" * 10_000}}
    (record,), _ = exchange_scripted([answer(delta(), error, b"[DONE]")])
    assert len(record.error_detail) <= 500


def test_records_survive_json_whatever_the_server_said(server: FaultServer):
    for fault in ("normal", "fin?after=3", "rst?after=3", "http"):
        record = ask(server, fault)
        assert RequestRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_request_that_is_ended_from_outside_keeps_what_was_timed(server):
    """As the users do when a block is over: GreenletExit passes through, with the record up to date."""
    record = new_record()
    outcome: list[BaseException] = []

    def user() -> None:
        try:
            ask(server, "stall?after=3", record=record)
        except BaseException as error:
            outcome.append(error)
            raise

    greenlet = gevent.spawn(user)
    wait_for(lambda: len(record.event_offsets_ns) == 3)
    greenlet.kill()
    assert isinstance(outcome[0], gevent.GreenletExit)
    assert record.error is None, "the users say why"
    check_times(record, server.served[-1], 3)
    assert record.http_status == 200


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        gevent.sleep(0.01)


KEY = "s3cret-key"
ECHOES = {
    "refusal": b"HTTP/1.1 401 No\r\nContent-Length: 17\r\n\r\nno, Bearer " + KEY[:6].encode(),
    "JSON": answer({"error": {"message": f"no key {KEY}", "type": KEY}}),
    "cut": answer({"error": "x" * 494 + KEY}),
    "text": answer(b"not JSON: Bearer " + KEY.encode()),
    "finish reason": answer(delta(), finish(KEY, USAGE), b"[DONE]"),
    "place": f"HTTP/1.1 302 No\r\nLocation: /{KEY}\r\nContent-Length: 0\r\n\r\n".encode(),
    "type": f"HTTP/1.1 200 OK\r\nContent-Type: {'x' * 75}{KEY}\r\nContent-Length: 0\r\n\r\n".encode(),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_no_record_repeats_a_key_that_a_server_echoes(echo):
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {KEY}"}
    with Scripted([ECHOES[echo]]) as server, Connection(server.url, 60.0) as connection:
        record = new_record(prompt_tokens_wanted=5, output_tokens_wanted=2)
        exchange(connection, b"{}", record, RequestSettings("/x", headers, LONG))
    assert record.error is not None or echo == "finish reason"
    assert KEY[:5] not in str(record.to_dict())
    assert "…" in str((record.error_detail, record.finish_reason))
