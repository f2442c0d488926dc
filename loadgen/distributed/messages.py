"""What crosses the border between master and workers beside Locust's own messages (and `BlockPlan`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType
from typing import Any, Self

from loadgen.client.health import ProbeReport

MAX_TEXT = 2000

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
PROBLEM_MESSAGE = "bakeoff_problem"
"""A `BlockProblem`."""


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
        """Read what `to_dict` gave. Raises ValueError, TypeError or KeyError when it is none of ours."""
        reports = {name: ProbeReport.from_dict(data[name]) for name in ("probe", "process")}
        for report in reports.values():
            _check(report)
            if not all(type(number) is int for pair in report.late for number in pair):
                raise ValueError("late")
        made = cls(**{**data, **reports})
        _check(made)
        return made


class _Plain:
    """A message of plain values, which travels as `dataclasses.asdict` gives it."""

    __slots__ = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read `dataclasses.asdict`. Raises ValueError or TypeError when it is none of ours."""
        made = cls(**data)
        _check(made)
        return made


@dataclasses.dataclass(frozen=True, slots=True)
class BlockEnd(_Plain):
    """A worker has stopped."""

    worker: str
    block: str
    records: int
    """How many it sent."""


@dataclasses.dataclass(frozen=True, slots=True)
class BlockProblem(_Plain):
    """Why a worker cannot take part in a block."""

    worker: str
    block: str
    text: str


KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, NoneType),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, NoneType),
}
"""What a field may hold, by its annotation; others are checked where they are read."""


def _check(made: Any) -> None:
    """Raise ValueError where a field of a dataclass holds what its type does not allow."""
    for field in dataclasses.fields(made):
        value, kinds = getattr(made, field.name), KINDS.get(str(field.type))
        if kinds is not None and (type(value) not in kinds or (isinstance(value, str) and len(value) > MAX_TEXT)):
            raise ValueError(f"{field.name}: {value!r:.40}")
