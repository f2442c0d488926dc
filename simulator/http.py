"""HTTP/1.1 on a non-blocking socket: requests in, with the kernel's time of arrival, and bytes out."""

from __future__ import annotations

import functools
import json
import select
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import httptools

from simulator.stream import Stream

SO_TIMESTAMPNS = 35
"""Linux's socket option and control message of that name; Python's socket module does not have it."""
MAX_BODY = 32 * 1024 * 1024
RECEIVE_BYTES = 65536
CLOCKS_APART_NS = 10_000
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict",
           413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
           503: "Service Unavailable"}  # fmt: skip


@dataclass(slots=True)
class Request:
    """One HTTP request, complete."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    t_arrived: int
    t_read: int


def response(
    status: int, body: bytes, content_type: str = "application/json", *, keep_alive: bool = True, extra: str = ""
) -> bytes:
    """Return a whole response."""
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\n{extra}{'' if keep_alive else 'connection: close' + chr(13) + chr(10)}\r\n"
    )
    return head.encode() + body


@functools.lru_cache(maxsize=16)
def stream_head(verdict: str, *, keep_alive: bool) -> bytes:
    """Return the head of a streamed answer; `verdict` tells whether the simulator is an oracle so far."""
    close = "" if keep_alive else "connection: close\r\n"
    return (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        f"x-oracle: {verdict}\r\ntransfer-encoding: chunked\r\n{close}\r\n"
    ).encode()


def error_body(message: str, status: int) -> bytes:
    """Return an error as OpenAI-compatible engines do."""
    kind = "BadRequestError" if status < 500 else "InternalServerError"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}}).encode()


def _both_clocks() -> tuple[int, int]:
    """Return one moment by CLOCK_MONOTONIC and CLOCK_REALTIME, also where another process cuts in between."""
    for _ in range(5):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after - before < CLOCKS_APART_NS:
            break
    return (before + after) // 2, wall


class Connection:
    """One client. Complete requests gather in `inbox`; what the socket does not take waits in `out`."""

    def __init__(self, sock: socket.socket, epoll: select.epoll, peer_port: int, t_accept: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer_port = peer_port
        self.t_accept = t_accept
        self.inbox: deque[Request] = deque()
        self.stream: Stream | None = None
        self.out = bytearray()
        self.close_when_sent = False
        self.closed = False
        self.too_large = False
        self._epoll = epoll
        self._parser: Any = httptools.HttpRequestParser(self)
        self._t_arrived = 0
        self._t_read = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0

    # httptools calls these.
    def on_message_begin(self) -> None:
        """Start a request."""
        self._url, self._headers, self._body, self._size = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.lower()] = value
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._size += len(body)
        if self._size > MAX_BODY:
            self.too_large = True
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Put a complete request into the inbox."""
        path, _, query = self._url.decode("latin-1").partition("?")
        self.inbox.append(
            Request(
                method=self._parser.get_method().decode(),
                path=path,
                query=query,
                headers=self._headers,
                body=b"".join(self._body),
                keep_alive=self._parser.should_keep_alive(),
                t_arrived=self._t_arrived,
                t_read=self._t_read,
            )
        )

    def receive(self) -> bool:
        """Read once. False: the client has gone away. Raises httptools.HttpParserError: it does not speak HTTP."""
        try:
            data, control, _, _ = self.sock.recvmsg(RECEIVE_BYTES, 64)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self._t_read = time.monotonic_ns()
        self._t_arrived = self._t_read
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("@ll", value[:16])
                # Realtime to monotonic by the age of the stamp: a clock step can spoil one request, slew none.
                now, wall = _both_clocks()
                age = wall - (seconds * 1_000_000_000 + nanoseconds)
                if 0 <= age < 1_000_000_000:
                    self._t_arrived = min(now - age, self._t_read)
        self._parser.feed_data(data)
        return True

    def write(self, data: bytes) -> bool:
        """Send, or queue what the socket does not take. True: all was taken. Raises OSError: the client went away."""
        if self.out:
            self.out += data
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self.out += memoryview(data)[sent:]
        self._epoll.modify(self.fd, select.EPOLLIN | select.EPOLLOUT)
        return False

    def flush(self) -> bool:
        """Send what waits. True: nothing waits any more. Raises OSError: the client went away."""
        while self.out:
            try:
                sent = self.sock.send(self.out)
            except BlockingIOError:
                return False
            del self.out[:sent]
        self._epoll.modify(self.fd, select.EPOLLIN)
        return True

    def close(self, *, reset: bool = False) -> None:
        """Close at once; `reset` sends RST in place of FIN."""
        if self.closed:
            return
        self.closed = True
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._epoll.unregister(self.fd)
        self.sock.close()
        self._parser = None
