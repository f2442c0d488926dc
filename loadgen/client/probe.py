"""Watches this process's own event loop, CPU and garbage collector, for `client_health`.

The loop's lag is measured by a timer of the kernel's (timerfd) that is due every 2 ms on an absolute schedule and is
waited for like any socket, so its lag is what a socket's event meets too. A timer of gevent's own would not do: libev
rounds it up to whole milliseconds, and so an idle process would look 1 ms late. That one is the fall-back where there
is no timerfd, with the millisecond taken off.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gevent

from loadgen.client.health import PROBE_PERIOD_NS, LagHistogram, ProbeReport

LATE_NS = 100_000
"""Wakes that are later than this are told one by one, with their time."""
MAX_STALL_NS = 10_000_000_000
"""A machine that slept for hours must not keep us counting."""
MAX_LATE = 100_000
"""Late wakes that are kept until the next report takes them."""
EVENT_LOOP_STEP_NS = 1_000_000
"""libev's resolution, by which gevent's own timers are late without anyone's fault."""
CLOCK_MONOTONIC = 1
TIMER_ABSTIME = 1
_monotonic_ns = time.monotonic_ns


class ClientProbe:
    """One a process. Starts at once; `begin` opens a block, `report` tells what was seen since then."""

    def __init__(self) -> None:
        self._gc_started = 0
        self._schedstat = _open_schedstat()
        self._process = _Span(self._waiting_s())
        self._timer: _KernelTimer | None = None
        self._watcher: Any = None
        self._greenlet: Any = None
        self.begin()
        gc.callbacks.append(self._on_gc)
        try:
            self._timer = _KernelTimer(PROBE_PERIOD_NS)
        except (OSError, AttributeError):
            self._greenlet = gevent.spawn(self._sleep_and_look)
        else:
            self._watcher = gevent.get_hub().loop.io(self._timer.fd, 1)
            self._watcher.start(self._on_timer)

    def begin(self) -> None:
        """A block begins: forget what was seen for the last one."""
        self._block = _Span(self._waiting_s())
        self._late: list[tuple[int, int]] = []

    def report(self) -> ProbeReport:
        """What was seen since `begin`; of late wakes only those since the last report (see `give_back`)."""
        self._on_timer()  # whoever asks may himself have held up the loop
        report = self._block.report(self._waiting_s())
        report.late, self._late = self._late, []
        return report

    def give_back(self, report: ProbeReport) -> None:
        """A report could not be delivered: its late wakes go with the next one."""
        self._late = report.late + self._late

    def process_report(self) -> ProbeReport:
        """What was seen since the process started, without single wakes."""
        return self._process.report(self._waiting_s())

    def close(self) -> None:
        """Stop watching; safe to call twice."""
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._on_gc)
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None
        if self._schedstat is not None:
            os.close(self._schedstat)
            self._schedstat = None

    def _on_timer(self) -> None:
        if self._timer is not None:
            due = self._timer.read()
            if due is not None:
                self._note(due, _monotonic_ns())

    def _sleep_and_look(self) -> None:
        due = _monotonic_ns() + PROBE_PERIOD_NS
        while True:
            gevent.sleep(max(0, due - _monotonic_ns()) / 1e9)
            now = _monotonic_ns()
            self._note(min(due + EVENT_LOOP_STEP_NS, now), now)
            due += PROBE_PERIOD_NS * max(1, -(-(now - due) // PROBE_PERIOD_NS))

    def _note(self, due: int, now: int) -> None:
        """Count one wake: `due` is the first moment that it was waited for."""
        lag = max(0, now - due)
        # A stall over several periods was met by each of them, the later ones for a shorter time.
        lags = range(lag, max(-1, lag - MAX_STALL_NS), -PROBE_PERIOD_NS)
        self._process.seen.loop_lag.add(lags)
        self._block.seen.loop_lag.add(lags)
        if lag >= LATE_NS and len(self._late) < MAX_LATE:
            self._late.append((now, lag))

    def _on_gc(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._gc_started = _monotonic_ns()
            return
        seconds = (_monotonic_ns() - self._gc_started) / 1e9
        for seen in (self._process.seen, self._block.seen):
            seen.gc_pauses += 1
            seen.gc_total_s += seconds
            seen.gc_max_s = max(seen.gc_max_s, seconds)

    def _waiting_s(self) -> float | None:
        """Run-queue time of the main thread: second field of /proc/PID/schedstat (sched-stats of the kernel's docs)."""
        if self._schedstat is None:
            return None
        try:
            return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return None


class _Span:
    """What was seen since a moment."""

    def __init__(self, waiting_s: float | None) -> None:
        self.seen = ProbeReport()
        self._wall_ns, self._cpu_s, self._waiting_s = _monotonic_ns(), time.process_time(), waiting_s

    def report(self, waiting_s: float | None) -> ProbeReport:
        waited = waiting_s - self._waiting_s if waiting_s is not None and self._waiting_s is not None else None
        lag = LagHistogram()
        lag.merge(self.seen.loop_lag)
        wall_s, cpu_s = (_monotonic_ns() - self._wall_ns) / 1e9, time.process_time() - self._cpu_s
        return dataclasses.replace(self.seen, wall_s=wall_s, cpu_s=cpu_s, waiting_s=waited, loop_lag=lag, late=[])


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Schedule(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class _KernelTimer:
    """timerfd_create(2): a file that becomes readable at every period of an absolute monotonic schedule.

    Python 3.13 has it as `os.timerfd_create`; older ones need ctypes. Raises OSError or AttributeError without it.
    """

    def __init__(self, period_ns: int) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError("no timerfd on this system")
        libc = ctypes.CDLL(None, use_errno=True)
        self._period_ns = period_ns
        self._due = _monotonic_ns() + period_ns
        self.fd: int = libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        schedule = _Schedule(_Timespec(*divmod(period_ns, 1_000_000_000)), _Timespec(*divmod(self._due, 1_000_000_000)))
        if libc.timerfd_settime(self.fd, TIMER_ABSTIME, ctypes.byref(schedule), None):
            self.close()
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def read(self) -> int | None:
        """Moment at which the first of the periods was due that ended since the last read; None for none."""
        try:
            (periods,) = struct.unpack("Q", os.read(self.fd, 8))
        except BlockingIOError:
            return None
        due = self._due
        self._due += periods * self._period_ns
        return due

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _open_schedstat() -> int | None:
    """The main thread's scheduling figures, where gevent's loop runs."""
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        return os.open(Path("/proc/self/schedstat"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
