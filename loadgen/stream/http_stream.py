"""HTTP/1.1 over gevent sockets: one streaming POST at a time on a kept-alive connection, every read timed.

Sockets and TLS come from gevent by name, so this works whether or not gevent has patched the standard library.
Proxies are never used: the `http_proxy` family of environment variables is ignored, because a proxy's timing is not
the engine's.

Times are `time.monotonic_ns()` of this process. On Linux, without TLS, a read's time is when the kernel received the
last segment that it took from (`kernel_time`); elsewhere it is when the read returned. `TimedSocket` is the only
place that reads and stamps, `ResponseParser` the only one that de-frames.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import gevent
import gevent.socket
import gevent.ssl

from loadgen.stream.http_failures import ConnectError, ConnectionCut, ProtocolError, StreamFailure, StreamTimeout
from loadgen.stream.http_parser import ResponseParser
from loadgen.stream.timed_socket import Skim, TimedSocket

MAX_ERROR_BODY_BYTES = 64 * 1024
LOOK_S = 20.0
"""How often a response is looked at, at least."""
IDLE_CLOSE_NS = 100_000_000
"""A server that closed an idle connection as a request was on its way is heard of within a round trip. One that ends it
later had the request, so that is its failure, and not to be covered up by trying again."""

_BAD_HEADER = frozenset("\r\n\0")
_monotonic_ns = time.monotonic_ns


class Connection:
    """One HTTP/1.1 connection to `base_url` (`http` or `https`, with an optional path prefix).

    `connect_ns`: how long the last opening took (name, TCP, TLS); it is never inside a response's times.
    `opened`: how often it was opened. `held_open`: its server left a response without an end.
    Not for use by two greenlets at once.
    Raises ValueError for a URL that is not one.
    """

    def __init__(
        self, base_url: str, connect_timeout_s: float = 10.0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise ValueError(f"not a base URL: {base_url!r} (expected http://host:port or https://host:port)")
        self.base_url = base_url
        self.connect_ns: int | None = None
        self.opened = 0
        self.held_open = False
        self._host = url.hostname
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._host_header = url.netloc
        self._prefix = url.path.rstrip("/")
        self._connect_timeout_s = connect_timeout_s
        self._ssl_context = (ssl_context or default_ssl_context()) if url.scheme == "https" else None
        self._socket: TimedSocket | None = None
        self._used = False  # it has carried a whole response
        self._response: ResponseStream | None = None  # the one that is still being read

    @property
    def is_open(self) -> bool:
        """Whether there is a socket; the server may have closed its end (see `ensure_open`)."""
        return self._socket is not None

    def open(self) -> None:
        """Connect anew, closing what was open. Raises `ConnectError`."""
        self.close()
        started = _monotonic_ns()
        where = f"{self._host}:{self._port}"
        timer = gevent.Timeout.start_new(self._connect_timeout_s)
        sock = None
        try:
            sock = gevent.socket.create_connection((self._host, self._port))
            sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_hostname=self._host)
            self._socket, sock = TimedSocket(sock), None
        except gevent.Timeout as timeout:
            if timeout is not timer:
                raise
            raise ConnectError(f"cannot connect to {where} within {self._connect_timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:  # TLS errors are OSErrors; UnicodeError: a name IDNA refuses
            raise ConnectError(f"cannot connect to {where}: {error}") from error
        finally:
            timer.close()
            if sock is not None:
                sock.close()
        self.connect_ns = _monotonic_ns() - started
        self.opened += 1

    def ensure_open(self) -> None:
        """Open the connection if it is not open, is stale, or is still busy with an abandoned response.

        Raises `ConnectError`.
        """
        if self._socket is None or self._response is not None or self._socket.is_stale():
            self.open()

    def close(self) -> None:
        """Close the socket, if any."""
        sock, self._socket = self._socket, None
        self._used = False
        response, self._response = self._response, None
        if response is not None:
            response.abandon()
        if sock is not None:
            sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        stall_timeout_s: float = 60.0,
        total_timeout_s: float = 600.0,
        ready: Callable[[], None] | None = None,
    ) -> ResponseStream:
        """Send one request and return its response, of which nothing has been read yet.

        The connection is opened first where need be; then `t_send` is stamped and head and body leave in one call.
        `stall_timeout_s` bounds each wait for bytes, the first included; `total_timeout_s` counts from `t_send`.
        `ready` is called when all is done but the writing, and may wait.
        Raises `ConnectError`; `ConnectionCut` or `StreamTimeout` if the request cannot be written.
        """
        fields = {"Host": self._host_header, "Accept-Encoding": "identity", "Content-Type": "application/json"}
        fields |= headers or {}
        fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        target = self._prefix + path
        if _BAD_HEADER.intersection(target) or head.count("\n") != len(fields) or " " in target:
            raise ValueError("a path or header holds a line break or a space where none may be")
        message = f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body

        self.ensure_open()
        sock = self._socket
        assert sock is not None  # noqa: S101 - ensure_open raises or opens
        response = ResponseStream(sock, stall_timeout_s, total_timeout_s, reused=self._used, give_back=self._take_back)
        self._response = response
        if ready is not None:
            ready()
        response.send(message)
        return response

    def _take_back(self, keep: bool) -> None:
        """A response has ended. `keep`: it came whole, and the connection may serve again."""
        self._response, self._used = None, True
        if not keep:
            self.close()


class ResponseStream:
    """The response to one `post`. Iterate over it once: each item is `(t_ns, data)`, the body bytes of one read.

    An iteration that ends has seen the whole body; otherwise it raises a `StreamFailure`, after it has given
    all bytes that came before. A status of 400 and above is no exception: see `read_body`.

    `t_send`: before the first byte of the request was written. `t_done`: arrival of the read that completed the body,
    or when it failed. Both monotonic ns.
    `status`, `headers` (names in lower case; repeated ones joined by ", "): known once the head has come, see
    `wait_head`. `reused`: the connection had served before.

    `read_at`: when this process read what the last item holds; `read_at - t_ns` is the read lag.
    `clock`: `kernel` where arrival times come from the kernel, else `user`.
    `skim`: where it is set, it is offered what starts with a chunk's beginning, and may take whole chunks off it;
    what it takes is not parsed, and is in no item.
    `heard`: where it is set, tells when something was last heard that ends a silence; else any byte does.
    """

    def __init__(
        self,
        sock: TimedSocket,
        stall_timeout_s: float,
        total_timeout_s: float,
        *,
        reused: bool,
        give_back: Callable[[bool], None],
    ) -> None:
        """`give_back` is told of the end, and whether the connection may serve again; not after `abandon`."""
        self.t_send = 0
        self.t_done: int | None = None
        self.reused = reused
        self.read_at = 0
        self.clock: Literal["kernel", "user"] = "kernel" if sock.stamped else "user"
        self.skim: Skim | None = None
        self.heard: Callable[[], int] | None = None
        sock.reads = sock.bytes_read = 0
        self._give_back = give_back
        self._attached = True  # the connection is this response's
        self._socket = sock
        self._stall_s = stall_timeout_s
        self._total_s = total_timeout_s
        self._parser = ResponseParser()
        self._now = 0  # arrival of what the last read brought
        self._unparsed = b""  # of the last read
        self._first = b""  # body bytes that wait_head() came upon
        self._timed_out: StreamTimeout | None = None
        self._suspect = -1  # when something was last heard, at the time when a stall was first suspected
        self._timer: Any = None

    @property
    def status(self) -> int | None:
        """Of the response, once its head has come."""
        return self._parser.status

    @property
    def headers(self) -> dict[str, str]:
        """Of the response, once its head has come."""
        return self._parser.headers

    @property
    def bytes_read(self) -> int:
        """Bytes that came in answer, head and framing included."""
        return self._socket.bytes_read

    def send(self, message: bytes) -> None:
        """Stamp `t_send` and write the request. Raises `ConnectionCut` or `StreamTimeout`."""
        sock, limit_s = self._socket, min(self._stall_s, self._total_s)
        self.t_send = sock.arrival_ns = sock.read_ns = _monotonic_ns()
        try:
            sock.send_all(message, limit_s)
        except TimeoutError as error:
            if error.errno is None:
                raise self._fail(StreamTimeout("stall", self._stall_s)) from None
            raise self._fail(self._cut(error)) from error
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server may have answered (say 413) before it closed: reading tells
        except OSError as error:
            raise self._fail(self._cut(error)) from error
        # One timer, re-armed only when it fires: one for each read, as a socket timeout would start, costs as much as
        # the read itself.
        if self._attached:
            self._arm(min(limit_s, LOOK_S))

    def _cut(self, error: OSError) -> ConnectionCut:
        return ConnectionCut(f"the connection broke: {error.strerror or error}", retriable=self._was_idle())

    def _was_idle(self) -> bool:
        """Whether an end that comes now is that of an idle connection: the request never got to anyone."""
        return self.reused and not self.bytes_read and _monotonic_ns() - self.t_send < IDLE_CLOSE_NS

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Give `(t_ns, data)` for each read that brought body bytes. Raises `StreamFailure`."""
        if self._first:
            data, self._first = self._first, b""
            yield self._now, data
        while not self._parser.complete:
            if data := self._step():
                yield self._now, data

    def wait_head(self) -> int:
        """Read until status and headers are known; return the status. Raises `StreamFailure`."""
        while self._parser.status is None:
            self._first = self._step()
        return self._parser.status

    def read_body(self, limit: int = MAX_ERROR_BODY_BYTES) -> bytes:
        """Read the body whole, at most `limit` bytes of it, as for an error's detail.

        A body that is longer, or breaks off, gives what came of it, and the connection is closed.
        """
        body = bytearray()
        try:
            for _, data in self:
                body += data
                if len(body) > limit:
                    break
        except StreamFailure:
            pass
        self.close()
        return bytes(body[:limit])

    def drain(self, seconds: float) -> bool:
        """All that matters has come: wait so long for the body's end, else close. Returns whether it came.

        Raises `StreamFailure` where the body is shorter than its length says.
        """
        parser = self._parser
        if self._attached and not parser.complete:
            self.skim = self.heard = None
            self._stop_timer()
            self._total_s = (_monotonic_ns() - self.t_send) / 1e9 + seconds
            self._arm(seconds)
            # A body without a length has its end where the server ends it; one of another length than told has none.
            forgiven = StreamTimeout if "content-length" in self.headers else StreamFailure
            with contextlib.suppress(forgiven):
                while not parser.complete and (self._unparsed or seconds):
                    self._step()
            self.close()
        return parser.complete

    def close(self) -> None:
        """Done with this response. If it is not complete its connection is closed, as no other way ends it."""
        if not self._parser.complete and self._attached:
            self._end(keep=False)

    def abandon(self) -> None:
        """The connection goes on without this response: from now on it only tells of its end."""
        self._attached = False
        self._stop_timer()

    def _fail(self, failure: StreamFailure) -> StreamFailure:
        """Close the connection, stamp `t_done` unless it is set, and return `failure` for the caller to raise."""
        if self.t_done is None:
            self.t_done = _monotonic_ns()
        self.close()
        return failure

    def _arm(self, seconds: float) -> None:
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self._check_time)

    def _check_time(self) -> None:
        sock, now = self._socket, _monotonic_ns()
        total_left_s = self._total_s - (now - self.t_send) / 1e9
        heard = max(sock.arrival_ns, sock.read_ns) if self.heard is None else max(self.heard(), self.t_send)
        stall_left_s = self._stall_s - (now - heard) / 1e9
        if total_left_s <= 0:
            self._timed_out = StreamTimeout("total", self._total_s)
        elif stall_left_s <= 0 and sock.waiting:
            # Bytes may lie there that this process was too busy to read: the loop gets a turn to do so.
            if self._suspect == heard:
                self._timed_out = StreamTimeout("stall", self._stall_s)
            self._suspect = heard
        self._stop_timer()
        if self._timed_out is None:
            self._arm(max(min(total_left_s, stall_left_s, LOOK_S), 0.002))
        else:
            sock.shut_down()  # wakes a waiting read with EOF

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _step(self) -> bytes:
        """Parse some bytes, new ones where none are left over, and return what they hold of the body.

        Stamps `_now`. Raises `StreamFailure`.
        """
        self._raise_problem()
        parser = self._parser
        data = self._skim_rest() or self._receive()
        now = self._now
        if not data:
            self._end_of_file()
            return b""
        # No further than where the head or a chunk is likely to end: what follows may be for `skim`.
        end = data.find(b"\n\r\n") if self.skim is not None or parser.status is None else -1
        if end >= 0:
            data, self._unparsed = data[: end + 3], data[end + 3 :]
        content = parser.feed(data)
        if parser.complete and self._unparsed:
            content += parser.feed(self._unparsed)  # bytes behind the end: the parser says what is wrong with them
        if parser.problem is not None:
            self.t_done = now  # the next step raises, after the bytes that came are given
        elif parser.complete:
            self.t_done = now
            self._end(keep=parser.keep_alive)
        return content

    def _raise_problem(self) -> None:
        if self._parser.problem is not None:
            raise self._fail(ProtocolError(self._parser.problem))

    def _skim_rest(self) -> bytes:
        """Return what the last read left unparsed, less what can be skimmed."""
        data, self._unparsed = self._unparsed, b""
        if data and self.skim is not None and self._parser.between_chunks:
            data = data[self.skim(data, len(data), self._now, self.read_at) :]
        return data

    def _receive(self) -> bytes:
        """Wait for bytes, as long as the timer lets it; b"" at the end of the connection."""
        sock = self._socket
        if not self._attached:
            raise self._fail(ConnectionCut("the connection was closed, or used for another request, by its owner"))
        try:
            data = sock.read(self.skim if self._parser.between_chunks else None)
        except OSError as error:
            raise self._fail(self._timed_out or self._cut(error)) from error
        self._now, self.read_at = sock.arrival_ns, sock.read_ns
        if not data and self._timed_out is not None:
            raise self._fail(self._timed_out)
        return data

    def _end_of_file(self) -> None:
        self.t_done = self._now
        parser = self._parser
        if parser.until_close and parser.status is not None:
            parser.complete = True
            self._end(keep=False)
            return
        where = "in the middle of the body" if parser.status is not None else "before the response's head"
        raise self._fail(ConnectionCut(f"the server closed the connection {where}", retriable=self._was_idle()))

    def _end(self, *, keep: bool) -> None:
        """Hand the connection back, once. `keep`: it may serve again."""
        if self._attached:
            self.abandon()
            self._give_back(keep)


def default_ssl_context() -> ssl.SSLContext:
    """Make a context that verifies chain and host name by the system's authorities (SSL_CERT_FILE included).

    `create_default_context` would give the standard library's class, whose sockets block the whole process.
    """
    context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context
