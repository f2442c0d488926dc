"""Floods of a KsanaLLM exporter's port, one kind after another, while it is scraped and pushed to as in a race.

Each flood keeps `SENDERS` connections busy with one kind of hostile body, or holds hundreds open. Told: the p99 of a
scrape's time under each, the exporter's peak of memory, and that every honest push of a counter was counted, once.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.security.memory import peak_mb
from loadgen.machine import unused_ports

JSON, PROTOBUF = "application/json", "application/x-protobuf"
SENDERS = 4
HELD = 400
P99_LIMIT_S = 1.0
PEAK_LIMIT_MB = 200.0
"""The container's limit is 256 MB."""


def bodies() -> dict[str, tuple[bytes, str, str]]:
    """Body, type and encoding of one push of each kind."""
    metrics = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[%s]}]}]}'
    points = b'{"name":"a","gauge":{"dataPoints":[%s]}}' % b",".join([b'{"asInt":1}'] * 80_000)
    return {
        "packed members of nothing": (gzip.compress(b"") * 50_000, PROTOBUF, "gzip"),
        "packed empty messages": (gzip.compress(b"\x0a\x00" * 500_000), PROTOBUF, "gzip"),
        "empty messages": (b"\x0a\x00" * 500_000, PROTOBUF, ""),
        "packed points": (gzip.compress(metrics % points), JSON, "gzip"),
        "deep lists": (b"[" * 1_000_000, JSON, ""),
        "a long number": (b"9" * 1_000_000, JSON, ""),
        "a bomb of zeros": (gzip.compress(bytes(10 << 20)), JSON, "gzip"),
        "noise": (bytes(range(256)) * 2000, PROTOBUF, ""),
        "as large as it may be": (metrics % b",".join([b'{"name":"a"}'] * 9_000), JSON, ""),
    }


def honest(number: int) -> bytes:
    """The push that adds one to a counter, with a time of its own."""
    now = time.time_ns()
    point = {"startTimeUnixNano": str(now - 1000), "timeUnixNano": str(now), "asInt": "1"}
    total = {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [point]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "ksana"}}]}
    scope = {"scope": {"name": "s"}, "metrics": [{"name": "floods", "sum": total}]}
    return json.dumps({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}], "n": number}).encode()


def ask(port: int, path: str, body: bytes | None = None, kind: str = "", encoding: str = "") -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        more = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})} if body else {}
        connection.request("POST" if body else "GET", path, body, more)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def pushing(port: int, body: bytes, kind: str, encoding: str) -> Iterator[None]:
    """Push it from `SENDERS` connections until the block ends."""
    ended = threading.Event()

    def push() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask(port, "/v1/metrics", body, kind, encoding)

    senders = [threading.Thread(target=push) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        yield
    finally:
        ended.set()
        for sender in senders:
            sender.join()


@contextlib.contextmanager
def holding(port: int, first: bytes) -> Iterator[None]:
    """Hold `HELD` connections open that sent only this."""
    with contextlib.ExitStack() as stack:
        for _ in range(HELD):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            with contextlib.suppress(OSError):
                held.sendall(first)
        yield


@contextlib.contextmanager
def exporter() -> Iterator[tuple[int, int]]:
    """A KsanaLLM exporter; yields its port and process id."""
    (port,) = unused_ports(1)
    command = [sys.executable, "-m", "exporters.ksana", "--port", str(port), "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError):
                    ask(port, "/metrics")
                    break
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()


def run(count: int) -> dict[str, object]:
    """Flood it by each kind; `count` scrapes under each. Raises AssertionError where a bound is not held."""
    told: dict[str, object] = {}
    pushed = 0
    with exporter() as (port, pid):
        floods: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
            what: (lambda args=args: pushing(port, *args)) for what, args in bodies().items()
        }
        for what, first in {"idle connections": b"", "half heads": b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "}.items():
            floods[what] = lambda first=first: holding(port, first)
        for what, flood in {"none": contextlib.nullcontext, **floods}.items():
            took = []
            with flood():
                for _ in range(count):
                    began = time.monotonic()
                    status, _ = ask(port, "/metrics")
                    took.append(time.monotonic() - began)
                    assert status == 200, f"{what}: a scrape was answered by {status}"  # noqa: S101
                    status, said = ask(port, "/v1/metrics", honest(pushed), JSON)
                    assert status == 200, f"{what}: an honest push was answered by {status}, {said!r}"  # noqa: S101
                    pushed += 1
            p99 = sorted(took)[math.ceil(0.99 * len(took)) - 1]
            told[what] = f"p99 {1000 * p99:.0f} ms"
            assert p99 < P99_LIMIT_S, told  # noqa: S101
        page = ask(port, "/metrics")[1].decode()
        counted = [float(value) for value in re.findall(r"^ksana_floods_total\{[^}]*\} (\S+)$", page, re.MULTILINE)]
        told["honest pushes"], told["counted"] = pushed, counted
        peak = peak_mb(pid)
        told["exporter's peak"] = f"{peak:.0f} MB"
        assert counted == [pushed], told  # noqa: S101
        assert peak < PEAK_LIMIT_MB, told  # noqa: S101
    return told
