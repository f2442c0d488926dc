"""What crosses the borders between campaign, master and workers beside Locust's own messages (and `BlockPlan`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from loadgen.client.health import ProbeReport
from loadgen.traffic.block_state import BlockProgress

REQUEST_FIELD = "block_request"
"""Field of Locust's start form in which a campaign sends its `BlockRequest`, as JSON."""
PLAN_OPTION = "plan"
"""Option of Locust's that carries the `BlockPlan` from the master to the workers, as JSON."""

RECORDS_MESSAGE = "bakeoff_records"
"""`records`: request records as plain data."""
PULSE_MESSAGE = "bakeoff_pulse"
"""A `Pulse`."""
BLOCK_END_MESSAGE = "bakeoff_block_end"
"""A `BlockEnd`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pulse:
    """How a worker fares."""

    worker: str
    in_flight: int
    events: int
    """Content events that it has read since it started; likewise its CPU time."""
    cpu_seconds: float
    run_id: str | None
    block: str | None
    """The block that `probe` is of."""
    probe: ProbeReport
    """Since the last pulse that arrived."""
    process: ProbeReport
    """Since the process started."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for msgpack."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**plain, "probe": self.probe.to_dict(), "process": self.process.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        reports = {name: ProbeReport.from_dict(data[name]) for name in ("probe", "process")}
        return cls(**{**data, **reports})


@dataclasses.dataclass(frozen=True, slots=True)
class BlockEnd:
    """A worker has stopped."""

    worker: str
    block: str
    records: int
    """How many it sent."""


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
    write_error: str | None = None
    """Why records cannot be written."""
    client: dict[str, Any] | None = None
    """Whether the load generator was the limit: a `ClientVerdict` as plain data, once the block has ended."""

    @property
    def idle(self) -> bool:
        """Whether the master waits for a block."""
        return self.state in ("ready", "stopped")
