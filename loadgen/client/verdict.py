"""Was the load generator the limit? The rule, in one place; docs/methodology.md says it in words. Pure.

A kernel stamp is right however late it is read, with one exception: what waits unread is merged, and the last
segment's stamp is the stamp of all. So only a read that brought more than the event in question can be wrong, and only
as far as the process was later than that read's own lag says. Without kernel stamps every lateness counts in full.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loadgen.client.health import PROBE_PERIOD_NS, ProbeReport, WorkerHealth, schedule_lag_ns, worker_health
from loadgen.message import Message, joined, mark, say
from loadgen.record import RequestRecord
from loadgen.validation import Words

BLOCK_LIMITED = mark("the load generator was the limit: {reasons}")
"""Why a block decides nothing."""
TTFT_TOLERANCE_MS = 1.0
TTFT_TOLERANCE_SHARE = 0.02
"""TTFT may be off by the larger of the two; the share is of the block's median TTFT."""
TPOT_TOLERANCE_SHARE = 0.01
TPOT_LEAST_MS = 2.0
"""The share is of a request's own TPOT, or of this where its TPOT is less."""
IDLE_TOLERANCE_SHARE = 0.02
"""Closed loop: share of the users' time that may pass between an answer and the next request."""
JUDGED_PERCENTILE = 99
BUSY_SHARE = 0.9
"""A process that uses more of a core than this has no reserve: with it, lags beyond the tolerance are its own fault."""
WAITING_SHARE = 0.2
"""A process that was kept from its CPU for more of the time than this shares a core with something else."""
TARGET_SHARE = 0.6
"""What one worker should use of its core at most, so that it has a reserve."""
HABIT_PERCENTILE = 75
"""What follows an event is taken to follow as closely as in so many percent of the requests at least."""
HABIT_REQUESTS = 5
"""With fewer requests to judge by, a server's habit is not known."""
EVIDENT_NS = 1_000_000
"""A process that was later than this was held up, and may have been so from just after the probe's last look on."""
NEIGHBOURHOOD_NS = 2_500_000
"""Lateness is looked up in steps of this width, with the steps before and after: what a stall holds up is read, and the
probe wakes, right after it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClientVerdict:
    """What one block's figures owe to the load generator at most. Errors are `JUDGED_PERCENTILE`s over requests."""

    limited: bool
    reasons: tuple[Words, ...]
    """What was beyond its tolerance, then what caused it."""
    ttft_error_ms: float | None
    """None where it is not known."""
    ttft_tolerance_ms: float
    tpot_error_share: float | None
    tpot_tolerance_share: float = TPOT_TOLERANCE_SHARE
    schedule_lag_ms: float | None = None
    """None in a closed loop."""
    idle_share: float | None = None
    """None but in a closed loop."""
    send_spread_ms: float | None = None
    """Of a batch load, how far apart the requests of a batch were sent (over batches); None in other loads."""
    workers_needed: int | None = None
    """How many workers would do; None where the verdict is good, or more workers would not help."""
    requests: int = 0
    """Requests that were judged."""
    workers: tuple[dict[str, Any], ...] = ()
    """`WorkerHealth.figures` of each worker."""

    def sentence(self) -> str:
        """Return the verdict as one sentence."""
        if not self.requests:
            return say("The load generator cannot be judged: no request was measured.")
        if self.limited:
            return say("The load generator was the limit: {reasons}.", reasons=joined("{a}; {b}", self.reasons))
        if self.ttft_error_ms is None or self.tpot_error_share is None:
            return say("The load generator told nothing about itself, so it is not known whether it was the limit.")
        return say(
            "The load generator was not the limit: it may have put TTFT off by {ttft} and TPOT by {tpot} "
            "(p{percentile} of requests).",
            ttft=_upto(self.ttft_error_ms, "ms"),
            tpot=_upto(self.tpot_error_share * 100, "%"),
            percentile=JUDGED_PERCENTILE,
        )


def judge(
    measured: Sequence[RequestRecord],
    every: Sequence[RequestRecord],
    probes: Mapping[str, ProbeReport],
    spreads_ms: Sequence[float] | None = None,
) -> ClientVerdict:
    """Judge one block.

    Args:
        measured: its measured requests; failed ones are passed over.
        every: all its records, warm-up and drain included: they tell how late the process was.
        probes: what each worker's probe saw, by worker.
        spreads_ms: of a batch load, how far apart each batch's requests were sent. Nothing else says there whether they
            were sent in time: between two batches all wait for the slowest.
    """
    health = worker_health(every, probes)
    good = [record for record in measured if record.ok and record.t_first is not None and record.t_last is not None]
    ttft_errors, tpot_shares = possible_errors(good, every, probes)
    ttft_error = _top(ttft_errors)
    tpot_error = _top(tpot_shares)
    median = float(np.median([r.t_first - r.t_send for r in good if r.t_first is not None]) / 1e6) if good else 0.0
    tolerance = max(TTFT_TOLERANCE_MS, TTFT_TOLERANCE_SHARE * median)
    lags = [lag / 1e6 for record in good if (lag := schedule_lag_ns(record)) is not None]
    batches = spreads_ms is not None
    schedule_lag, idle = (None, None) if batches else (_top(lags), idle_share(every))
    spread = _top(spreads_ms or ())
    reasons: list[Message] = []
    if ttft_error is not None and ttft_error > tolerance:
        off, most = _upto(ttft_error, "ms"), f"{tolerance:.1f} ms"
        reasons.append(say("TTFT may be off by {off} (tolerance {tolerance})", off=off, tolerance=most))
    if tpot_error is not None and tpot_error > TPOT_TOLERANCE_SHARE:
        off, most = _upto(tpot_error * 100, "%"), f"{TPOT_TOLERANCE_SHARE:.0%}"
        reasons.append(say("TPOT may be off by {off} (tolerance {tolerance})", off=off, tolerance=most))
    if schedule_lag is not None and schedule_lag > tolerance:
        reasons.append(
            say(
                "requests were sent up to {lag} ms behind their schedule (tolerance {tolerance} ms)",
                lag=f"{schedule_lag:.1f}",
                tolerance=f"{tolerance:.1f}",
            )
        )
    if idle is not None and idle > IDLE_TOLERANCE_SHARE:
        reasons.append(
            say(
                "users spent {share} of their time between an answer and their next request (tolerance {tolerance}), "
                "so the load was lower than asked for",
                share=f"{idle:.1%}",
                tolerance=f"{IDLE_TOLERANCE_SHARE:.0%}",
            )
        )
    if spread is not None and spread > tolerance:
        reasons.append(
            say(
                "the requests of a batch were sent up to {spread} ms apart (tolerance {tolerance} ms)",
                spread=f"{spread:.1f}",
                tolerance=f"{tolerance:.1f}",
            )
        )
    reasons += _exhausted(health, tolerance)
    limited = bool(reasons and good)
    needed = None
    if limited:
        causes, needed = _causes(health, one_worker=batches)
        reasons += causes
    return ClientVerdict(
        limited=limited,
        reasons=tuple(reasons) if limited else (),
        ttft_error_ms=ttft_error,
        ttft_tolerance_ms=tolerance,
        tpot_error_share=tpot_error,
        schedule_lag_ms=schedule_lag,
        idle_share=idle,
        send_spread_ms=spread,
        workers_needed=needed,
        requests=len(good),
        workers=tuple(each.figures() for each in health),
    )


def possible_errors(
    requests: Sequence[RequestRecord], every: Sequence[RequestRecord], probes: Mapping[str, ProbeReport]
) -> tuple[list[float], list[float]]:
    """Return by how much the client may have put off each request's TTFT (ms) and TPOT (share of it).

    Requests of a worker of which nothing is known (no kernel stamps and no probe) are left out.
    """
    late = {worker: Lateness(every, worker, probes.get(worker)) for worker in {r.worker for r in requests}}
    known = [
        (r, r.t_first, r.t_last)
        for r in requests
        if r.t_first is not None and r.t_last is not None and (r.clock == "kernel" or r.worker in probes)
    ]
    tails = [_tail_ns(r, late[r.worker], t_last) for r, _, t_last in known]
    habit = float(np.percentile(tails, HABIT_PERCENTILE)) if tails else 0.0
    leads = _Leads([r for r, _, _ in known if _stamped(r)], late)
    ttft: list[float] = []
    tpot: list[float] = []
    for (r, t_first, t_last), tail in zip(known, tails, strict=True):
        if _stamped(r):
            last = min(tail, habit) if r.t_done == t_last else 0.0
            first = _first_error_ns(r, late[r.worker], t_first, leads) if len(r.event_offsets_ns) > 1 else last
        else:
            first, last = late[r.worker].around(t_first), late[r.worker].around(t_last)
        first = min(first, t_first - r.t_send)
        ttft.append(first / 1e6)
        gaps = (r.output_tokens or 0) - 1
        if gaps > 0:
            # Where the stream carries no TPOT there is none that this process could put off.
            carried = r.tpot_basis is None or r.tpot_tokens is not None
            tpot.append(0.0 if not carried else (first + last) / max(t_last - t_first, gaps * TPOT_LEAST_MS * 1e6))
    return ttft, tpot


def _stamped(r: RequestRecord) -> bool:
    """Whether the kernel stamped every content event, and how long each lay unread is known."""
    return r.clock == "kernel" and 0 < len(r.read_lags_ns) == len(r.event_offsets_ns)


def _first_error_ns(r: RequestRecord, late: Lateness, t_first: int, leads: _Leads) -> float:
    """By how much the kernel's stamp of the first content event may be too late.

    It is that of the last event in the same read, so it is off by as much as the first usually precedes that one; but
    by no more than the process was later than this read's own lag says.
    """
    merged = _merged(r)
    if merged == 1:
        return 0.0
    lag = r.read_lags_ns[0]
    lateness = late.around(t_first + lag)
    if lateness < EVIDENT_NS:
        return max(0, lateness - lag)
    most = max(0, lateness + PROBE_PERIOD_NS - lag)
    usual = leads.usual_ns(merged)
    return most if usual is None else min(most, usual)


def _merged(r: RequestRecord) -> int:
    """How many content events share the first one's stamp, itself included."""
    first = r.event_offsets_ns[0]
    return next((n for n, offset in enumerate(r.event_offsets_ns) if offset != first), len(r.event_offsets_ns))


class _Leads:
    """How long the first content event usually precedes a later one: a server's habit, seen by a punctual reader."""

    def __init__(self, stamped: Sequence[RequestRecord], late: Mapping[str, Lateness]) -> None:
        self._punctual = [
            r.event_offsets_ns
            for r in stamped
            if late[r.worker].around(r.t_send + r.event_offsets_ns[0] + r.read_lags_ns[0]) < EVIDENT_NS
        ]
        self._known: dict[int, float | None] = {}

    def usual_ns(self, number: int) -> float | None:
        """From the first to the `number`-th content event (counted from 1), ns; None where too little is known."""
        if number not in self._known:
            leads = [offsets[number - 1] - offsets[0] for offsets in self._punctual if len(offsets) >= number]
            enough = len(leads) >= HABIT_REQUESTS
            self._known[number] = float(np.percentile(leads, HABIT_PERCENTILE)) if enough else None
        return self._known[number]


def _tail_ns(r: RequestRecord, late: Lateness, t_last: int) -> float:
    """How long after the last content event the rest (finish reason, usage, [DONE]) came at most.

    It was seen apart, or was merged with that event, and then it came while the process was late.
    """
    if r.t_done != t_last or not _stamped(r):
        return r.t_done - t_last
    lag = r.read_lags_ns[-1]
    return max(0, late.around(t_last + lag) - lag)


class Lateness:
    """How late a worker's process was around a moment, by its probe's late wakes and by all its events' read lags."""

    def __init__(self, records: Iterable[RequestRecord], worker: str, probe: ProbeReport | None) -> None:
        # The greatest lateness by step of time. A dict, since there are few steps and may be millions of events.
        self._worst: dict[int, int] = {}
        for r in records:
            if r.worker == worker and len(r.read_lags_ns) == len(r.event_offsets_ns):
                for offset, lag in zip(r.event_offsets_ns, r.read_lags_ns, strict=True):
                    self._note(r.t_send + offset + lag, lag)
        if probe is not None:
            for at, lag in probe.late:
                self._note(at, lag)

    def _note(self, at_ns: int, lag_ns: int) -> None:
        step = at_ns // NEIGHBOURHOOD_NS
        if lag_ns > self._worst.get(step, 0):
            self._worst[step] = lag_ns

    def around(self, moment_ns: int) -> int:
        """The greatest lateness near a moment of the worker's clock, ns."""
        step = moment_ns // NEIGHBOURHOOD_NS
        return max(self._worst.get(step + near, 0) for near in (-1, 0, 1))


def idle_share(records: Sequence[RequestRecord]) -> float | None:
    """Share of a closed loop's user time that passed between an answer's end and the sending of the next request.

    The opening of connections and the pause after a failure are left out. None where no user sent two requests, or
    in an open loop.
    """
    idle = total = 0
    ordered = sorted(records, key=lambda r: (r.worker, r.user, r.index))
    for before, after in itertools.pairwise(ordered):
        same = (before.worker, before.user, before.index + 1) == (after.worker, after.user, after.index)
        if same and before.ok and after.t_intended == after.t_send and after.t_done > before.t_done:
            idle += max(0, after.t_send - before.t_done - after.connect_ns)
            total += after.t_done - before.t_done
    return idle / total if total else None


def _exhausted(health: Sequence[WorkerHealth], tolerance_ms: float) -> list[Message]:
    """Workers without reserve. A busy core alone is no harm: only together with lags beyond the tolerance."""
    found = []
    for each in health:
        probe = each.probe
        lag = probe.loop_lag.quantile_ms(JUDGED_PERCENTILE / 100) if probe else None
        if probe and lag is not None and probe.cpu_share > BUSY_SHARE and lag > tolerance_ms:
            text = mark("worker {worker} used {share} of its core and lagged by {off}")
            found.append(say(text, worker=each.worker, share=f"{probe.cpu_share:.0%}", off=_upto(lag, "ms")))
    return found


ALONE = mark(
    "it used {share} of a core: {count} workers would do (BAKEOFF_WORKERS={same} for the stack, --workers {again} for "
    "`bakeoff bench --engine`)"
)
TOGETHER = mark(
    "its workers used {share} of a core: {count} workers would do (BAKEOFF_WORKERS={same} for the stack, --workers "
    "{again} for `bakeoff bench --engine`)"
)


def _causes(health: Sequence[WorkerHealth], *, one_worker: bool) -> tuple[list[Message], int | None]:
    """What held the load generator back, and how many workers would do (None: more would not help)."""
    probes = [each.probe for each in health if each.probe is not None]
    if not probes:
        return [], None
    causes: list[Message] = []
    cpu = sum(probe.cpu_share for probe in probes)
    waiting = max((probe.waiting_share or 0.0) for probe in probes)
    pause_ms = max(probe.gc_max_s for probe in probes) * 1e3
    if waiting > WAITING_SHARE:
        text = mark("other processes kept it from its CPU for {share} of the time: give it a core of its own")
        causes.append(say(text, share=f"{waiting:.0%}"))
    elif pause_ms > TTFT_TOLERANCE_MS:
        causes.append(say("its garbage collector paused it for up to {pause} ms", pause=f"{pause_ms:.1f}"))
    needed = math.ceil(cpu / TARGET_SHARE)
    if one_worker or needed <= len(probes):
        return causes, None
    text = ALONE if len(probes) == 1 else TOGETHER
    causes.append(say(text, share=f"{cpu:.0%}", count=needed, same=needed, again=needed))
    return causes, needed


def _top(values: Sequence[float]) -> float | None:
    return float(np.percentile(np.asarray(values, dtype=np.float64), JUDGED_PERCENTILE)) if len(values) else None


def _upto(value: float, unit: str) -> Message:
    """A size as text; small ones are not told exactly, for the stamps themselves are not."""
    space = "" if unit == "%" else " "
    if value < 0.1:
        return say("less than {size}", size=f"0.1{space}{unit}")
    return say("up to {size}", size=f"{value:.1f}{space}{unit}")
