"""Quick mode: one cell against any endpoint, in this process, through the same users and reader as a race.

No figure is worked out here: `quick_result` does that when nothing is timed any more, with libraries that a process
that times requests has no use for.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import gevent.event
import gevent.pool

from loadgen.client.health import ProbeReport
from loadgen.client.probe import ClientProbe
from loadgen.errors import UserError
from loadgen.files import cannot_be_written
from loadgen.record import RequestRecord
from loadgen.runs.record_file import RecordFile
from loadgen.traffic.block import ClosedLoopUser, Traffic
from loadgen.traffic.block_state import BlockProgress, BlockState
from loadgen.traffic.plan import BlockPlan

OPEN_LOOP_LEAD_NS = 100_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class QuickRun:
    """All that was measured of one block in this process."""

    plan: BlockPlan
    worker: str
    records: list[RequestRecord]
    probe: ProbeReport
    events: int
    """Content events read."""
    interrupted: bool
    gave_up: bool
    """Nothing but failures came, so the run was ended before its time."""
    write_error: str | None
    """Why the file of records is not whole."""


def run_quick(
    plan: BlockPlan,
    *,
    duration_s: float | None = None,
    records_file: Path | None = None,
    on_progress: Callable[[BlockProgress], None] | None = None,
) -> QuickRun:
    """Run one block in this process and return what was measured.

    Args:
        plan: the block. `plan.requests` of None runs until `duration_s` is over.
        duration_s: stop after this many seconds, warm-up included, whatever has been measured by then.
        records_file: a `.jsonl` file to append every record to as it is made.
        on_progress: called a few times a second with the block's status.

    SIGINT and SIGTERM end the run early, with what was measured. So do failures without end: a
    server that answers nothing but errors is left in peace (`BlockState.hopeless`).

    Raises:
        UserError: `records_file` cannot be opened, or prompts of that length cannot be made.
    """
    every: list[RequestRecord] = []
    kept = _Records(records_file)
    block = BlockState(plan, time.time())

    def sink(record: RequestRecord) -> None:
        every.append(record)
        kept.append(record)
        block.take(record)

    traffic = Traffic(plan, sink)
    interrupted = gevent.event.Event()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = [gevent.signal_handler(number, interrupted.set) for number in previous]
    gave_up = False
    senders = gevent.pool.Group()
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, UserError)  # told by who waits for it, without gevent's own traceback
    probe = ClientProbe()
    try:
        crashed = _start(traffic, senders)
        started = time.monotonic()
        while not interrupted.wait(0.1):
            if crashed.ready():
                crashed.get()
            status = block.progress(traffic.in_flight)
            if on_progress is not None:
                on_progress(status)
            if status.complete or (duration_s is not None and time.monotonic() - started >= duration_s):
                break
            gave_up = status.hopeless
            if gave_up:
                break
    finally:
        report = probe.report()
        probe.close()
        senders.kill()
        for handler in handlers:
            handler.cancel()
        for number, action in previous.items():
            signal.signal(number, action)
        kept.close()
    return QuickRun(
        plan,
        traffic.worker,
        every,
        report,
        traffic.events,
        interrupted=interrupted.is_set(),
        gave_up=gave_up,
        write_error=kept.error,
    )


def _start(traffic: Traffic, senders: gevent.pool.Group) -> gevent.event.AsyncResult:
    """Start a closed loop's users, or what sends another load. Returns what tells when one has crashed."""
    crashed = gevent.event.AsyncResult()
    if (sender := traffic.sender(time.monotonic_ns() + OPEN_LOOP_LEAD_NS)) is not None:
        senders.spawn(sender.run).link_exception(crashed)
    for _ in range(traffic.plan.cell.concurrency):
        senders.spawn(_send_on, ClosedLoopUser(traffic)).link_exception(crashed)
    return crashed


def _send_on(user: ClosedLoopUser) -> None:
    """One user, until it is killed."""
    try:
        while True:
            user.send()
    finally:
        user.close()


class _Records:
    """The file of records. A disk that fills up ends the writing, not the measurement."""

    def __init__(self, path: Path | None) -> None:
        self.error: str | None = None
        self._file: RecordFile | None = None
        if path is not None:
            try:
                self._file = RecordFile(path)
            except OSError as error:
                raise cannot_be_written(path, error) from None

    def append(self, record: RequestRecord) -> None:
        """Write one record, as long as that works."""
        if self._file is None or self.error is not None:
            return
        try:
            self._file.append([record])
        except OSError as error:
            self.error = f"{self._file.path}: cannot be written: {error.strerror or error}"

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
