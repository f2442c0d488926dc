"""What a tree of processes uses: CPU time by the kernel's own clocks, and memory. Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.client.errors import CONTENT, Truth

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """The tree at one moment."""

    t_ns: int
    """CLOCK_MONOTONIC."""
    cpu_ns: int
    """User and system time of every process seen so far, all threads, ended ones included."""
    rss_bytes: int
    """Resident memory, summed: pages that processes share count once for each."""


class ProcessTree:
    """A process and what descends from it, found anew at each sample."""

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._cpu_ns: dict[int, int] = {}

    def sample(self) -> Sample:
        """Look at the tree. A child that came and went between two samples is not seen."""
        rss = 0
        for pid in self._pids():
            # The CPU clock of another process: clock_getcpuclockid(3). To the nanosecond, where proc(5) has ticks.
            with contextlib.suppress(OSError):
                self._cpu_ns[pid] = time.clock_gettime_ns((~pid << 3) | 2)
                rss += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE
        return Sample(time.monotonic_ns(), sum(self._cpu_ns.values()), rss)

    def _pids(self) -> list[int]:
        pids = [self._root]
        for pid in pids:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    pids += map(int, (task / "children").read_text(encoding="ascii").split())
        return pids


def cpu_us_per_event(samples: Sequence[Sample], truth: Truth, streams: int) -> float | None:
    """CPU of the tree per content event, in us, while all streams were open; None if that was too short.

    Taken between the first sample after the last stream had sent its first request and the last sample before the
    first stream ended for good, so nothing of the tool's start or of its evaluation is in it. Events are those that
    the server wrote in between.
    """
    start, end = loaded_window(truth, streams)
    inside = [one for one in samples if start <= one.t_ns <= end]
    if len(inside) < 2:
        return None
    first, last = inside[0], inside[-1]
    content = (truth["event_kind"] & CONTENT) != 0
    written = truth["event_after"][content]
    events = int(((written > first.t_ns) & (written <= last.t_ns)).sum())
    return (last.cpu_ns - first.cpu_ns) / 1e3 / events if events else None


def loaded_window(truth: Truth, streams: int) -> tuple[int, int]:
    """When the last of the first `streams` requests arrived, and when the first of the last `streams` answers ended."""
    whole = truth["request_outcome"] == "ok"
    arrived: npt.NDArray[np.int64] = np.sort(truth["request_t_arrived"][whole])
    ended: npt.NDArray[np.int64] = np.sort(truth["request_t_end"][whole])
    return int(arrived[streams - 1]), int(ended[-streams])
