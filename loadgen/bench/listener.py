"""Who watches a race: what the campaign tells them."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.distributed.status import BlockStatus
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.model import Block


class Listener:
    """What the campaign tells whoever watches it. Every method may be overridden; the defaults say nothing."""

    def message(self, text: str) -> None:
        """Something happened that a person should know."""

    def engine(self, name: str, text: str) -> None:
        """Progress of an engine's start."""

    def block(self, block: Block, number: int, total: int, status: BlockStatus) -> None:
        """Progress of a block."""

    def block_ended(self, block: Block, number: int, total: int, facts: BlockFacts) -> None:
        """A block ended."""


class Listeners(Listener):
    """Tells several."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def message(self, text: str) -> None:
        """Something happened that a person should know."""
        for listener in self._listeners:
            listener.message(text)

    def engine(self, name: str, text: str) -> None:
        """Progress of an engine's start."""
        for listener in self._listeners:
            listener.engine(name, text)

    def block(self, block: Block, number: int, total: int, status: BlockStatus) -> None:
        """Progress of a block."""
        for listener in self._listeners:
            listener.block(block, number, total, status)

    def block_ended(self, block: Block, number: int, total: int, facts: BlockFacts) -> None:
        """A block ended."""
        for listener in self._listeners:
            listener.block_ended(block, number, total, facts)
