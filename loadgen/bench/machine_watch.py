"""Looks at what else the machine does while a block runs, and tells Locust's master, who shows it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from loadgen.contention.reading import Contention
from loadgen.contention.watch import Watch
from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.errors import UserError
from loadgen.hosts.base import EngineHost
from loadgen.monitoring.gpu import gpus_of
from loadgen.runs.manifest import BlockFacts


class MachineWatch:
    """One run's blocks, one after another. Whatever cannot be read is not known, and no reason to end a block."""

    _watch: Watch
    """Of the block that runs: to make one reads the whole machine."""
    _exported: str

    def __init__(
        self,
        run_id: str,
        host: EngineHost,
        locust: LocustClient,
        prometheus_url: str | None,
        beside: Callable[[], list[int]] = list,
    ) -> None:
        """`prometheus_url`: who knows of the GPUs; None for nobody. `beside`: the processes of what runs together with
        the blocks, which is no stranger."""
        self._beside = beside
        self._run_id, self._host, self._locust, self._prometheus_url = run_id, host, locust, prometheus_url

    def begin(self, engine: str, exported: str) -> None:
        """A block of this engine begins; `exported` is what the GPU exporter calls it."""
        self._exported = exported
        stack = [os.getpid(), *_known(self._host.stack_pids), *self._beside()]
        self._watch = Watch(_known(lambda: self._host.pids(engine)), _known(self._locust.pids), stack)

    def look(self, facts: BlockFacts) -> None:
        """To be called a few times a second while it runs."""
        self._watch.look()
        if (so_far := self._watch.peek()) is not None:
            self._tell(facts, so_far)

    def end(self, facts: BlockFacts) -> None:
        """It has ended: keep the reading in its facts."""
        self._watch.look()
        gpus = gpus_of(self._exported, self._prometheus_url, facts.started_at, time.time())
        facts.contention = self._watch.reading(gpus)
        self._tell(facts, facts.contention)

    def _tell(self, facts: BlockFacts, reading: Contention) -> None:
        with contextlib.suppress(LocustGone):  # it is in the manifest, and whoever asks next finds out
            self._locust.tell_contention(self._run_id, facts.record_id, reading)


def _known(pids: Callable[[], list[int]]) -> list[int]:
    try:
        return pids()
    except UserError:  # the block itself will tell
        return []
