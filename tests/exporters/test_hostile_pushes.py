"""Pushes and connections that are made to end an exporter: each is refused, told, and costs little."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import resource
import socket
import sys
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest

from exporters.connections import Connections, Room
from exporters.otlp_http import MAX_BODY, MAX_MEMBERS, RefusedError, read_push
from exporters.otlp_size import MAX_VALUES, check_json, check_protobuf
from loadgen.machine import unused_ports
from tests.exporters.ksana_pushes import captured

TOP = Path(__file__).resolve().parents[2]
JSON, PROTOBUF = "application/json", "application/x-protobuf"


def field(tag: int, body: bytes) -> bytes:
    """A length-delimited field."""
    size, head = len(body), bytearray([tag])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes([*head, size]) + body


def in_metric(data: bytes) -> bytes:
    return field(0x0A, field(0x12, field(0x12, b"\x0a\x01a" + data)))


def nested(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = field(0x2A, field(0x0A, value))
    return field(0x0A, field(0x0A, field(0x0A, b"\x0a\x01k" + field(0x12, value))))


EMPTY_POINTS = in_metric(field(0x2A, b"\x0a\x00" * 500_000))
COUNTER = b"\x10\x01\x18\x01" + field(0x0A, b"\x21" + bytes(7) + b"\xf0\x3f") * 90_000
POINTS = b",".join([b'{"asInt":1}'] * 87_000)
BODIES = {
    "gzip of 52,000 empty members": (gzip.compress(b"") * (MAX_BODY // 20), PROTOBUF, "gzip"),
    "262,000 empty metrics": (field(0x0A, field(0x12, b"\x12\x00" * 262_000)), PROTOBUF, ""),
    "524,000 empty metrics": (gzip.compress(field(0x0A, field(0x12, b"\x12\x00" * 524_200))), PROTOBUF, "gzip"),
    "500,000 empty points": (gzip.compress(EMPTY_POINTS), PROTOBUF, "gzip"),
    "90,000 points of a counter": (gzip.compress(in_metric(field(0x3A, COUNTER))), PROTOBUF, "gzip"),
    "349,000 resources": (gzip.compress(b'{"resourceMetrics":[' + b",".join([b"{}"] * 349_000) + b"]}"), JSON, "gzip"),
    "87,000 points": (
        gzip.compress(
            b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":['
            + POINTS
            + b"]}}]}]}]}"
        ),
        JSON,
        "gzip",
    ),
    "87,000 attributes": (
        b'{"resourceMetrics":[{"resource":{"attributes":[' + b",".join([b'{"key":"a"}'] * 87_000) + b"]}}]}",
        JSON,
        "",
    ),
    "JSON 500,000 deep": (b"[" * 1_000_000, JSON, ""),
    "JSON values 18,000 deep": (b'{"resourceMetrics":' + b'{"a":' * 18_000, JSON, ""),
    "an integer of a million digits": (b'{"resourceMetrics":' + b"9" * 1_000_000 + b"}", JSON, ""),
    "values 5,000 deep": (nested(5000), PROTOBUF, ""),
    "10 MiB of zeros": (gzip.compress(bytes(10 << 20)), JSON, "gzip"),
    # Two of our own: unknown fields by the hundred thousand, and exemplars, which nothing of ours shows.
    "400,000 unknown fields": (b"\xf8\x01\x00" * 300_000, PROTOBUF, ""),
    "exemplars": (in_metric(field(0x2A, field(0x0A, b"\x2a\x00" * 400_000))), PROTOBUF, ""),
}


@pytest.mark.parametrize("what", BODIES)
def test_what_is_small_on_the_wire_and_large_in_memory_is_refused_before_it_is_made(what):
    body, kind, encoding = BODIES[what]
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError) as caught:
            read_push(body, kind, encoding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason in ("too_large", "malformed")
    assert len(str(caught.value)) < 400
    assert peak < 24 << 20


def test_real_pushes_are_far_below_the_limit():
    for body in captured():
        check_json(body)
    assert max(body.count(b",") + body.count(b"{") + body.count(b"[") for body in captured()) < MAX_VALUES / 4
    assert len(read_push(gzip.compress(captured()[1]), JSON, "gzip").points) > 20


def test_a_gzip_body_may_have_several_members_and_no_thousands():
    text = captured()[1]
    half = len(text) // 2
    assert read_push(gzip.compress(text[:half]) + gzip.compress(text[half:]), JSON, "gzip").points
    with pytest.raises(RefusedError, match=f"more than {MAX_MEMBERS} members"):
        read_push(gzip.compress(b"") * 2 * MAX_MEMBERS, JSON, "gzip")


@pytest.mark.parametrize("body", [b"\x0a\xff\xff\xff\xff\x0f", b"\x0a", b"\xff" * 100, b"\x0b\x0c", b""])
def test_what_is_no_protobuf_is_left_to_its_reader(body):
    check_protobuf(body)


def test_bodies_in_flight_have_a_limit_together():
    room = Room(10)
    with room.held() as one, room.held() as other:
        assert one(6) and other(4) and not other(1)
    with room.held() as again:
        assert again(10), "all was given back"


class Protocol:
    """What aiohttp makes for a connection, as far as it is looked at."""

    def __init__(self) -> None:
        self.transport, self.aborted = self, False
        self._current_request = None

    def abort(self) -> None:
        self.aborted = True


def test_the_connection_that_was_idle_longest_makes_room(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    connections = Connections(most=3)
    connections.server = Protocol
    held = []
    for now[0] in (1.0, 2.0, 3.0, 4.0):
        held.append(connections())
    assert [protocol.aborted for protocol in held] == [True, False, False, False]
    connections.sweep(12.5)
    assert [protocol.aborted for protocol in held] == [True, True, False, False], "no head within 10 s"


def test_connections_that_have_ended_push_no_new_one_out(monkeypatch):
    now = [1.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    connections = Connections(most=3)
    connections.server = Protocol
    ended = [connections() for _ in range(3)]
    for protocol in ended:  # each was answered and has gone, between two sweeps
        state = connections._held[protocol]
        state.busy = state.asked = True
        protocol.transport = None
    scrape = connections()
    more = [connections() for _ in range(2)]
    assert not any(protocol.aborted for protocol in (*ended, scrape, *more))


UNSWEPT = """
import sys
from exporters import connections, ksana
connections.HEAD_LIMIT_S = 3600.0
sys.exit(ksana.main(sys.argv[1:]))
"""
"""An exporter where a new connection gets in only if others make room, and never because they have grown old."""


@pytest.fixture(scope="module")
def exporter(tmp_path_factory):
    """A KsanaLLM exporter under its container's limit of memory; yields its port and process."""
    (port,) = unused_ports(1)
    limit = 256 << 20
    command = [sys.executable, "-c", UNSWEPT, "--port", str(port)]
    with (tmp_path_factory.mktemp("exporter") / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=TOP, stdout=log, stderr=log)
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        process.rlimit(resource.RLIMIT_DATA, (limit, limit))
        process.rlimit(resource.RLIMIT_NOFILE, (256, 256))
        yield port, process
        process.terminate()
        assert process.wait(120) == 0


def ask(port: int, method: str = "GET", path: str = "/metrics", body: bytes | None = None, **headers: str):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.integration
def test_floods_of_pushes_end_nothing(exporter):
    port, process = exporter
    for body, kind, encoding in BODIES.values():
        headers = {"Content_Type": kind, **({"Content_Encoding": encoding} if encoding else {})}
        status, said = ask(port, "POST", "/v1/metrics", body, **headers)
        assert status in (400, 413), said
        assert ask(port)[0] == 200
    assert process.is_running()
    assert ask(port, "POST", "/v1/metrics", captured()[1], Content_Type=JSON)[0] == 200


@pytest.mark.integration
@pytest.mark.parametrize(
    "first", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ", b"POST /v1/metrics HTTP/1.1\r\nHost:"]
)
def test_connections_that_are_held_open_keep_no_scrape_out(exporter, first):
    port, _ = exporter
    held = []
    for _ in range(400):
        each = socket.create_connection(("127.0.0.1", port), 120)
        with contextlib.suppress(OSError):
            each.sendall(first)
        held.append(each)
    for _ in range(5):
        assert ask(port)[0] == 200
    for each in held:
        each.close()


@pytest.mark.integration
def test_what_a_foreign_page_could_send_is_refused(exporter):
    port, _ = exporter
    good = {"Content_Type": JSON}
    assert ask(port, Host="rebound.example")[0] == 403
    assert ask(port, Host=f"localhost:{port}")[0] == 200
    body = captured()[1]
    assert ask(port, "POST", "/v1/metrics", body, Origin="http://evil.example", **good)[0] == 403
    assert ask(port, "POST", "/v1/metrics", body, Sec_Fetch_Site="cross-site", **good)[0] == 403
