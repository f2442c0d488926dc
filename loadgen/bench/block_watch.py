"""Decides when a running block has no future."""

from __future__ import annotations

import time

from loadgen.distributed.messages import BlockStatus
from loadgen.hosts.base import EngineHost
from loadgen.record import REJECTIONS
from loadgen.scenario.model import Block, Scenario

HOST_CHECK_S = 2.0


class BlockFailed(Exception):
    """A block ended before it was complete; the text says why. `retry`: another attempt may do better."""

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


def last_words(host: EngineHost, engine: str) -> str:
    """How an engine ended and the last lines of its log, to go behind a reason; empty where nothing is known."""
    how, tail = host.how_it_ended(engine), host.log_tail(engine, 8)
    return (f": {how}" if how else "") + (f". The end of its log:\n{tail}" if tail else "")


class BlockWatch:
    """Watches one attempt of a block."""

    def __init__(self, scenario: Scenario, block: Block, host: EngineHost) -> None:
        self._scenario = scenario
        self._block = block
        self._host = host
        self._host_checked = time.monotonic()
        self._received = -1
        self._received_at = time.monotonic()
        self._stopped_since: float | None = None

    def judge(self, status: BlockStatus) -> BlockFailed | None:
        """Return why the block must end, or None."""
        now = time.monotonic()
        if status.lost_workers:
            return BlockFailed(f"Locust worker {status.lost_workers[0]} was lost in mid-block", retry=True)
        failure = status.last_error
        # An engine that says that it has too much to do is there: a search wants to know just that.
        rejects = self._scenario.find_capacity is not None and failure is not None and failure.kind in REJECTIONS
        if (status.failures_in_row and not rejects) or now - self._host_checked >= HOST_CHECK_S:
            self._host_checked = now
            if not self._host.is_up(self._block.engine):
                log = last_words(self._host, self._block.engine)
                return BlockFailed(f"{self._block.engine} died in mid-block{log}", retry=True)
        if status.hopeless and not rejects:
            return BlockFailed(f"every request fails; the last: {failure}", retry=False)
        if status.received != self._received:
            self._received, self._received_at = status.received, now
        silence = now - self._received_at
        if silence > self._scenario.timeouts.total_s + 30:
            return BlockFailed(f"no request ended for {silence:.0f} s", retry=False)
        if status.idle:
            # The form was accepted but users are still being spawned, or somebody pressed stop.
            self._stopped_since = self._stopped_since or now
            if now - self._stopped_since > 5.0:
                return BlockFailed("it was stopped in the web UI before it was complete", retry=False)
        else:
            self._stopped_since = None
        return None
