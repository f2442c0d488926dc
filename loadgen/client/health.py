"""What a load generator's own process went through while a block ran: how late it was, and how busy. Pure.

Three kinds of lateness, in ns or seconds of one worker's monotonic clock:

- *read lag*: how long a content event lay in the kernel before the process read it (from the records);
- *schedule lag*: how long after the schedule wanted it a request was sent (from the records; open loop only);
- *loop lag*: how late the process's event loop got round to something that was due (from a probe, `client_probe`).

Read and schedule lags are in every record, so they are counted where records are collected: a worker, whose time
is what is measured, spends nothing on them. What only the worker can know travels as a `ProbeReport`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any, Self

from loadgen.record import RequestRecord

GRID_FACTOR = 1.25
GRID_NS = tuple(round(1e4 * GRID_FACTOR**step) for step in range(63))
"""Upper bounds of the buckets in ns: 10 us to about 10 s, each 25% above the last."""
NS_PER_MS = 1e6
PROBE_PERIOD_NS = 2_000_000
"""How often the probe looks. What goes by between two looks it cannot see, so a stall may be that much longer."""
KEPT_LATE = 200_000
"""Late wakes that are kept of a worker and block, the newest: more than six minutes of nothing else."""


class LagHistogram:
    """Counts of lags, or of other times, on one geometric grid; mergeable, and small as JSON."""

    __slots__ = ("bounds", "counts", "max_ns", "sum_ns")

    def __init__(self, bounds: tuple[int, ...] = GRID_NS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_ns: float = 0
        self.max_ns: float = 0

    def add(self, lags_ns: Iterable[float]) -> None:
        """Count lags in ns; negative ones count as 0."""
        counts, bounds, lags = self.counts, self.bounds, [lag if lag > 0 else 0 for lag in lags_ns]
        for lag in lags:
            counts[bisect_left(bounds, lag)] += 1
        self.sum_ns += sum(lags)
        self.max_ns = max(self.max_ns, max(lags, default=0))

    def merge(self, other: LagHistogram) -> None:
        """Add another histogram's counts to this one."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    @property
    def count(self) -> int:
        """How many lags were counted."""
        return sum(self.counts)

    def quantile_ms(self, share: float) -> float | None:
        """Lag in ms that `share` of all stay at or below, rounded up to its bucket's bound; None when empty."""
        total = self.count
        if not total:
            return None
        bucket = bisect_left(list(itertools.accumulate(self.counts)), max(1, math.ceil(share * total)))
        bound = min(self.bounds[bucket], self.max_ns) if bucket < len(self.bounds) else self.max_ns
        return bound / NS_PER_MS

    def figures(self) -> dict[str, float | None]:
        """p50, p99 and max in ms."""
        top = self.max_ns / NS_PER_MS if self.count else None
        return {"p50": self.quantile_ms(0.5), "p99": self.quantile_ms(0.99), "max": top}

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound in seconds, ending with +Inf, as Prometheus wants them."""
        return list(zip(_labels(self.bounds), map(float, itertools.accumulate(self.counts)), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data: buckets that hold something only."""
        counts = {str(bucket): count for bucket, count in enumerate(self.counts) if count}
        return {"counts": counts, "sum_ns": self.sum_ns, "max_ns": self.max_ns}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read plain data. Raises ValueError or KeyError when it is none of ours."""
        made = cls()
        for index, count in data["counts"].items():
            position = int(index)
            if not 0 <= position < len(made.counts):
                raise ValueError(f"no such bucket: {index}")
            made.counts[position] = int(count)
        made.sum_ns, made.max_ns = int(data["sum_ns"]), int(data["max_ns"])
        return made


@functools.cache
def _labels(bounds: tuple[int, ...]) -> tuple[str, ...]:
    """Upper bounds in seconds, as Prometheus has them."""
    return (*(f"{bound / 1e9:.6g}" for bound in bounds), "+Inf")


@dataclasses.dataclass(slots=True)
class ProbeReport:
    """What one worker's probe saw since a block began (or, for Prometheus, since the process started)."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of the process; with one event loop a process can use one core."""
    waiting_s: float | None = None
    """Time that its main thread was ready to run and had no CPU (Linux); None where nobody knows."""
    loop_lag: LagHistogram = dataclasses.field(default_factory=LagHistogram)
    late: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    """Wakes that were late: (when the process noticed, how late that was), ns."""
    gc_pauses: int = 0
    gc_total_s: float = 0.0
    gc_max_s: float = 0.0

    @property
    def cpu_share(self) -> float:
        """Share of one core that the process used."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def waiting_share(self) -> float | None:
        """Share of the time in which the process wanted a CPU and had none."""
        return self.waiting_s / self.wall_s if self.waiting_s is not None and self.wall_s > 0 else None

    def follow(self, newer: ProbeReport) -> None:
        """Take a newer report of the same block: its totals replace ours, its late wakes are added."""
        late = self.late
        late.extend(newer.late)
        if len(late) > 2 * KEPT_LATE:
            del late[:-KEPT_LATE]
        for field in dataclasses.fields(self):
            if field.name != "late":
                setattr(self, field.name, getattr(newer, field.name))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for msgpack or JSON."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Two flat lists pack smaller than many pairs.
        late = {"at": [at for at, _ in self.late], "lag": [lag for _, lag in self.late]}
        return {**data, "loop_lag": self.loop_lag.to_dict(), "late": late}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read plain data. Raises ValueError, TypeError or KeyError when it is none of ours."""
        late = list(zip(data["late"]["at"], data["late"]["lag"], strict=True))
        return cls(**{**data, "loop_lag": LagHistogram.from_dict(data["loop_lag"]), "late": late})


@dataclasses.dataclass(slots=True)
class WorkerHealth:
    """All that is known about one worker in one block."""

    worker: str
    requests: int = 0
    events: int = 0
    read_lag: LagHistogram = dataclasses.field(default_factory=LagHistogram)
    schedule_lag: LagHistogram = dataclasses.field(default_factory=LagHistogram)
    probe: ProbeReport | None = None
    """None when the worker was lost before it could tell."""

    @property
    def events_per_s(self) -> float | None:
        """Content events read per second."""
        return self.events / self.probe.wall_s if self.probe is not None and self.probe.wall_s > 0 else None

    def figures(self) -> dict[str, Any]:
        """Return what people and later reports need, as plain data; the keys are documented in docs/metrics.md."""
        probe = self.probe
        return {
            "worker": self.worker,
            "requests": self.requests,
            "events": self.events,
            "events_per_s": self.events_per_s,
            "cpu_share": probe.cpu_share if probe else None,
            "waiting_share": probe.waiting_share if probe else None,
            "read_lag_ms": self.read_lag.figures(),
            "schedule_lag_ms": self.schedule_lag.figures(),
            "loop_lag_ms": (probe.loop_lag if probe else LagHistogram()).figures(),
            "gc_pauses": probe.gc_pauses if probe else None,
            "gc_total_ms": probe.gc_total_s * 1e3 if probe else None,
            "gc_max_ms": probe.gc_max_s * 1e3 if probe else None,
        }


def schedule_lag_ns(record: RequestRecord) -> int | None:
    """How late a request was sent, the opening of its connection left out; None in a closed loop.

    A closed loop has no schedule: there `t_intended` is `t_send`.
    """
    if record.t_intended == record.t_send:
        return None
    return max(0, record.t_send - record.t_intended - record.connect_ns)


def worker_health(records: Iterable[RequestRecord], probes: Mapping[str, ProbeReport]) -> list[WorkerHealth]:
    """Sum up a block's records and its workers' probe reports, by worker name."""
    found = {worker: WorkerHealth(worker, probe=probe) for worker, probe in probes.items()}
    for record in records:
        health = found.setdefault(record.worker, WorkerHealth(record.worker))
        health.requests += 1
        health.events += record.events
        health.read_lag.add(record.read_lags_ns)
        lag = schedule_lag_ns(record)
        if lag is not None:
            health.schedule_lag.add([lag])
    return [found[worker] for worker in sorted(found)]
