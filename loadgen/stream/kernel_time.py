"""When the kernel received a segment (Linux, plain TCP), in this process's monotonic nanoseconds.

`SO_TIMESTAMPNS` makes `recvmsg` tell, as CLOCK_REALTIME, when the last segment that a read took from was
received: socket(7), and Documentation/networking/timestamping.rst of the Linux kernel. So an event's time is
right however late this process gets to read it, as long as the next one has not come: segments that wait unread are
merged in the receive queue (tcp_try_coalesce in net/ipv4/tcp_input.c), and then only the last one's stamp is left.
Such events share one arrival time in the record.

CLOCK_MONOTONIC and CLOCK_REALTIME are slewed by NTP alike, so their difference changes only when the wall clock
is stepped. It is sampled again every second, and at once when a stamp would lie in the future or far in the past.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

SO_TIMESTAMPNS = 35
"""The same on every architecture that Python runs on under Linux, but for PA-RISC and SPARC."""
SCM_TIMESTAMPNS = SO_TIMESTAMPNS
_timespec = struct.Struct("@qq" if struct.calcsize("l") == 8 else "@ll")
ANCILLARY_BYTES = socket.CMSG_SPACE(_timespec.size) if hasattr(socket, "CMSG_SPACE") else 0

RESAMPLE_NS = 1_000_000_000
SUSPICIOUS_NS = 500_000_000
_monotonic_ns = time.monotonic_ns


def enable(sock: socket.socket) -> bool:
    """Ask for stamps on a connected plain TCP socket; returns whether the system gives them."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        return sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS) == 1
    except OSError:
        return False


def sample_offset_ns(tries: int = 5) -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC in ns, from the tightest of a few bracketed readings."""
    best_width, best = 1 << 62, 0
    for _ in range(tries):
        before = _monotonic_ns()
        wall = time.time_ns()
        after = _monotonic_ns()
        if after - before < best_width:
            best_width, best = after - before, wall - (before + after) // 2
    return best


class ArrivalClock:
    """Turns the ancillary data of `recvmsg` into monotonic ns. One a process is enough."""

    __slots__ = ("_offset", "_resample_at")

    def __init__(self) -> None:
        self._offset = sample_offset_ns()
        self._resample_at = _monotonic_ns() + RESAMPLE_NS

    def arrival_ns(self, ancillary: list[tuple[int, int, bytes]], now: int) -> int | None:
        """Arrival of a read's last segment, at most `now` (the moment the read returned); None without a stamp."""
        for level, kind, data in ancillary:
            if kind == SCM_TIMESTAMPNS and level == socket.SOL_SOCKET and len(data) >= _timespec.size:
                seconds, nanoseconds = _timespec.unpack_from(data)
                wall = seconds * 1_000_000_000 + nanoseconds
                break
        else:
            return None
        if now >= self._resample_at:
            self._resample(now)
        arrival = int(wall - self._offset)
        if not now - SUSPICIOUS_NS <= arrival <= now:
            self._resample(now)
            arrival = int(wall - self._offset)
        return min(arrival, now)

    def _resample(self, now: int) -> None:
        self._offset = sample_offset_ns()
        self._resample_at = now + RESAMPLE_NS
