"""What the kernel tells of cores, processes and control groups. Parsers are pure; `Kernel` reads, and what is not there
is None.

Formats: proc(5), https://docs.kernel.org/scheduler/sched-stats.html, https://docs.kernel.org/accounting/psi.html,
https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.stat, *.pressure).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from loadgen.machine import parse_cpus

TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
STOPPED = frozenset("Tt")
"""States of a process that a signal or a tracer has stopped."""
THROTTLES = ("core_throttle_count", "package_throttle_count")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Core:
    """One core's time since boot, in ticks."""

    busy: int
    """In processes, the kernel's own among them. Interrupts are left out: they are in nobody's CPU time."""
    steal: int
    """Taken by the hypervisor."""
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat."""

    name: str
    state: str
    parent: int
    cpu: int
    """Ticks, those of children that were waited for included."""
    started: int
    """Ticks after boot: with the pid it names a process for good."""
    alone: int = 0
    """Ticks of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Quota:
    """How often a control group was to be held to its CPU quota, and was."""

    periods: int
    throttled: int


def parse_cores(text: str) -> dict[int, Core]:
    """/proc/stat: time by core. Raises ValueError for what is none."""
    found = {}
    for line in text.splitlines():
        name, *rest = line.split() or [""]
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, idle, wait, irq, soft, steal = [*map(int, rest[:8]), *[0] * 8][:8]
            busy = user + nice + system
            found[int(name[3:])] = Core(busy, steal, busy + idle + wait + irq + soft + steal)
    if not found:
        raise ValueError("no core's time")
    return found


def parse_process(text: str) -> Process:
    """/proc/PID/stat. Its name may hold spaces and brackets. Raises ValueError for what is none."""
    before, bracket, after = text.rpartition(")")
    _, opened, name = before.partition("(")
    fields = after.split()
    if not bracket or not opened or len(fields) < 20:
        raise ValueError("not a process")
    ticks = [int(field) for field in fields[11:15]]
    return Process(name, fields[0], int(fields[1]), sum(ticks), int(fields[19]), sum(ticks[:2]))


def parse_schedule(text: str) -> tuple[int, int]:
    """/proc/PID/schedstat: ns on a CPU, and ns ready to run without one. Raises ValueError for what is none."""
    run, wait, *_ = map(int, text.split())
    return run, wait


def parse_pressure(text: str) -> dict[str, int]:
    """A pressure file: us for which some or all tasks stood still, by `some` and `full`. Raises ValueError."""
    found = {}
    for line in text.splitlines():
        kind, *fields = line.split() or [""]
        for field in fields:
            name, _, value = field.partition("=")
            if name == "total":
                found[kind] = int(value)
    if not found:
        raise ValueError("no pressure")
    return found


def parse_groups(text: str) -> dict[str, str]:
    """/proc/PID/cgroup: the path in each hierarchy of version 1 by controller, and in that of version 2 by ``."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            found |= dict.fromkeys(controllers.split(","), path)
    return found


def parse_quota(text: str) -> Quota:
    """cpu.stat of a control group of either version. Raises ValueError where it counts no periods."""
    fields = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    if "nr_periods" not in fields:
        raise ValueError("no quota")
    return Quota(int(fields["nr_periods"]), int(fields["nr_throttled"]))


def tree(processes: Mapping[int, Process], roots: Iterable[int]) -> frozenset[int]:
    """The processes among these, and all their descendants."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    left = [pid for pid in roots if pid in processes]
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += children.get(pid, [])
    return frozenset(found)


class Kernel:
    """Reads this machine. What cannot be read, or is of another form, is None or left out."""

    def __init__(self, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self._proc, self._sys = str(proc), str(sys)

    def cores(self) -> dict[int, Core] | None:
        """Time by core."""
        return self._read(f"{self._proc}/stat", parse_cores)

    def process(self, pid: int) -> Process | None:
        """One process as it is now."""
        return self._read(f"{self._proc}/{pid}/stat", parse_process)

    def processes(self) -> dict[int, Process]:
        """All processes that can be seen."""
        found = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._proc):  # noqa: PTH208 - a Path for each of thousands costs
                if name.isdigit() and (process := self.process(int(name))) is not None:
                    found[int(name)] = process
        return found

    def waits(self, pid: int) -> dict[int, int]:
        """Of each thread of a process, ns for which it was ready to run and had no CPU."""
        found = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{self._proc}/{pid}/task"):  # noqa: PTH208
                schedule = self._read(f"{self._proc}/{pid}/task/{name}/schedstat", parse_schedule)
                if schedule is not None:
                    found[int(name)] = schedule[1]
        return found

    def affinity(self, pid: int) -> frozenset[int] | None:
        """The cores that a process may run on."""

        def allowed(text: str) -> frozenset[int]:
            lines = [line.partition(":")[2] for line in text.splitlines() if line.startswith("Cpus_allowed_list:")]
            return frozenset(parse_cpus("".join(lines)))

        return self._read(f"{self._proc}/{pid}/status", allowed)

    def groups(self, pid: int) -> dict[str, str]:
        """The control groups of a process."""
        return self._read(f"{self._proc}/{pid}/cgroup", parse_groups) or {}

    def quota(self, groups: Mapping[str, str]) -> Quota | None:
        """Of the groups that a process is in, the one that was throttled most; None where none has a quota."""
        mounts = (("cpu", "cpu"), ("cpu", "cpu,cpuacct"), ("", "."), ("", "unified"))
        found = []
        for controller, mount in mounts:
            path = groups.get(controller, "/").strip("/")
            while path:
                quota = self._read(f"{self._sys}/fs/cgroup/{mount}/{path}/cpu.stat", parse_quota)
                found += [quota] if quota is not None else []
                path = path.rpartition("/")[0]
        return max(found, key=lambda quota: quota.throttled, default=None)

    def pressure(self, what: str, groups: Mapping[str, str] | None = None) -> dict[str, int] | None:
        """Pressure on `cpu`, `memory` or `io`: of a process' own group where it has one that tells, else the
        machine's."""
        path = (groups or {}).get("", "/").strip("/")
        for mount in ("", "unified/") if path else ():
            found = self._read(f"{self._sys}/fs/cgroup/{mount}{path}/{what}.pressure", parse_pressure)
            if found is not None:
                return found
        return self._read(f"{self._proc}/pressure/{what}", parse_pressure)

    def megahertz(self, cpus: Iterable[int]) -> float | None:
        """Mean clock of the cores that tell it."""
        found = [self._read(f"{self._cpu(cpu)}/cpufreq/scaling_cur_freq", int) for cpu in cpus]
        known = [value / 1e3 for value in found if value is not None]
        return sum(known) / len(known) if known else None

    def heats(self, cpus: Iterable[int]) -> int | None:
        """How often the clocks of these cores were held down because it was too hot."""
        found = [self._read(f"{self._cpu(cpu)}/thermal_throttle/{name}", int) for cpu in cpus for name in THROTTLES]
        known = [value for value in found if value is not None]
        return sum(known) if known else None

    def _cpu(self, cpu: int) -> str:
        return f"{self._sys}/devices/system/cpu/cpu{cpu}"

    def _read(self, path: str, parse: Callable[[str], T]) -> T | None:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - read again and again
                return parse(file.read())
        except (OSError, ValueError):
            return None
