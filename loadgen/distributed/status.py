"""What Locust's master tells the campaign. Apart from `messages`: a worker needs none of what this loads."""

from __future__ import annotations

from pydantic import Field

from loadgen.client.verdict import ClientVerdict
from loadgen.traffic.block_state import BlockProgress
from loadgen.validation import Words


class BlockStatus(BlockProgress):
    """How things stand with the master, and with the block that runs or ran last; what `/bakeoff/block` gives."""

    state: str = "ready"
    """Locust's own word for it."""
    workers: int = 0
    users: int = 0
    lost_workers: list[str] = Field(default_factory=list)
    """Workers that went away while the block ran."""
    ended_workers: dict[str, int] = Field(default_factory=dict)
    """Records that each worker says it sent, told when it has stopped."""
    unconfirmed_workers: list[str] = Field(default_factory=list)
    """Workers that records came from, and that have neither stopped nor been lost."""
    refused: dict[str, int] = Field(default_factory=dict)
    """What was not let in at the master's port since it started, by kind."""
    problem: Words | None = None
    """Why the block has no future: a worker cannot take part, or sent a record that cannot be."""
    write_error: str | None = None
    """Why records cannot be written."""
    client: ClientVerdict | None = None
    """Whether the load generator was the limit, once the block has ended."""

    @property
    def idle(self) -> bool:
        """Whether the master waits for a block."""
        return self.state in ("ready", "stopped")
