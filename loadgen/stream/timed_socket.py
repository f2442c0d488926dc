"""A connected gevent socket whose every read is timed.

The hot path of the load generator: bytes are read in the event loop's own callback, and the greenlet that waits for
them is only woken for what `skim` leaves over. A switch to it and back, and the attempt to read that finds
nothing, would cost about as much as the read itself.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import ssl
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
from gevent.hub import Waiter

from loadgen.stream import kernel_time

Skim = Callable[[bytearray | bytes, int, int, int], int]
"""`skim(buffer, size, arrival_ns, read_ns)`: how many of the first `size` bytes it has dealt with."""

# One for all: what a read leaves over is copied before anything else can run.
_buffer = bytearray(256 * 1024)
_buffers = (_buffer,)
_view = memoryview(_buffer)
_clock = kernel_time.ArrivalClock()
_monotonic_ns = time.monotonic_ns
YIELD_NS = 10_000_000
"""Reads of TLS that never have to wait give way so often: else a server that never pauses would stop all else."""


class TimedSocket:
    """Owns `sock`, a gevent socket of TCP or TLS. One greenlet reads at a time.

    `stamped`: the kernel tells when segments arrived.
    `arrival_ns`, `read_ns`: of the last read, monotonic: when the kernel received its last segment (else as
    `read_ns`), and when the read returned. `reads`, `bytes_read`: counted since they were last set to 0.
    `waiting`: a greenlet waits for bytes.
    """

    def __init__(self, sock: Any) -> None:
        self.arrival_ns = 0
        self.read_ns = 0
        self.reads = 0
        self.bytes_read = 0
        self.waiting = False
        self._socket = sock
        self._yielded_ns = 0
        self._tls = isinstance(sock, ssl.SSLSocket) or hasattr(sock, "do_handshake")
        self.stamped = not self._tls and kernel_time.enable(sock)
        self._skim: Skim | None = None
        self._waiter: Waiter | None = None
        if not self._tls:
            # A second handle on the same descriptor, without gevent's waiting. Detached before gevent closes it.
            self._raw = _socket.socket(sock.family, sock.type, sock.proto, sock.fileno())
            self._watcher = gevent.get_hub().loop.io(sock.fileno(), 1)

    def send_all(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`. Raises OSError; a plain TimeoutError without errno after `timeout_s`."""
        self._socket.settimeout(timeout_s)
        self._socket.sendall(data)
        self._socket.settimeout(None)

    def read(self, skim: Skim | None = None) -> bytes:
        """Wait for bytes that `skim` leaves over, and return them; b"" at the end of the connection.

        Raises OSError when the connection breaks, or is closed by another greenlet.
        """
        self.waiting = True
        try:
            return self._read_tls(skim) if self._tls else self._read_plain(skim)
        finally:
            self.waiting = False

    def is_stale(self) -> bool:
        """Whether the idle connection has ended, or holds bytes that nobody asked for."""
        self._socket.settimeout(0.0)
        try:
            # TLS cannot peek; consuming is as good, for any byte here means the connection is of no use.
            self._socket.recv(1) if self._tls else self._socket.recv(1, gevent.socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        return True

    def shut_down(self) -> None:
        """End the connection, so that a waiting read sees its end."""
        # The plain socket's method: TLS's own would forget its state.
        with contextlib.suppress(OSError):
            gevent.socket.socket.shutdown(self._socket, gevent.socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; a read that waits raises OSError."""
        if not self._tls:
            self._watcher.stop()
            self._watcher.close()
            self._raw.detach()
            waiter, self._waiter = self._waiter, None
            if waiter is not None:
                gevent.get_hub().loop.run_callback(waiter.throw, OSError(errno.EBADF, "it was closed"))
        self._socket.close()

    def _read_tls(self, skim: Skim | None) -> bytes:
        while True:
            if _monotonic_ns() - self._yielded_ns > YIELD_NS:
                gevent.sleep(0)
                self._yielded_ns = _monotonic_ns()
            size = self._socket.recv_into(_buffer)
            now = self.arrival_ns = self.read_ns = _monotonic_ns()
            self.reads += 1
            self.bytes_read += size
            used = skim(_buffer, size, now, now) if skim is not None and size else 0
            if used < size or not size:
                return bytes(_view[used:size])

    def _read_plain(self, skim: Skim | None) -> bytes:
        self._skim = skim
        waiter = self._waiter = Waiter()
        self._watcher.start(self._on_readable)
        try:
            data: bytes = waiter.get()
            return data
        finally:
            if self._waiter is waiter:
                self._waiter = None
            self._watcher.stop()

    def _on_readable(self) -> None:
        """Read once, in the event loop; wake the greenlet if something is left over."""
        waiter = self._waiter
        try:
            if self.stamped:
                size, ancillary, _, _ = self._raw.recvmsg_into(_buffers, kernel_time.ANCILLARY_BYTES)
                now = _monotonic_ns()
                arrival = _clock.arrival_ns(ancillary, now) or now
            else:
                size = self._raw.recv_into(_buffer)
                now = arrival = _monotonic_ns()
        except BlockingIOError:
            return
        except OSError as error:
            if waiter is not None:
                self._waiter = None
                waiter.throw(error)
            return
        self.arrival_ns = arrival
        self.read_ns = now
        self.reads += 1
        self.bytes_read += size
        skim = self._skim
        used = skim(_buffer, size, arrival, now) if skim is not None and size else 0
        if used == size and size:
            return
        if waiter is not None:
            self._waiter = None
            waiter.switch(bytes(_view[used:size]))
