"""Which engine a process on a GPU belongs to: by its container, its launch, the process tree it is in, or its port."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from exporters.containers import ContainerMap
from exporters.process_tree import ProcessTree, serving_port

OTHER = "other"
"""The owner of processes that are no engine's."""
RETRY_FIRST_S, RETRY_LAST_S = 2.0, 60.0
"""An unknown process is asked about anew after these pauses: engines use the GPU long before they listen."""
REFRESH_EVERY_S = 1.0
FORGET_AFTER_S = 30.0
"""A process that no GPU was asked about for this long is gone from them all."""
CLOCK_SLACK_S = 2.0
"""A process' start is told by another clock than the wall's, and in ticks."""
PORT = "port-{}"
"""What an engine is called of which nothing but the port it listens on is known."""
RECORDS = "launch-{}.json"
"""What a launch record is called of the engine that it tells of."""
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("exporters.gpu")


def containers_of(cgroup: str) -> list[str]:
    """Ids of the containers in the text of `/proc/PID/cgroup` (cgroups(7)), innermost last.

    Docker, Podman, containerd and CRI-O all name a container's cgroup by its id, of 64 hexadecimal digits.
    """
    return CONTAINER_ID.findall(cgroup)


def launched_pids(folder: Path) -> dict[str, int]:
    """Engine -> pid at the top of its latest launch, by the launch records in a folder; those that have ended too.

    An engine is told from its start on, long before it listens. A pid that another process has taken over was started
    after the record was written.
    """
    found = {}
    for path in sorted(folder.glob(RECORDS.format("*"))):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            pid, written = int(record["pid"]), float(record["started_unix_s"])
            if psutil.Process(pid).create_time() <= written + CLOCK_SLACK_S:
                found[path.stem.removeprefix(RECORDS.partition("{")[0])] = pid
        except (OSError, ValueError, TypeError, KeyError, psutil.Error):
            continue
    return found


@dataclasses.dataclass(slots=True)
class _Known:
    process: psutil.Process
    engine: str | None = None
    guess: str | None = None
    """By its port: what starts up may have opened another one so far."""
    retry_at: float = 0.0
    pause: float = RETRY_FIRST_S


class GpuOwners:
    """Maps pids to engines, and remembers.

    `engines_of` answers at once from what is known; `run` finds out, in a thread of its own, because looking for a
    listener may wait for the kernel and for name servers.

    Args:
        pids: engine -> pid of the top of its process tree.
        trees: engine -> the tree of the service that listens at its URL.
        container_map: file of `ContainerMap`; read again whenever a process is unknown.
        records: folder of launch records (`launched_pids`); read again likewise.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        pids: Mapping[str, int],
        trees: Mapping[str, ProcessTree],
        container_map: Path | None = None,
        records: Path | None = None,
        *,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pids, self._trees, self._records = pids, trees, records
        self._containers = ContainerMap(container_map, log) if container_map else None
        self._proc, self._clock = proc, clock
        self._asked: dict[int, float] = {}
        self._known: dict[int, _Known] = {}
        self._engines: dict[int, str] = {}

    def engines_of(self, pids: Sequence[int]) -> dict[int, str]:
        """Return the engine, or OTHER, of each pid; a pid that is new is left out until the next `refresh`.

        GPUs are asked about one after the other, so each call adds to what the others asked for.
        """
        now = self._clock()
        self._asked |= dict.fromkeys(pids, now)
        engines = self._engines
        return {pid: engines[pid] for pid in pids if pid in engines}

    def run(self, stop: threading.Event) -> None:
        """Refresh until `stop` is set."""
        if self._containers:
            self._containers.engines()  # a file that is not there is said at once
        while not stop.wait(REFRESH_EVERY_S):
            self.refresh()

    def refresh(self) -> None:
        """Find out about the pids asked for of late, and forget the others. For one thread."""
        oldest = self._clock() - FORGET_AFTER_S
        for pid in [pid for pid, at in self._asked.copy().items() if at < oldest]:
            self._asked.pop(pid, None)
        asked = self._asked.copy()
        self._known = {pid: known for pid, known in self._known.items() if pid in asked}
        self._engines = {pid: self._engine_of(pid) or OTHER for pid in asked}

    def _engine_of(self, pid: int) -> str | None:
        now = self._clock()
        known = self._known.get(pid)
        if known is None or not known.process.is_running():  # a pid may be another process by now
            try:
                known = self._known[pid] = _Known(psutil.Process(pid))
            except psutil.Error:
                self._known.pop(pid, None)
                return None  # not of this pid namespace, or just gone
        if known.engine is None and now >= known.retry_at:
            known.engine = self._by_container(pid) or self._by_tree(known.process)
            known.guess = known.engine or _by_port(known.process)
            known.retry_at, known.pause = now + known.pause, min(known.pause * 2, RETRY_LAST_S)
        return known.engine or known.guess

    def _by_container(self, pid: int) -> str | None:
        if self._containers is None:
            return None
        engines = self._containers.engines()
        try:
            inside = containers_of((self._proc / str(pid) / "cgroup").read_text(encoding="utf-8"))
        except OSError:
            return None
        for container in reversed(inside):
            for id_, engine in engines.items():
                if container.startswith(id_):
                    return engine
        return None

    def _by_tree(self, process: psutil.Process) -> str | None:
        roots = dict(self._pids) | (launched_pids(self._records) if self._records else {})
        for engine, tree in self._trees.items():
            root = tree.find(answers=False)
            if root is not None:
                roots[engine] = root.pid
        try:
            lineage = [process.pid, *(parent.pid for parent in process.parents())]
        except psutil.Error:
            return None
        by_root = {root: engine for engine, root in roots.items()}
        return next((by_root[pid] for pid in lineage if pid in by_root), None)


def _by_port(process: psutil.Process) -> str | None:
    port = serving_port(process)
    return None if port is None else PORT.format(port)
