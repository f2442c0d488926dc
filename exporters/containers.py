"""The engines' containers: which is whose, and what each uses.

No exporter may ask Docker. Which container is which engine stands in a file that `make up` writes; what one uses is
read from a tree of control groups, this machine's own or one that is mounted.
Its files: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.current, memory.stat, cpu.stat) and, for version
1, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html and cpuacct.html.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SEARCH_EVERY_S = 10.0
"""Pause between searches through the whole tree: a stopped container has no group, and stays not found."""
DEPTH = 4
"""Levels that are searched. Docker's containers lie on the second, or on that of a parent that its user chose."""
USUAL = ("docker/{}", "system.slice/docker-{}.scope")
"""Where Docker makes a container's group, without and with systemd."""
CONTAINER = re.compile(r"[0-9a-f]{64}[^/]*$")
SHORTEST_ID = 12
OPTION_HELP = (
    "JSON object of container id: engine, read again and again; while it is missing or broken no container is known, "
    "and the log says so once"
)


@dataclasses.dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container uses at one moment; None where its group does not tell."""

    memory_bytes: int | None
    """All that is charged to it, with the files that the kernel keeps in memory for it."""
    working_set_bytes: int | None
    """That without files that were not used of late: what is left when memory gets scarce."""
    cpu_seconds: float | None
    """User and system time since the container was started."""


class Cgroups:
    """Finds containers in a tree of control groups of either version, and reads them. For one thread at a time.

    Args:
        root: the tree, as it is at /sys/fs/cgroup.
        clock: monotonic seconds.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._places: dict[str, str] = {}
        self._searched: list[str] = []
        self._next_search = float("-inf")

    def usage(self, container: str) -> ContainerUsage | None:
        """What the container of an id, whole or shortened, uses; None where it has no group: it does not run."""
        version2 = (self._root / "cgroup.controllers").is_file()
        memory, cpu = (self._root, self._root) if version2 else (self._root / "memory", self._cpu_of_version1())
        place = self._place(container, memory)
        if place is None:
            return None
        if version2:
            cpu_us = _field(cpu / place / "cpu.stat", "usage_usec")
            cpu_seconds = None if cpu_us is None else cpu_us / 1e6
            charged = _number(memory / place / "memory.current")
            unused = _field(memory / place / "memory.stat", "inactive_file")
        else:
            cpu_ns = _number(cpu / place / "cpuacct.usage")
            cpu_seconds = None if cpu_ns is None else cpu_ns / 1e9
            charged = _number(memory / place / "memory.usage_in_bytes")
            unused = _field(memory / place / "memory.stat", "total_inactive_file")
        working_set = None if charged is None or unused is None else max(charged - unused, 0)
        return ContainerUsage(charged, working_set, cpu_seconds)

    def _cpu_of_version1(self) -> Path:
        """The hierarchy of CPU times; it mostly shares one with `cpu`, and which name comes first differs."""
        names = ("cpuacct", "cpu,cpuacct", "cpuacct,cpu")
        return next((self._root / name for name in names if (self._root / name).is_dir()), self._root / names[0])

    def _place(self, container: str, hierarchy: Path) -> str | None:
        """The group's path below its hierarchy."""
        known = self._places.get(container)
        for place in (*([known] if known else []), *(usual.format(container) for usual in USUAL)):
            if (hierarchy / place).is_dir():
                self._places[container] = place
                return place
        self._places.pop(container, None)
        now = self._clock()
        if now >= self._next_search:
            self._next_search = now + SEARCH_EVERY_S
            self._searched = [place for place in _folders(hierarchy, DEPTH) if CONTAINER.search(place)]
        for place in self._searched:
            if _is_of(place, container) and (hierarchy / place).is_dir():
                self._places[container] = place
                return place
        return None


def _is_of(place: str, container: str) -> bool:
    """Whether a group is the container's own: runtimes put a word before the id, and `.scope` behind it."""
    name = place.rpartition("/")[2].removesuffix(".scope")
    return name.rpartition("-")[2].startswith(container)


def _folders(top: Path, depth: int) -> Iterator[str]:
    """Paths of all folders below `top`, down to `depth` levels."""
    try:
        with os.scandir(top) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in names:
        yield name
        if depth > 1:
            yield from (f"{name}/{below}" for below in _folders(top / name, depth - 1))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    """The number behind a name, in a file of `name number` lines."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
    except (OSError, ValueError, IndexError):
        return None


def read_container_map(path: Path) -> dict[str, str]:
    """Read `{container id: engine}`; ids may be shortened to 12 digits. Raises ValueError and OSError."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object of container id: engine")
    for container, engine in found.items():
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},64}}", container) or not isinstance(engine, str) or not engine:
            raise ValueError(f"{container!r} is no container id of {SHORTEST_ID} to 64 digits, or has no engine's name")
    return found


class ContainerMap:
    """What the file says now. A file that cannot be read is an empty one; why is logged when it changes."""

    def __init__(self, path: Path, log: logging.Logger) -> None:
        self._path, self._log = path, log
        self._complaint = ""

    def engines(self) -> dict[str, str]:
        """Engine of each container, by id."""
        try:
            engines, complaint = read_container_map(self._path), ""
        except (OSError, ValueError) as error:
            engines, complaint = {}, str(error)
        if complaint != self._complaint:
            self._complaint = complaint
            if complaint:
                fields = {"file": str(self._path), "reason": complaint}
                self._log.warning("container_map_unreadable", extra={"fields": fields})
        return engines


class Containers:
    """The engines' containers, of which another process writes down which is whose."""

    def __init__(self, names: ContainerMap, cgroups: Cgroups) -> None:
        self._names, self._cgroups = names, cgroups

    def usage(self, engine: str) -> ContainerUsage | None:
        """What the engine's container uses; None where it has none, or none that runs."""
        own = [container for container, name in self._names.engines().items() if name == engine]
        return next((usage for container in own if (usage := self._cgroups.usage(container))), None)
