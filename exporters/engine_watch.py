"""What is known of one engine, kept fresh in the background: what it answers, and what it uses."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence

import aiohttp

from exporters.containers import Containers, ContainerUsage
from exporters.probe import EngineProbe, Identity, ProbeError
from exporters.process_tree import ProcessTree, TreeSample
from exporters.targets import Target

IDENTITY_EVERY_S = 30.0

log = logging.getLogger("exporters.engine")


class EngineWatch:
    """Watches one engine by two loops. It is up when it answers its health check, and ready when it lists a model too.

    Args:
        target: the engine.
        interval: seconds between questions.
        others: all watches, so that no process tree swallows another engine's.
        containers: where engines run in containers whose processes are not to be seen; None elsewhere.
    """

    def __init__(
        self, target: Target, interval: float, others: Sequence[EngineWatch], containers: Containers | None = None
    ) -> None:
        self.target, self.interval = target, interval
        self.reachable = self.up = self.ready = False
        self.identity: Identity | None = None
        self.sample: TreeSample | None = None
        self.container: ContainerUsage | None = None
        self.errors = 0
        self._others, self._containers = others, containers
        self._identity_due = -math.inf
        self._last_error = ""
        self.tree = ProcessTree(target.host, target.port, others=self._other_listeners, since=time.time())

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of the engine's container, or of its process trees so far; None before one was ever found."""
        if self.container is not None:
            return self.container.cpu_seconds
        return self.tree.cpu.total if self.sample is not None or self.tree.cpu.total > 0 else None

    def _other_listeners(self) -> list[int]:
        return [watch.tree.listener_pid for watch in self._others if watch is not self and watch.tree.listener_pid]

    async def watch_answers(self, session: aiohttp.ClientSession) -> None:
        """Ask for health and identity, for ever."""
        probe = EngineProbe(session, self.target.url)
        async for _ in ticks(self.interval):
            healthy: bool | None = False
            try:
                healthy = await probe.healthy()
            except ProbeError as error:
                self._note_error(str(error))
            self.reachable = healthy is not None
            if bool(healthy) != self.up:
                self.up, self.ready, self.identity = bool(healthy), False, None
                self._log("engine_up" if self.up else "engine_down", url=self.target.url)
                if self.up:
                    self._last_error = ""
                    self._identity_due = -math.inf
            if self.up and time.monotonic() >= self._identity_due:
                await self._identify(probe)

    async def _identify(self, probe: EngineProbe) -> None:
        try:
            identity = await probe.identity()
        except ProbeError as error:
            self.ready = False
            self._note_error(str(error))
            self._identity_due = time.monotonic() + self.interval
            return
        if identity != self.identity:
            told = {"version": identity.version, "model": identity.model, "context_tokens": identity.context_tokens}
            self._log("engine_identity", **told)
        self.identity, self.ready = identity, identity.model is not None
        self._identity_due = time.monotonic() + (IDENTITY_EVERY_S if self.ready else self.interval)

    async def watch_usage(self) -> None:
        """Measure the container or the process tree, for ever. Either may wait for the kernel: in a thread."""
        seen: int | None = None
        async for _ in ticks(self.interval):
            try:
                await asyncio.to_thread(self._measure)
            except Exception as error:  # a defect here must not end the watch, and must show
                self.sample = self.container = None
                self._note_error(f"usage: {error!r}")
            if self.tree.root_pid != seen:
                seen = self.tree.root_pid
                self._log("process_found" if seen else "process_gone", pid=seen, listener=self.tree.listener_pid)

    def _measure(self) -> None:
        self.container = self._containers.usage(self.target.name) if self._containers else None
        self.sample = None if self._containers else self.tree.sample(answers=self.up)

    def _note_error(self, text: str) -> None:
        self.errors += 1
        if text != self._last_error:  # an engine that hangs for an hour is one line, not 3600
            self._last_error = text
            log.warning("probe_failed", extra={"fields": {"engine": self.target.name, "reason": text}})

    def _log(self, event: str, **fields: object) -> None:
        log.info(event, extra={"fields": {"engine": self.target.name, **fields}})


async def ticks(interval: float) -> AsyncIterator[None]:
    """Yield every `interval` seconds on a fixed schedule; ticks that were missed are left out."""
    due = time.monotonic()
    while True:
        yield
        now = time.monotonic()
        due = max(due + interval, now)
        await asyncio.sleep(due - now)
