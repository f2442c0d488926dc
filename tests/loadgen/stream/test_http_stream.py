"""The streaming client against real sockets: every fault gives its typed outcome and keeps what came before."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import gevent.ssl
import pytest

from loadgen.stream.http_failures import ConnectError, ConnectionCut, ProtocolError, StreamFailure, StreamTimeout
from loadgen.stream.http_parser import MAX_HEAD_BYTES, ResponseParser
from loadgen.stream.http_stream import Connection, ResponseStream
from loadgen.stream.sse import SSESplitter
from loadgen.stream.stream_event import StreamEvent, classify
from tests.fault_server import FaultServer

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@dataclass
class Outcome:
    response: ResponseStream
    events: list[tuple[int, StreamEvent]] = field(default_factory=list)
    failure: StreamFailure | None = None
    rest: bytes | None = None

    @property
    def content(self) -> list[int]:
        return [t for t, event in self.events if event.content]

    @property
    def text(self) -> str:
        return "".join(event.text or "" for _, event in self.events)

    @property
    def usage(self) -> dict[str, int] | None:
        return next((event.usage for _, event in self.events if event.usage), None)


def ask(connection: Connection, model: str, *, chat: bool = True, max_tokens: int = 6, **timeouts: float) -> Outcome:
    body = {"model": model, "stream": True, "max_tokens": max_tokens, "stream_options": {"include_usage": True}}
    body |= {"messages": [{"role": "user", "content": "one two three"}]} if chat else {"prompt": "one two three"}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    response = connection.post(path, json.dumps(body).encode(), **timeouts)  # type: ignore[arg-type]
    outcome, splitter = Outcome(response), SSESplitter()
    try:
        for t_ns, data in response:
            outcome.events += [(t_ns, classify(payload)) for payload in splitter.feed(data)]
        outcome.rest = splitter.close()
        if outcome.rest:
            outcome.events.append((response.t_done or 0, classify(outcome.rest)))
    except StreamFailure as failure:
        outcome.failure = failure
    return outcome


def until_closed_by_server(connection: Connection) -> None:
    end = time.monotonic() + 60
    while not connection._socket.is_stale():  # type: ignore[union-attr]
        assert time.monotonic() < end, "it was never closed"
        gevent.sleep(0.01)


WHOLE = [
    "m",
    "fault:normal?send=bytes",
    "fault:normal?send=merged",
    "fault:normal?eol=crlf&comments=1&bom=1",
    "fault:normal?eol=cr&send=bytes",
    "fault:normal?eol=mixed&multiline=1&send=bytes",
    "fault:normal?comments=1&multiline=1",
    "fault:normal?framing=length",
    "fault:normal?framing=close",
    "fault:normal?done=0",
    "fault:normal?blank=0",
    "fault:normal?usage=finish",
    "fault:normal?usage=last",
    "fault:normal?usage=always",
    "fault:normal?usage=none",
    "fault:normal?delta=reasoning",
    "fault:normal?delta=reasoning_content&tokens_per_event=4",
    "fault:normal?close=1",
    "fault:normal?close=2",
]


@pytest.mark.parametrize("style", ["vllm", "ksana", "llamacpp"])
@pytest.mark.parametrize("model", WHOLE)
def test_every_dress_of_a_proper_stream(server: FaultServer, model: str, style: str) -> None:
    model = model if model == "m" else f"{model}&style={style}"
    with Connection(server.url) as connection:
        for chat in (True, False):
            outcome = ask(connection, model, chat=chat)
            assert outcome.failure is None
            assert outcome.text == " tok0 tok1 tok2 tok3 tok4 tok5"
            assert [e.error_kind for _, e in outcome.events if e.error_kind] == []
            assert len([e for _, e in outcome.events if e.finish_reason]) == 1
            prompt = 1 + 3 + (4 if chat else 0)
            wanted = {"prompt_tokens": prompt, "completion_tokens": 6, "total_tokens": prompt + 6}
            if "usage=none" in model:
                assert outcome.usage is None
            elif "usage=always" not in model:
                assert outcome.usage == wanted
            assert outcome.events[-1][1].done == ("done=0" not in model)
            response = outcome.response
            assert response.status == 200
            assert response.t_send <= outcome.content[0]
            assert outcome.content[-1] <= (response.t_done or 0)
            times = [t for t, _ in outcome.events]
            assert times == sorted(times)
            if "close=2" in model:
                until_closed_by_server(connection)


def test_tool_calls_and_captured_streams(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        assert len(ask(connection, "fault:normal?delta=tool").content) == 6
        for name, count in (("vllm-0.24.0-chat-stream.sse", 5), ("ksana-c451219-chat-stream.sse", 1)):
            outcome = ask(connection, f"fault:fixture?name={name}")
            assert len(outcome.content) == count
            assert outcome.usage == {"prompt_tokens": 10, "total_tokens": 16, "completion_tokens": 6}
        assert ask(connection, "fault:empty").content == []


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("fault:fin?after=3", ConnectionCut, "connection_cut"),
        ("fault:rst?after=3", ConnectionCut, "connection_cut"),
        ("fault:stall?after=3", StreamTimeout, "stall_timeout"),
        ("fault:bad_chunk?after=3", ProtocolError, "bad_response"),
    ],
)
def test_a_fault_in_mid_stream_keeps_what_was_timed(
    server: FaultServer, model: str, error: type[StreamFailure], kind: str, framing: str
) -> None:
    if framing == "length" and "bad_chunk" in model:
        pytest.skip("no chunks to be bad")
    with Connection(server.url) as connection:
        limit_s = 4.0 if kind == "stall_timeout" else 60.0
        outcome = ask(connection, f"{model}&gap_ms=20&framing={framing}", stall_timeout_s=limit_s)
        assert type(outcome.failure) is error
        assert outcome.failure.kind == kind
        assert len(outcome.content) == 3
        assert outcome.content[2] - outcome.content[0] >= 30e6  # two gaps of 20 ms, whatever else happened
        assert (outcome.response.t_done or 0) >= outcome.content[-1]
        assert not connection.is_open
        assert ask(connection, "m").failure is None


def test_total_timeout_ends_a_stream_that_never_stalls(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        outcome = ask(connection, "fault:normal?gap_ms=300", max_tokens=400, stall_timeout_s=60, total_timeout_s=4)
        assert isinstance(outcome.failure, StreamTimeout)
        assert outcome.failure.kind == "total_timeout"
        assert 2 <= len(outcome.content) < 400
        spent = ((outcome.response.t_done or 0) - outcome.response.t_send) / 1e9
        assert spent >= 4


def test_a_process_that_was_too_busy_to_read_is_no_stall(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        body = json.dumps({"model": "fault:normal?gap_ms=150", "stream": True, "max_tokens": 40}).encode()
        response = connection.post("/v1/completions", body, stall_timeout_s=4)
        greenlet = gevent.spawn(lambda: b"".join(data for _, data in response))
        gevent.sleep(0.2)
        time.sleep(4.2)  # blocks the loop for longer than the stall timeout, while bytes keep coming
        assert greenlet.get(timeout=60).count(b"data: {") >= 40


def test_slow_head(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        outcome = ask(connection, "fault:slow_head?seconds=30", stall_timeout_s=0.2)
        assert outcome.failure is not None
        assert (outcome.failure.kind, outcome.response.status) == ("stall_timeout", None)
        outcome = ask(connection, "fault:slow_head?seconds=0.2", stall_timeout_s=20)
        assert outcome.failure is None
        assert outcome.content[0] - outcome.response.t_send >= 0.2e9


@pytest.mark.parametrize("named", [0, 1])
def test_error_event_in_mid_stream(server: FaultServer, named: int) -> None:
    with Connection(server.url) as connection:
        outcome = ask(connection, f"fault:error_event?after=2&named={named}")
        assert outcome.failure is None
        assert [event.error for _, event in outcome.events if event.error] == [
            "the engine gave up (InternalServerError, 500)"
        ]
        assert len(outcome.content) == 2


def test_garbage_event(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        outcome = ask(connection, "fault:garbage")
        assert [event.error_kind for _, event in outcome.events if event.error_kind] == ["bad_event"]
        assert len(outcome.content) == 6


def test_wrong_content_length_and_no_http(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        short = ask(connection, "fault:short")
        assert short.failure is not None
        assert short.failure.kind == "connection_cut"
        assert len(short.content) == 6
        long = ask(connection, "fault:long?send=merged")
        assert long.failure is not None
        assert long.failure.kind == "bad_response"
        assert len(long.content) >= 4
        none = ask(connection, "fault:not_http")
        assert none.failure is not None
        assert (none.failure.kind, none.events) == ("bad_response", [])


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("html", [0, 1])
def test_http_errors_have_a_readable_body_and_keep_the_connection(server: FaultServer, status: int, html: int) -> None:
    with Connection(server.url) as connection:
        body = json.dumps({"model": f"fault:http?status={status}&html={html}", "stream": True}).encode()
        response = connection.post("/v1/completions", body)
        assert response.wait_head() == status
        assert (b"<html>" if html else f"fault {status}".encode()) in response.read_body()
        assert response.headers["content-type"] == ("text/html" if html else "application/json")
        assert ask(connection, "m").failure is None
        assert connection.opened == 1


def test_keep_alive_is_used_and_a_stale_connection_is_reopened_before_timing(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        for _ in range(3):
            assert ask(connection, "m").failure is None
        assert connection.opened == 1
        assert ask(connection, "fault:normal?close=2").failure is None  # closes without having said so
        until_closed_by_server(connection)
        assert connection.is_open
        outcome = ask(connection, "m")
        assert outcome.failure is None
        assert (connection.opened, outcome.response.reused) == (2, False)
        assert connection.connect_ns is not None
        assert connection.connect_ns > 0


def test_an_abandoned_response_costs_the_connection_but_no_more(server: FaultServer) -> None:
    with Connection(server.url) as connection:
        body = json.dumps({"model": "fault:normal?gap_ms=20", "stream": True, "prompt": "x"}).encode()
        response = connection.post("/v1/completions", body)
        next(iter(response))
        assert ask(connection, "m").failure is None
        assert connection.opened == 2
        with pytest.raises(ConnectionCut):
            list(response)
        assert ask(connection, "m").failure is None
        with contextlib.closing(connection.post("/v1/completions", body)) as response:
            response.wait_head()
        assert not connection.is_open


def test_times_agree_with_the_servers_own() -> None:
    """Arrival is never before the server wrote, and mostly before it wrote the next; a known gap is seen as it is."""
    with FaultServer() as server, Connection(server.url) as connection:
        outcome = ask(connection, "fault:normal?ttft_ms=60&gap_ms=15", max_tokens=20)
        truth = server.served[0]
        assert outcome.response.t_send <= truth.t_read
        assert len(truth.t_content) == len(outcome.content) == 20
        assert all(wrote <= seen for seen, wrote in zip(outcome.content, truth.t_content, strict=True))
        assert sum(seen < later for seen, later in zip(outcome.content, truth.t_content[1:], strict=False)) >= 10
        assert outcome.content[0] - outcome.response.t_send >= 60e6
        assert outcome.content[-1] - outcome.content[0] >= 18 * 15e6


def test_streams_run_side_by_side(server: FaultServer) -> None:
    def one() -> Outcome:
        with Connection(server.url) as connection:
            return ask(connection, "fault:normal?gap_ms=20&ttft_ms=300", max_tokens=10)

    greenlets = [gevent.spawn(one) for _ in range(20)]
    gevent.joinall(greenlets, raise_error=True)
    assert all(greenlet.value.failure is None for greenlet in greenlets)
    responses = [greenlet.value.response for greenlet in greenlets]
    whole = max(r.t_done or 0 for r in responses) - min(r.t_send for r in responses)
    assert sum((r.t_done or 0) - r.t_send for r in responses) > 2 * whole, (
        "one after the other, it is the whole at most"
    )


def test_connect_errors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://name.invalid:80"):
        with pytest.raises(ConnectError) as caught:
            Connection(url).open()
        assert caught.value.kind == "connect"
        assert url.removeprefix("http://") in str(caught.value)
    for url in ("127.0.0.1:80", "ftp://x", "http://user:pass@x", "http://x:port"):
        with pytest.raises(ValueError, match=r"base URL|[Pp]ort"):
            Connection(url)


def test_connect_timeout_and_foreign_timeouts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts by backlog, never shakes hands
        connection = Connection(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=0.2)
        with pytest.raises(ConnectError, match="within"):
            connection.open()
        assert not connection.is_open
        connection = Connection(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=60)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            connection.open()
        assert not connection.is_open


def test_a_request_that_nobody_reads_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StreamTimeout) as caught:
            connection.post("/", b"x" * 50_000_000, stall_timeout_s=0.3)
        assert caught.value.kind == "stall_timeout"
        assert not connection.is_open


def canned(*answers: bytes) -> tuple[str, threading.Thread]:
    """A server that gives one answer to each request of one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as sock:
            for answer in answers:
                sock.recv(65536)
                sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread


@pytest.mark.parametrize("coding", ["Identity", "", " identity ", "identity, Identity", "utf-8", "none", "chunked"])
def test_a_coding_that_changes_nothing_is_none(coding) -> None:
    parser = ResponseParser()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok"
    assert (parser.feed(head.encode()), parser.problem, parser.complete) == (b"ok", None, True)


@pytest.mark.parametrize("coding", ["GZIP", "br", "identity, zstd", "x-gzip"])
def test_a_response_that_was_compressed_is_refused(coding) -> None:
    parser = ResponseParser()
    parser.feed(f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok".encode())
    assert parser.problem == f"the server compressed the response ({coding}) unasked"


def test_interim_responses_prefixes_and_compression() -> None:
    ok = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nX-a: 2\r\nContent-Length: 2\r\n\r\nok"
    packed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"
    url, thread = canned(ok, packed)
    with Connection(url + "/prefix/") as connection:
        response = connection.post("/v1", b"{}")
        assert b"".join(data for _, data in response) == b"ok"
        assert (response.status, response.headers["x-a"]) == (200, "1, 2")
        with pytest.raises(ProtocolError, match="gzip"):
            list(connection.post("/v1", b"{}"))
    thread.join(10)
    with pytest.raises(ValueError, match="line break"):
        connection.post("/v1", b"", {"X": "a\r\nEvil: 1"})


def test_an_endless_head_is_refused() -> None:
    url, _ = canned(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)
    with pytest.raises(ProtocolError):
        list(Connection(url).post("/", b""))


def test_ipv6() -> None:
    try:
        with FaultServer(host="::1") as server, Connection(server.url) as connection:
            assert ask(connection, "m").failure is None
    except OSError:
        pytest.skip("no IPv6 loopback here")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    return key, cert


def test_tls_is_verified_and_streams(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = certificate
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)
    with FaultServer(tls=serving) as server:
        with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            Connection(server.url).open()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        with Connection(server.url) as connection:
            for model in ("m", "fault:normal?send=merged"):
                assert ask(connection, model, max_tokens=500).text.endswith(" tok499")
            assert connection.opened == 1
            stalled = ask(connection, "fault:stall", stall_timeout_s=4)
            assert stalled.failure is not None
            assert stalled.failure.kind == "stall_timeout"
            assert len(stalled.content) == 2
            cut = ask(connection, "fault:fin")
            assert cut.failure is not None
            assert cut.failure.kind == "connection_cut"
            ask(connection, "fault:normal?close=2")
            until_closed_by_server(connection)
            assert ask(connection, "m").failure is None


def test_it_works_where_gevent_has_patched_everything() -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import json
from loadgen.stream.http_stream import Connection
from tests.fault_server import FaultServer
with FaultServer(in_process=False) as server, Connection(server.url) as connection:
    body = json.dumps({"model": "m", "prompt": "a", "stream": True}).encode()
    for _ in range(2):
        print(b"".join(data for _, data in connection.post("/v1/completions", body)).count(b"data: "))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["17", "17"]


@pytest.mark.parametrize("extra", [b"X-T: " + b"x" * 1000 + b"\r\n", b"x" * 1000, b"X: y\r\n"])
def test_what_comes_beside_the_body_is_bounded(extra):
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    assert parser.problem is None
    before = 0 if extra.endswith(b"\n") else parser.feed(b"0\r\nX: ")
    for _ in range(MAX_HEAD_BYTES // min(len(extra), 2) + 1):
        parser.feed(b"0\r\n" if before == 0 else extra)
        before = 1
        if parser.problem is not None:
            break
    assert parser.problem is not None and "beside its body" in parser.problem
    assert list(parser.headers) == ["transfer-encoding"]


def test_a_trailer_is_no_header_and_ends_the_body():
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n")
    assert parser.complete and parser.problem is None and "x" not in parser.headers
