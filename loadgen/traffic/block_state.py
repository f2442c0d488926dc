"""How far a block has come: its records are counted as they arrive, and cut into phases now and then.

The rule that says which requests are measured, and when a block is complete, is `loadgen.metrics.window.CutRule`.
"""

from __future__ import annotations

import dataclasses
import time

from pydantic import BaseModel, ConfigDict

from loadgen.metrics.window import Cut
from loadgen.record import RequestRecord
from loadgen.traffic.plan import BlockPlan

CUT_INTERVAL_S = 0.2
CUT_REST = 10
"""Cutting takes the longer the more records there are: it rests for so many times as long as the last cut took."""
MAX_SUMMARISED = 5000
"""A block that runs until it is stopped is summarised over its newest records only."""
FAILURES_IN_ROW = 10
FAILURES_OF_EACH_USER = 3


class Failure(BaseModel):
    """How a request failed."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """`RequestRecord.error`."""
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class BlockProgress(BaseModel):
    """How far a block has come; all empty where there was none yet."""

    model_config = ConfigDict(frozen=True)

    block: str | None = None
    run_id: str | None = None
    received: int = 0
    """Records, of all phases."""
    warmed_up: bool = False
    measured: int = 0
    wanted: int | None = None
    """How many are to be measured; None for no end."""
    complete: bool = False
    errors: dict[str, int] = {}
    """Failed requests of all phases by error kind."""
    last_error: Failure | None = None
    failures_in_row: int = 0
    hopeless: bool = False
    """Whether so many requests have failed in a row that no other outcome is in sight."""
    seconds: float = 0.0
    """Since it began."""
    in_flight: int = 0


@dataclasses.dataclass
class BlockState:
    """The block that runs, or ran last."""

    plan: BlockPlan
    started: float
    records: list[RequestRecord] = dataclasses.field(default_factory=list)
    received: int = 0
    errors: dict[str, int] = dataclasses.field(default_factory=dict)
    last_error: Failure | None = None
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
            self.last_error = Failure(kind=record.error, detail=record.error_detail or "")
            self.failures_in_row += 1
        elif record.ok:
            self.failures_in_row = 0
        if self.plan.requests is None and len(self.records) > 2 * MAX_SUMMARISED:
            del self.records[:MAX_SUMMARISED]

    @property
    def hopeless(self) -> bool:
        """Whether nothing but failures is to be expected: the one rule for a race, a run by hand and `bakeoff run`."""
        return self.failures_in_row >= max(FAILURES_IN_ROW, FAILURES_OF_EACH_USER * self.plan.cell.streams)

    def recut(self, *, force: bool = False) -> Cut:
        """Cut the block into phases, unless that was done just now."""
        now = time.monotonic()
        stale = self.cut_records != self.received and (force or now - self.cut_at >= self.cut_rest_s)
        if self.cut is None or stale:
            rule = self.plan.cut_rule
            if self.received > len(self.records):  # its beginning is forgotten
                rule = dataclasses.replace(rule, warmup_requests=0)
            self.cut = rule.cut(self.records)
            self.cut_at, self.cut_records = time.monotonic(), self.received
            self.cut_rest_s = max(CUT_INTERVAL_S, CUT_REST * (self.cut_at - now))
            self.complete = self.complete or self.cut.complete
        return self.cut

    def progress(self, in_flight: int = 0) -> BlockProgress:
        """How far it has come."""
        cut = self.recut()
        return BlockProgress(
            block=self.plan.block,
            run_id=self.plan.run_id,
            received=self.received,
            warmed_up=cut.window is not None,
            measured=sum(phase == "measure" for phase in cut.phases),
            wanted=self.plan.requests,
            complete=self.complete,
            errors=self.errors,
            last_error=self.last_error,
            failures_in_row=self.failures_in_row,
            hopeless=self.hopeless,
            seconds=time.time() - self.started,
            in_flight=in_flight,
        )
