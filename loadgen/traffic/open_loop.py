"""The open loop: one dispatcher a worker sends each request when it is due, whatever became of the others."""

from __future__ import annotations

import contextlib
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import gevent.pool
import psutil

from loadgen.errors import UserError
from loadgen.stream.http_failures import StreamFailure
from loadgen.stream.http_stream import Connection

SPARE_CONNECTIONS = 4
MAX_IDLE = 256
YIELDING_NS = 1_000_000
BYTES_IN_FLIGHT = 100_000
"""Memory that is allowed for a request in flight: its greenlet, connection, prompt and record."""
MAX_IN_FLIGHT, SPARE_FILES = 100_000, 64
CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
Send = Callable[[Connection, int, int], None]
"""Called as send(connection, number of the arrival, due time in monotonic ns)."""


def most_in_flight() -> int:
    """Requests that this process can have in flight, by the memory that is free now and the files that it may open."""
    free = psutil.virtual_memory().available
    for limit, used in CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):  # no control group, or no limit
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    files = files - SPARE_FILES if files != resource.RLIM_INFINITY else MAX_IN_FLIGHT
    return max(1, min(files, free // 2 // BYTES_IN_FLIGHT, MAX_IN_FLIGHT))


def wait_until(due_ns: int) -> None:
    """Return at a moment of the monotonic clock, or at once when it has passed.

    The event loop's timers are whole milliseconds and fire up to one late. So the last one is waited for by yielding
    again and again: the other greenlets run meanwhile, and only this process's idle time is spent.
    """
    wait = due_ns - time.monotonic_ns() - YIELDING_NS
    if wait > 0:
        gevent.sleep(wait / 1e9)
    while time.monotonic_ns() < due_ns:
        gevent.sleep(0)


class ConnectionStock:
    """Open connections that wait for a request. It never makes a request wait for one.

    A few more than are in use are opened ahead of need, so that opening stays out of a request's way; when a burst
    has used them up, the request opens its own, and its record tells what that cost.
    """

    def __init__(self, make: Callable[[], Connection], spare: int = SPARE_CONNECTIONS) -> None:
        self._make = make
        self._spare = spare
        self._idle: deque[Connection] = deque()
        self._filling: gevent.Greenlet | None = None
        self._closed = False

    def take(self) -> Connection:
        """Return a connection, the one used last if there is one: it is the least likely to have been closed."""
        connection = self._idle.pop() if self._idle else self._make()
        if len(self._idle) < self._spare and not self._filling and not self._closed:
            self._filling = gevent.spawn(self._fill)
        return connection

    def give(self, connection: Connection) -> None:
        """Take a connection back."""
        if self._closed or len(self._idle) >= MAX_IDLE or not connection.is_open:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close all that are idle; those in use are closed when they come back."""
        self._closed = True
        if self._filling:
            self._filling.kill()
        while self._idle:
            self._idle.pop().close()

    def _fill(self) -> None:
        try:
            while len(self._idle) < self._spare and not self._closed:
                connection = self._make()
                connection.open()
                self._idle.appendleft(connection)
        except StreamFailure:
            pass  # the request that needs one will meet the same failure, and record it
        finally:
            self._filling = None


class Dispatcher:
    """Runs one worker's share of the arrivals until it is killed, or the arrivals end."""

    def __init__(self, arrivals: Iterator[tuple[int, int]], start_ns: int, stock: ConnectionStock, send: Send) -> None:
        self._arrivals = arrivals
        self._start_ns = start_ns
        self._stock = stock
        self._send = send
        # None waits for another to end, which would turn the loop into a closed one; so there has to be an end to it.
        self._running = gevent.pool.Group()
        self._most = most_in_flight()

    def run(self) -> None:
        """Send every request at its due time, or at once when it is late. None is ever dropped.

        Raises UserError when more are in flight than this process can carry.
        """
        try:
            for number, offset in self._arrivals:
                due = self._start_ns + offset
                wait_until(due)
                if len(self._running) >= self._most:
                    raise UserError(
                        f"The load generator cannot carry this load: {self._most} requests are in flight, as many as "
                        "this worker's memory and open files allow. Give a lower rate, or more workers."
                    )
                self._running.add(gevent.spawn(self._one, number, due))
            self._running.join()
        finally:
            self._running.kill()
            self._stock.close()

    def _one(self, number: int, due: int) -> None:
        connection = self._stock.take()
        try:
            self._send(connection, number, due)
        except BaseException:
            connection.close()
            raise
        self._stock.give(connection)
