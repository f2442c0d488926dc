"""Which request records a master takes: of workers in a block's plan, for requests that the plan has them send."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict

from loadgen.message import Message, mark, say
from loadgen.record import RequestRecord
from loadgen.stream.kernel_time import SUSPICIOUS_NS
from loadgen.traffic.plan import BlockPlan

KEPT_BLOCKS = 4
"""Records of a block may come when the next one has begun."""
SLACK_NS = 1_000_000_000
"""What messages' way and two clocks' rates make of a block's length."""


@dataclasses.dataclass
class _Known:
    """A block that was planned here, and what of it has come."""

    plan: BlockPlan
    begun_ns: int
    last: dict[tuple[str, int], int] = dataclasses.field(default_factory=dict)
    """Index of each closed-loop user's last request."""
    seen: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    """User and index of the requests of other loads."""


class Door:
    """Judges records before anything is done with them."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def begin(self, plan: BlockPlan) -> None:
        """Records of this block are expected from now on."""
        self._blocks[plan.run_id, plan.block] = _Known(plan, time.monotonic_ns())
        while len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)

    def is_planned(self, record: RequestRecord, sender: str) -> bool:
        """Whether the plan has this worker send this request, and no record of it has come yet."""
        known = self._blocks.get((record.run_id, record.block))
        if known is None or sender != record.worker or sender not in known.plan.workers:
            return False
        plan = known.plan
        told = (record.engine, record.model, record.cell, record.api)
        if told != (plan.endpoint.name, plan.endpoint.model, plan.cell.id, plan.api):
            return False
        if record.user < 0 or record.index < 0:
            return False
        closed = not (plan.cell.open_loop or plan.cell.batch)
        return _next_of_user(known, record) if closed else _dealt_once(known, record)

    def impossible(self, record: RequestRecord) -> Message | None:
        """What of a planned record cannot be, or None."""
        known = self._blocks[record.run_id, record.block]
        what = _impossible(record, known.plan, time.monotonic_ns() - known.begun_ns)
        if what is None:
            return None
        return say(
            "worker {worker} sent a record that cannot be: request {user}.{index}: {what}",
            worker=record.worker,
            user=record.user,
            index=record.index,
            what=what,
        )


def _next_of_user(known: _Known, record: RequestRecord) -> bool:
    """Whether it is a later request of one of a closed loop's users than the last that came."""
    cell, who = known.plan.cell, (record.worker, record.user)
    wanted = (record.prompt_tokens_wanted, record.output_tokens_wanted)
    longest = (cell.longest - cell.output_tokens, cell.output_tokens)
    fits = record.user < cell.concurrency and all(0 < n <= most for n, most in zip(wanted, longest, strict=True))
    if not fits or record.index <= known.last.get(who, -1):
        return False
    known.last[who] = record.index
    return True


def _dealt_once(known: _Known, record: RequestRecord) -> bool:
    """Whether an arrival, or a place in a batch, is this worker's, with the lengths of the plan, for the first time."""
    plan, user, index = known.plan, record.user, record.index
    size, seat = plan.cell.batch, plan.seat(record.worker)
    if size:
        batches = None if plan.requests is None else plan.warmup_requests + plan.requests // size
        fits = seat == 0 and user < size and (batches is None or index < batches)
    else:
        arrivals = None if plan.trace is None else len(plan.trace.arrivals_ns)
        fits = user == 0 and index % len(plan.workers) == seat and (arrivals is None or index < arrivals)
    wanted = (record.prompt_tokens_wanted, record.output_tokens_wanted)
    if not fits or (user, index) in known.seen or wanted != plan.lengths(index):
        return False
    known.seen.add((user, index))
    return True


def _impossible(record: RequestRecord, plan: BlockPlan, age_ns: int) -> Message | None:
    # A kernel's stamp is of the wall clock, which may be stepped: see `loadgen.stream.kernel_time`.
    doubt = SUSPICIOUS_NS if record.clock == "kernel" else 0
    offsets, took = record.event_offsets_ns, record.t_done - record.t_send
    first = record.t_send if record.t_first is None else record.t_first
    last = first if record.t_last is None else record.t_last
    tokens = record.output_tokens or 0
    recount = max(1, tokens // 10) if record.token_source == "tokenizer" else 0  # noqa: S105 - as `exchange` allows
    wrong = {
        mark("it was answered or ended before it was sent"): took < 0 or first < record.t_send - doubt,
        mark("its last event came before its first, or after its end"): not first <= last <= record.t_done + doubt,
        mark("it took longer than the block has run"): (
            record.t_done - min(record.t_intended, record.t_send) > age_ns + SLACK_NS
        ),
        mark("one of its events came before it was sent, or after its end"): (
            bool(offsets) and (min(offsets) < -doubt or max(offsets) > took + doubt)
        ),
        mark("it has more tokens than were asked for"): (record.ok and tokens > record.output_tokens_wanted + recount),
    }
    return next((say(text) for text, is_so in wrong.items() if is_so), None)
