"""Decides when a running block has no future."""

from __future__ import annotations

import time

from loadgen.distributed.status import BlockStatus
from loadgen.hosts.base import EngineHost
from loadgen.message import Message, say
from loadgen.record import REJECTIONS
from loadgen.scenario.model import Block, Scenario

HOST_CHECK_S = 2.0


class BlockFailed(Exception):
    """A block ended before it was complete; the text says why. `retry`: another attempt may do better."""

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


def with_last_words(what: Message, host: EngineHost, engine: str) -> Message:
    """Put behind what became of an engine how it ended, and the last lines of its log, as far as they are known."""
    how, tail = host.how_it_ended(engine), host.log_tail(engine, 8)
    what = say("{what}: {reason}", what=what, reason=how) if how else what
    return say("{how}. The end of its log:\n{log}", how=what, log=tail) if tail else what


class BlockWatch:
    """Watches one attempt of a block."""

    def __init__(self, scenario: Scenario, block: Block, host: EngineHost) -> None:
        self._scenario = scenario
        self._block = block
        self._host = host
        self._host_checked = time.monotonic()
        self._silent = False
        """Whether the engine did not answer when it was last asked."""
        self._received = -1
        self._received_at = time.monotonic()
        self._stopped_since: float | None = None

    def judge(self, status: BlockStatus) -> BlockFailed | None:
        """Return why the block must end, or None."""
        now = time.monotonic()
        if status.problem is not None or status.lost_workers:
            lost = say("Locust worker {worker} was lost in mid-block", worker=(status.lost_workers or [""])[0])
            return BlockFailed(status.problem or lost, retry=status.problem is None)
        failure = status.last_error
        # An engine that says that it has too much to do is there: a search wants to know just that.
        rejects = self._scenario.find_capacity is not None and failure is not None and failure.kind in REJECTIONS
        failing = bool(status.failures_in_row) and not rejects
        if failing or self._silent or now - self._host_checked >= HOST_CHECK_S:
            self._host_checked = now
            died = self._look()
            if died is not None or self._silent:
                return died
        if status.hopeless and not rejects:
            return BlockFailed(say("every request fails; the last: {error}", error=failure), retry=False)
        if status.received != self._received:
            self._received, self._received_at = status.received, now
        silence = now - self._received_at
        if silence > self._scenario.timeouts.total_s + 30:
            return BlockFailed(say("no request ended for {seconds} s", seconds=f"{silence:.0f}"), retry=False)
        if status.idle:
            # The form was accepted but users are still being spawned, or somebody pressed stop.
            self._stopped_since = self._stopped_since or now
            if now - self._stopped_since > 5.0:
                return BlockFailed(say("it was stopped in the web UI before it was complete"), retry=False)
        else:
            self._stopped_since = None
        return None

    def _look(self) -> BlockFailed | None:
        """See whether the engine is there. A busy machine may hold up one answer, not two in a row."""
        was_silent, self._silent = self._silent, not self._host.is_up(self._block.engine)
        if not (was_silent and self._silent):
            return None
        died = say("{engine} died in mid-block", engine=self._block.engine)
        return BlockFailed(with_last_words(died, self._host, self._block.engine), retry=True)
