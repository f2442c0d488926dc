"""Which requests of a block are measured, and the window in which its throughput is counted.

A closed-loop block starts with every user's warm-up requests and flows into the measurement without a pause.
The window opens when the last user has finished its warm-up. The first N requests sent after that are the
measured ones. Users go on sending ("drain" requests) until all N have ended, so load is steady to the end.

A batch load has no steady state to wait for: whole batches warm up, and the next whole batches are measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from loadgen.metrics.pairs import behind_pairs
from loadgen.record import Phase, RequestRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Measurement interval, nanoseconds since the Unix epoch."""

    start_ns: int
    end_ns: int
    batches: tuple[tuple[int, int], ...] = ()
    """Of a batch load the measured batches, each from its first request's sending to its last token."""

    @property
    def seconds(self) -> float:
        """How long engines were measured: of a batch load the batches alone, without what lies between them."""
        spans = self.batches or ((self.start_ns, self.end_ns),)
        return sum(end - start for start, end in spans) / 1e9


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """A block divided into phases."""

    phases: list[Phase]
    """The phase of each record, in the order of the records given."""
    window: Window | None
    """None while nothing has been measured."""
    complete: bool
    """Whether all wanted requests were measured, and none that is still in flight or was aborted belongs among them."""

    def measured(self, records: Sequence[RequestRecord]) -> list[RequestRecord]:
        """Those of the records that were divided that are measured, in the same order.

        Their TPOT is by what all of them tell together, see `behind_pairs`.
        """
        return behind_pairs([r for r, phase in zip(records, self.phases, strict=True) if phase == "measure"])


@dataclasses.dataclass(frozen=True, slots=True)
class CutRule:
    """What a block's records are divided by. All that is said of a block's phases, live or later, goes by one."""

    users: int
    """Concurrent users that the block was started with; 0 in other loads."""
    warmup_requests: int
    """Of each user, before it counts as warm; in an open loop, of all; in a batch load, whole batches."""
    measured_requests: int | None
    """None measures all (a block bounded by time)."""
    open_loop: bool = False
    """Whether requests came by a schedule."""
    arrivals: int | None = None
    """Of a schedule that ends (a trace), how many it has."""
    batch: int = 0
    """Requests of each batch; 0 in other loads."""

    def cut(self, records: Sequence[RequestRecord]) -> Cut:
        """Divide all records of the block so far, in any order, into warm-up, measured and drain requests.

        Those that the load generator aborted are never measured.
        """
        if self.batch:
            return self._cut_batches(records)
        return self._cut_open_loop(records) if self.open_loop else self._cut_closed_loop(records)

    def _cut_closed_loop(self, records: Sequence[RequestRecord]) -> Cut:
        """Divide by the moment of sending.

        A request is known only when it has ended, so the first N *sent* are certain once the N-th of them was sent
        before every user's latest known end: whatever is in flight was then sent later.
        """
        opened = _window_start(records, self.users, self.warmup_requests)
        if opened is None:
            return Cut(["warmup"] * len(records), None, complete=False)
        candidates = sorted(
            (r.t_send + r.wall_offset_ns, position)
            for position, r in enumerate(records)
            if r.t_send + r.wall_offset_ns >= opened and not r.aborted
        )
        chosen = candidates if self.measured_requests is None else candidates[: self.measured_requests]
        phases: list[Phase] = ["warmup" if r.t_send + r.wall_offset_ns < opened else "drain" for r in records]
        for _, position in chosen:
            phases[position] = "measure"
        if not chosen:
            return Cut(phases, None, complete=False)
        ended = max(records[position].t_done + records[position].wall_offset_ns for _, position in chosen)
        complete = False
        if self.measured_requests is not None and len(chosen) == self.measured_requests:
            latest_known: dict[tuple[str, int], int] = {}
            for r in records:
                key = (r.worker, r.user)
                latest_known[key] = max(latest_known.get(key, 0), r.t_done + r.wall_offset_ns)
            last = chosen[-1][0]
            # One that was cut off in front of the last chosen would have been measured: leaving out the slow flatters.
            gap = any(r.aborted and opened <= r.t_send + r.wall_offset_ns < last for r in records)
            complete = len(latest_known) >= self.users and last <= min(latest_known.values()) and not gap
        return Cut(phases, Window(opened, ended), complete)

    def _cut_open_loop(self, records: Sequence[RequestRecord]) -> Cut:
        """Divide by the number of the arrival (`index`, counted over all workers).

        Arrivals before `warmup_requests` warm the engine, the next `measured_requests` are measured, and those
        behind keep up the load until the last measured one has ended. The window runs from the first measured
        arrival until the first one behind, so it holds as many arrivals as were measured, at the scheduled rate. Where
        the schedule ends with the last measured arrival, the window ends with the last answer.
        """
        wanted, first = self.measured_requests, self.warmup_requests
        behind = None if wanted is None else first + wanted
        phases: list[Phase] = []
        due: dict[int, int] = {}
        for r in records:
            due[r.index] = r.t_intended + r.wall_offset_ns
            if r.index < first:
                phases.append("warmup")
            elif (behind is not None and r.index >= behind) or r.aborted:
                phases.append("drain")
            else:
                phases.append("measure")
        measured = [r for r, phase in zip(records, phases, strict=True) if phase == "measure"]
        if not measured:
            return Cut(phases, None, complete=False)
        start = due.get(first, min(r.t_intended + r.wall_offset_ns for r in measured))
        known_end = None if behind is None else due.get(behind)
        end = max(r.t_done + r.wall_offset_ns for r in measured) if known_end is None else known_end
        complete = len(measured) == wanted and (known_end is not None or behind == self.arrivals)
        return Cut(phases, Window(start, end), complete)

    def _cut_batches(self, records: Sequence[RequestRecord]) -> Cut:
        """Divide by the number of the batch (`index`).

        A batch is measured when all its requests are known, failures included. One that is not whole (it still runs, or
        was cut off) counts nowhere.
        """
        members = by_batch(records)
        whole = [
            number
            for number, batch in members.items()
            if number >= self.warmup_requests and len(batch) == self.batch and not any(r.aborted for r in batch)
        ]
        wanted = None if self.measured_requests is None else -(-self.measured_requests // self.batch)
        measured = set(whole[:wanted])
        phases: list[Phase] = [
            "measure" if r.index in measured else "warmup" if r.index < self.warmup_requests else "drain"
            for r in records
        ]
        if not measured:
            return Cut(phases, None, complete=False)
        spans = tuple(batch_span(members[number]) for number in sorted(measured))
        ended = max(r.t_done + r.wall_offset_ns for number in measured for r in members[number])
        return Cut(phases, Window(spans[0][0], ended, spans), complete=len(measured) == wanted)


def by_batch(records: Iterable[RequestRecord]) -> dict[int, list[RequestRecord]]:
    """The records of one block by the number of their batch (`index`), in order."""
    found: dict[int, list[RequestRecord]] = {}
    for record in records:
        found.setdefault(record.index, []).append(record)
    return dict(sorted(found.items()))


def batch_span(batch: Sequence[RequestRecord]) -> tuple[int, int]:
    """When a batch's first request was sent and its last token came (of a failed request: its end), ns since 1970."""
    ends = (r.t_last if r.ok and r.t_last is not None else r.t_done for r in batch)
    start = min(r.t_send + r.wall_offset_ns for r in batch)
    return start, max(end + r.wall_offset_ns for end, r in zip(ends, batch, strict=True))


def _window_start(records: Sequence[RequestRecord], users: int, warmup_requests: int) -> int | None:
    """Moment at which the last of `users` users finished its warm-up; None while some have not."""
    if not records:
        return None
    if warmup_requests <= 0:
        return min(r.t_send + r.wall_offset_ns for r in records)
    ends: dict[tuple[str, int], list[int]] = {}
    for r in records:
        if not r.aborted:
            ends.setdefault((r.worker, r.user), []).append(r.t_done + r.wall_offset_ns)
    warm = sorted(
        sorted(user_ends)[warmup_requests - 1] for user_ends in ends.values() if len(user_ends) >= warmup_requests
    )
    return warm[users - 1] if len(warm) >= users else None
