"""What `bench` shows in a terminal while it runs."""

from __future__ import annotations

import time

from rich.console import Console

from loadgen.bench.listener import Listener
from loadgen.contention.rule import words
from loadgen.distributed.status import BlockStatus
from loadgen.presentation.progress import StatusLine
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.model import Block

LEAST_MEASURED, LEAST_SHARE = 3, 0.1
"""Requests, and their share of a block, that must have been measured before its pace is told."""


class BenchProgress(StatusLine, Listener):
    """Progress of `bakeoff bench`, with the time that is left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._block_started: tuple[str, float] = ("", 0.0)
        self._measuring_since: tuple[float, int] | None = None
        """When the block was first seen with its warm-up behind it, and how much was measured by then."""
        self._durations: list[float] = []
        self._ended: float | None = None
        self._pauses: list[float] = []
        """Between two blocks: what engines took to start."""

    def message(self, text: str) -> None:
        """Print what happened."""
        self.tell(text, style="yellow")

    def engine(self, name: str, text: str) -> None:
        """Show an engine's start."""
        self.line(text if text.startswith(name) else f"{name}: {text}")

    def block(self, block: Block, number: int, total: int, status: BlockStatus) -> None:
        """Show a block's progress."""
        if self._block_started[0] != block.id:
            now = time.monotonic()
            if self._ended is not None:
                self._pauses.append(now - self._ended)
            self._block_started, self._measuring_since, self._ended = (block.id, now), None, None
        if status.warmed_up and self._measuring_since is None:
            self._measuring_since = time.monotonic(), status.measured
        errors = sum(status.errors.values())
        measured = f"{status.measured}/{status.wanted}" if status.warmed_up else "warming up"
        self.line(
            f"{_position(number, total)} {block.name} {_cell(block)}: {measured}"
            + (f", {errors} errors" if errors else "")
            + self._left(number, total, status)
        )

    def block_ended(self, block: Block, number: int, total: int, facts: BlockFacts) -> None:
        """Print a block's outcome."""
        seconds = (facts.ended_at or facts.started_at) - facts.started_at
        if facts.status == "complete":
            self._durations.append(seconds / (1 + len(facts.beside)))  # of the race's time
        self._ended = time.monotonic()
        self.tell(
            f"{_position(number, total)} {block.name} {_cell(block)}: {facts.status} in {seconds:.1f} s"
            + (", client-limited" if facts.client_limited else "")
            + _machine(facts)
            + ("" if facts.attempt == 1 else f" (attempt {facts.attempt})"),
            style=None if facts.status == "complete" else "yellow",
        )

    def _left(self, number: int, total: int, status: BlockStatus) -> str:
        """Time left: this block's by its measured requests' pace, the others' by the mean of those completed.

        What lay between two blocks counts, too: where each turn starts an engine afresh, that is most of the time.
        """
        now, wanted = time.monotonic(), status.wanted or 0
        running = now - self._block_started[1]
        since, before = self._measuring_since or (now, 0)
        measured = status.measured - before
        # The first few say little: what was waited for before them is not how long each takes.
        if measured >= max(LEAST_MEASURED, LEAST_SHARE * wanted):
            own = (now - since) / measured * max(wanted - status.measured, 0)
        elif self._durations:
            own = max(sum(self._durations) / len(self._durations) - running, 0)
        else:
            return ""
        durations = self._durations or [running + own]
        if not total:
            return f", about {own:.0f} s left of this step"
        pause = sum(self._pauses) / len(self._pauses) if self._pauses else 0.0
        left = own + (sum(durations) / len(durations) + pause) * (total - number)
        return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"


def _machine(facts: BlockFacts) -> str:
    """What else the machine did, in a word and the gravest finding."""
    if facts.contention is None or not facts.contention.findings:
        return ""
    what = words(facts.contention.findings[0])
    return f", {what} (decides nothing)" if facts.contention.void else f", {what}"


def _position(number: int, total: int) -> str:
    return f"[{number}/{total}]" if total else f"[step {number}]"


def _cell(block: Block) -> str:
    cell = block.cell
    return f"{cell.prompt_tokens} prompt tokens x {cell.load_text}"
