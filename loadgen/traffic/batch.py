"""The batch load: N requests are sent at the same instant, and the next N when all of them have ended."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable

import gevent
import gevent.event
import gevent.pool

from loadgen.stream.http_stream import Connection

MAX_BACKOFF_S = 2.0


def backoff_s(failures: int) -> float:
    """How long to pause after so many failures in a row, so that a dead engine is not hammered."""
    return min(MAX_BACKOFF_S, 0.05 * 2 ** min(failures, 10)) if failures else 0.0


class Gate:
    """Where the requests of one batch wait for each other, each ready to be written."""

    def __init__(self) -> None:
        self.opened_ns: int | None = None
        """The batch's instant, monotonic ns."""
        self.waiting = 0
        self.arrived = gevent.event.Event()
        """Set whenever one more waits."""
        self._open = gevent.event.Event()

    def wait(self) -> None:
        """Wait until it opens; at once when it is open."""
        self.waiting += 1
        self.arrived.set()
        self._open.wait()

    def open(self) -> None:
        """Let all go, in the order in which they came."""
        self.opened_ns = time.monotonic_ns()
        self._open.set()


Send = Callable[[Connection, int, int, Gate], bool]
"""Called as send(connection, number of the batch, place in it, gate); whether it succeeded."""


class BatchSender:
    """Sends batch after batch until it is killed, or has sent as many as are wanted."""

    def __init__(self, size: int, wanted: int | None, make: Callable[[], Connection], send: Send) -> None:
        """`wanted` batches, warm-up included; None: without end. `make` gives a connection, not open yet."""
        self._connections = [make() for _ in range(size)]
        self._wanted = wanted
        self._send = send
        self._running = gevent.pool.Group()

    def run(self) -> None:
        """Send the batches. A request that fails ends its batch's wait like any other."""
        failures = 0
        try:
            for number in itertools.count() if self._wanted is None else range(self._wanted):
                failures = 0 if self._one(number) else failures + 1
                gevent.sleep(backoff_s(failures))
        finally:
            self._running.kill()
            for connection in self._connections:
                connection.close()

    def _one(self, number: int) -> bool:
        """One batch, from its prompts to its last answer. Returns whether all its requests succeeded."""
        gate = Gate()
        members = [
            self._running.spawn(self._send, connection, number, place, gate)
            for place, connection in enumerate(self._connections)
        ]
        # Those that cannot connect end before they come to the gate; the others do not wait for them.
        for member in members:
            member.link(lambda _: gate.arrived.set())
        while gate.waiting + sum(member.ready() for member in members) < len(members):
            gate.arrived.wait()
            gate.arrived.clear()
        # Nothing is timed now, but will be in a moment: a collection that fell in between would spread the batch.
        gc.collect(0)
        gate.open()
        gevent.joinall(members, raise_error=True)
        return all(member.value for member in members)
