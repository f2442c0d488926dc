"""What crosses the border between master and workers beside Locust's own messages (and `BlockPlan`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from loadgen.client.health import ProbeReport

REQUEST_FIELD = "block_request"
"""Field of Locust's start form in which a campaign sends its `BlockRequest`, as JSON."""
CONTENTION_FIELD = "contention"
"""Field in which a campaign tells the master what else the machine did: a `Contention`, as JSON."""
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
