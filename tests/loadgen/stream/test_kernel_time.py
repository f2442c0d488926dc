"""Arrival times come from the kernel: a reader that is late still learns when each event came."""

from __future__ import annotations

import json
import socket
import sys
import time

import pytest

from loadgen.stream import kernel_time
from loadgen.stream.http_stream import Connection
from loadgen.stream.sse import EventDecoder, SSESplitter
from tests.fault_server import FaultServer

LATE_S = 1.0
GAP_MS = 4000

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SO_TIMESTAMPNS is Linux's")


def body(style: str, **options: object) -> bytes:
    given = "&".join(f"{key}={value}" for key, value in options.items())
    model = f"fault:normal?style={style}&{given}"
    message = {"model": model, "prompt": [1, 2, 3], "messages": [], "max_tokens": 4, "stream": True}
    return json.dumps({**message, "stream_options": {"include_usage": True}}).encode()


@linux
@pytest.mark.parametrize(
    ("path", "style", "eol"),
    [
        ("/v1/completions", "vllm", "lf"),
        ("/v1/chat/completions", "vllm", "lf"),
        ("/v1/chat/completions", "ksana", "lf"),
        ("/v1/completions", "llamacpp", "crlf"),
    ],
)
def test_a_late_reader_still_learns_when_the_first_content_event_arrived(path: str, style: str, eol: str) -> None:
    with FaultServer() as server, Connection(server.url) as connection:
        connection.open()
        response = connection.post(path, body(style, eol=eol, ttft_ms=20, gap_ms=GAP_MS))
        # The whole process is busy, gevent's loop included, while the first event comes in and for a while after.
        while not (server.served and server.served[-1].t_content):
            time.sleep(0.01)
        time.sleep(LATE_S)
        woke = time.monotonic_ns()
        assert response.wait_head() == 200
        assert response.clock == "kernel"
        splitter, decoder = SSESplitter(), EventDecoder()
        first = lag = None
        for t, data in response:
            for payload in splitter.feed(data):
                if decoder.decode(payload).content and first is None:
                    first, lag = t, response.read_at - t
            if first is not None:
                break
        truth = server.served[-1].t_content
        assert first is not None
        assert lag is not None
        # On loopback a segment arrives inside the call that writes it: long before the reader woke.
        assert truth[0] <= first < woke - LATE_S / 2 * 1e9
        assert lag >= woke - first


@linux
def test_stamps_follow_the_servers_writes() -> None:
    with FaultServer() as server, Connection(server.url) as connection:
        response = connection.post("/v1/completions", body("vllm", gap_ms=5))
        splitter, decoder, arrivals = SSESplitter(), EventDecoder(), []
        for t, data in response:
            arrivals += [t for payload in splitter.feed(data) if decoder.decode(payload).content]
            assert t <= response.read_at
        truth = server.served[-1].t_content
        assert len(arrivals) == len(truth) == 4
        assert all(written <= arrived for written, arrived in zip(truth, arrivals, strict=True))
        assert arrivals == sorted(arrivals)


def test_without_stamps_the_read_itself_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_time, "enable", lambda sock: False)
    with FaultServer() as server, Connection(server.url) as connection:
        response = connection.post("/v1/completions", body("vllm"))
        assert response.clock == "user"
        for t, _ in response:
            assert t == response.read_at


def stamp(wall_ns: int) -> list[tuple[int, int, bytes]]:
    data = kernel_time._timespec.pack(*divmod(wall_ns, 10**9))
    return [(socket.SOL_SOCKET, kernel_time.SCM_TIMESTAMPNS, data)]


def test_a_wall_clock_step_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step = 0
    real = time.time_ns
    monkeypatch.setattr(kernel_time.time, "time_ns", lambda: real() + step)
    clock = kernel_time.ArrivalClock()
    for step in (0, 3600 * 10**9, -7200 * 10**9):
        now = time.monotonic_ns()
        arrival = clock.arrival_ns(stamp(real() + step), now)
        assert arrival is not None
        assert now - 10**10 < arrival <= now


def test_no_stamp_and_foreign_ancillary_data_are_told_apart() -> None:
    clock = kernel_time.ArrivalClock()
    assert clock.arrival_ns([], time.monotonic_ns()) is None
    assert clock.arrival_ns([(socket.SOL_SOCKET, 1, b"x" * 16)], time.monotonic_ns()) is None
