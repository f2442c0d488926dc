"""What a GPU's figure can be. Drivers now and then say 808% busy, or 2^64 - 1 bytes; such a reading is no figure."""

from __future__ import annotations

from exporters.nvml import GpuProcess, Memory

LARGEST_MEMORY = 1 << 46
NO_SIZE = (2**31 - 1, 2**32 - 1)
"""Words for "none" that would pass as sizes."""
LARGEST_PID = 1 << 22
"""Linux gives no larger one."""
MOST: dict[str, float] = {
    "utilization_ratio": 1,
    "memory_bandwidth_utilization_ratio": 1,
    "power_watts": 10_000,
    "power_limit_watts": 10_000,
    "energy_joules": 10_000 * 10 * 365 * 86_400.0,
    "temperature_celsius": 150,
    "clock_hertz": 50e9,
    "throttle": 1,
    "ecc_errors": 1e9,
    "nvlink_bytes": 2.0**70,
    "pcie_bytes_per_second": 512e9,
}
"""Metric name after `bakeoff_gpu_` -> largest value, several times what any card of today has; the least is 0."""
MOST_A_SECOND = {"energy_joules": MOST["power_watts"], "nvlink_bytes": 16e12, "ecc_errors": 1e6}
"""The same of what only rises: by how much in a second."""


def possible_memory(memory: Memory) -> tuple[Memory, bool]:
    """Return the memory without what cannot be, and whether something was left out."""
    total = memory.total if memory.total and _size(memory.total, LARGEST_MEMORY) else None
    used, reserved = (
        value if value is not None and total is not None and _size(value, total) else None
        for value in (memory.used, memory.reserved)
    )
    found = Memory(total, used, reserved)
    return found, found != memory


def possible_processes(processes: list[GpuProcess], total: int | None) -> tuple[list[GpuProcess], bool]:
    """Return the processes without what cannot be, and whether something was left out. `total` is the GPU's memory."""
    most = total or LARGEST_MEMORY
    found = [
        GpuProcess(one.pid, one.used if one.used is not None and _size(one.used, most) else None)
        for one in processes
        if 0 < one.pid <= LARGEST_PID
    ]
    return found, found != processes


def _size(value: int, most: int) -> bool:
    return 0 <= value <= most and value not in NO_SIZE


class Possible:
    """Tells one GPU's possible readings from impossible ones.

    What only rises may begin anew, with the driver. So a step down, or one too far up, is believed when the next
    reading follows it.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[float, float]] = {}
        self._doubted: dict[tuple[str, str], tuple[float, float]] = {}

    def __call__(self, figure: tuple[str, str], value: float, now: float) -> bool:
        """Whether a reading of (metric, label) can be. `now` in monotonic seconds."""
        if not 0 <= value <= MOST[figure[0]]:
            return False
        most = MOST_A_SECOND.get(figure[0])
        if most is None:
            return True
        last, doubted = self._last.get(figure), self._doubted.pop(figure, None)
        if last is None or any(one and _follows(one, value, now, most) for one in (last, doubted)):
            self._last[figure] = now, value
            return True
        self._doubted[figure] = now, value
        return False


def _follows(before: tuple[float, float], value: float, now: float, most: float) -> bool:
    then, least = before
    return least <= value <= least + most * (now - then + 1)
