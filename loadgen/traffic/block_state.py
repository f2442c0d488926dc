"""How far a block has come: its records are counted as they arrive, and cut into phases now and then."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from loadgen.metrics.window import Cut, cut_block
from loadgen.record import RequestRecord
from loadgen.traffic.plan import BlockPlan

CUT_INTERVAL_S = 0.2
CUT_REST = 10
"""Cutting takes the longer the more records there are: it rests for so many times as long as the last cut took."""
MAX_SUMMARISED = 5000
"""A block that runs until it is stopped is summarised over its newest records only."""


@dataclasses.dataclass
class BlockState:
    """The block that runs, or ran last."""

    plan: BlockPlan
    started: float
    records: list[RequestRecord] = dataclasses.field(default_factory=list)
    received: int = 0
    errors: dict[str, int] = dataclasses.field(default_factory=dict)
    last_error: str | None = None
    failures_in_row: int = 0
    complete: bool = False
    cut: Cut | None = None
    cut_at: float = 0.0
    cut_rest_s: float = 0.0
    cut_records: int = -1

    def take(self, record: RequestRecord) -> None:
        """Count one record of this block."""
        self.records.append(record)
        self.received += 1
        if record.error is not None and not record.aborted:
            self.errors[record.error] = self.errors.get(record.error, 0) + 1
            self.last_error = f"{record.error}: {record.error_detail}"
            self.failures_in_row += 1
        elif record.ok:
            self.failures_in_row = 0
        if self.plan.requests is None and len(self.records) > 2 * MAX_SUMMARISED:
            del self.records[:MAX_SUMMARISED]

    def recut(self, *, force: bool = False) -> Cut:
        """Cut the block into phases, unless that was done just now."""
        now = time.monotonic()
        stale = self.cut_records != self.received and (force or now - self.cut_at >= self.cut_rest_s)
        if self.cut is None or stale:
            plan = self.plan
            trimmed = self.received > len(self.records)
            self.cut = cut_block(
                self.records,
                users=plan.users,
                warmup_requests=0 if trimmed else plan.warmup_requests,
                measured_requests=plan.requests,
                open_loop=plan.rate > 0,
                arrivals=len(plan.trace_ns) or None,
            )
            self.cut_at, self.cut_records = time.monotonic(), self.received
            self.cut_rest_s = max(CUT_INTERVAL_S, CUT_REST * (self.cut_at - now))
            self.complete = self.complete or self.cut.complete
        return self.cut

    def status(self) -> dict[str, Any]:
        """How far it has come, as plain data."""
        cut = self.recut()
        return {
            "block": self.plan.block,
            "run_id": self.plan.run_id,
            "received": self.received,
            "warmed_up": cut.window is not None,
            "measured": sum(phase == "measure" for phase in cut.phases),
            "wanted": self.plan.requests,
            "complete": self.complete,
            "errors": self.errors,
            "last_error": self.last_error,
            "failures_in_row": self.failures_in_row,
            "seconds": time.time() - self.started,
        }
