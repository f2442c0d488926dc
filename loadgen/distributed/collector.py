"""The master's side of traffic: takes in records, keeps them on disk, and knows when a block is complete."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

from loadgen.client.health import ProbeReport
from loadgen.client.verdict import ClientVerdict, judge
from loadgen.contention.reading import Contention
from loadgen.distributed.client_metrics import ClientMetrics
from loadgen.distributed.messages import Pulse
from loadgen.distributed.status import BlockStatus
from loadgen.message import Message
from loadgen.metrics.batches import send_spreads_ms
from loadgen.metrics.summary import CellSummary, summarise
from loadgen.record import RequestRecord
from loadgen.runs.folder import JSONL
from loadgen.runs.record_file import RecordFile
from loadgen.traffic.block_state import BlockState
from loadgen.traffic.plan import BlockPlan

logger = logging.getLogger(__name__)

KEPT_CELLS = 100
VERDICT_INTERVAL_S = 5.0
LIVE_RECORDS = 500
"""While a block runs, the load generator is judged now and then, by so many of the newest records."""


@dataclasses.dataclass
class CollectedBlock(BlockState):
    """The same, with the workers that its records come from and what they tell of themselves."""

    lost_workers: list[str] = dataclasses.field(default_factory=list)
    ended_workers: dict[str, int] = dataclasses.field(default_factory=dict)
    """Records that each worker says it sent, told when it has stopped."""
    workers: set[str] = dataclasses.field(default_factory=set)
    """Workers that records came from."""
    probes: dict[str, ProbeReport] = dataclasses.field(default_factory=dict)
    """What each worker's probe has seen in this block."""
    verdict: ClientVerdict | None = None
    problem: Message | None = None
    """Why it has no future, whatever its requests do."""
    ended: bool = False
    judged_at: float = 0.0
    judged: tuple[int, float, bool] | None = None
    """What the verdict rests on: records, the probes' seconds, and whether the block had ended."""

    def take(self, record: RequestRecord) -> None:
        """Count one record of this block."""
        super().take(record)
        self.workers.add(record.worker)

    def summary(self) -> CellSummary:
        """Figures of the block so far."""
        cut = self.recut()
        known = self.records[: len(cut.phases)]
        return summarise([(known, cut.measured(known), cut.window)])

    def judge(self) -> ClientVerdict | None:
        """Whether the load generator is (or was) the limit; None before there is anything to judge."""
        now = time.monotonic()
        basis = (self.received, sum(probe.wall_s for probe in self.probes.values()), self.ended)
        if basis == self.judged or not (self.ended or now - self.judged_at >= VERDICT_INTERVAL_S):
            return self.verdict
        cut = self.recut(force=self.ended)
        known = self.records[: len(cut.phases)]
        skipped = 0 if self.ended else max(0, len(known) - LIVE_RECORDS)
        phases = cut.phases[skipped:]
        measured = [r for r, phase in zip(known[skipped:], phases, strict=True) if phase == "measure"]
        if measured or self.ended:
            spreads = send_spreads_ms(measured) if self.plan.cell.batch else None
            self.verdict = judge(measured, known[skipped:], self.probes, spreads)
        self.judged_at, self.judged = time.monotonic(), basis
        return self.verdict


class Collector:
    """Takes records from workers and keeps one run's file open."""

    def __init__(self, runs_dir: Path | None, metrics: ClientMetrics | None = None) -> None:
        self.runs_dir = runs_dir
        self.metrics = metrics
        self.block: CollectedBlock | None = None
        self.finished: dict[tuple[str, str, str], tuple[CellSummary, bool]] = {}
        """Figures of earlier blocks, by run, engine and cell, and whether the load generator was the limit."""
        self.contention: dict[tuple[str, str, str], Contention] = {}
        """What else the machine did in the newest block of each run, engine and cell."""
        self.write_error: str | None = None
        self._files: dict[str, RecordFile] = {}
        self._pending: dict[str, list[RequestRecord]] = {}

    def begin(self, plan: BlockPlan) -> None:
        """A block starts: its records are the ones that count from now on."""
        self.end()
        self.block = CollectedBlock(plan, time.time())
        for run_id in [run_id for run_id in self._files if run_id != plan.run_id and not self._pending.get(run_id)]:
            self._files.pop(run_id).close()
        if self.metrics is not None:
            self.metrics.begin_block(plan)

    def end(self) -> None:
        """The block has stopped: keep its figures for the web tab."""
        if self.metrics is not None:
            self.metrics.block = None
        block = self.block
        if block is not None:
            block.ended = True
        if block is not None and block.received:
            verdict = self.verdict()
            key = (block.plan.run_id, block.plan.endpoint.name, block.plan.cell.id)
            self.finished.pop(key, None)
            self.finished[key] = (block.summary(), verdict is not None and verdict.limited)
            while len(self.finished) > KEPT_CELLS:
                del self.finished[next(iter(self.finished))]

    def take(self, records: list[RequestRecord]) -> None:
        """Keep records on disk first, then count them."""
        for record in records:
            self._pending.setdefault(record.run_id, []).append(record)
        self.flush()
        block = self.block
        for record in records:
            if block is not None and record.block == block.plan.block and record.run_id == block.plan.run_id:
                block.take(record)
            if self.metrics is not None:
                scenario = block.plan.scenario if block is not None else "unknown"
                self.metrics.observe(record, scenario)

    def take_contention(self, run_id: str, block: str, reading: Contention) -> None:
        """Keep what a campaign has seen of the machine, if it is of the block that runs or ran last."""
        now = self.block
        if now is None or (run_id, block) != (now.plan.run_id, now.plan.block):
            return
        key = (run_id, now.plan.endpoint.name, now.plan.cell.id)
        self.contention.pop(key, None)
        self.contention[key] = reading
        while len(self.contention) > KEPT_CELLS:
            del self.contention[next(iter(self.contention))]
        if self.metrics is not None:
            self.metrics.contention = (*key[1:], reading)

    def take_probe(self, pulse: Pulse) -> None:
        """Keep what a worker's probe saw, if it belongs to the block that runs or ran last."""
        block = self.block
        if block is not None and (pulse.run_id, pulse.block) == (block.plan.run_id, block.plan.block):
            block.probes.setdefault(pulse.worker, ProbeReport()).follow(pulse.probe)

    def verdict(self) -> ClientVerdict | None:
        """Whether the load generator is the limit of the block that runs or ran last; also tells the metrics."""
        block = self.block
        verdict = block.judge() if block is not None else None
        if block is not None and verdict is not None and self.metrics is not None:
            self.metrics.limited = (block.plan.endpoint.name, block.plan.cell.id, verdict.limited)
        return verdict

    def flush(self) -> None:
        """Write what is pending. A full disk keeps records in memory until a later flush succeeds."""
        if self.runs_dir is None:
            self._pending.clear()
            return
        failed: str | None = None
        for run_id, records in list(self._pending.items()):
            try:
                if run_id not in self._files:
                    self._files[run_id] = RecordFile(self.runs_dir / run_id / JSONL)
                self._files[run_id].append(records)
            except OSError as error:
                where = self.runs_dir / run_id / JSONL
                if self.write_error is None:
                    logger.error("%s cannot be written (%s): records are kept in memory", where, error.strerror)
                failed = f"{where} cannot be written: {error.strerror or error}"
                continue
            del self._pending[run_id]
        self.write_error = failed
        if self.metrics is not None:
            self.metrics.gauges["records_pending"] = sum(len(records) for records in self._pending.values())

    def worker_lost(self, worker: str) -> None:
        """A worker went away while a block ran."""
        if self.block is not None and not self.block.complete and worker not in self.block.lost_workers:
            self.block.lost_workers.append(worker)

    def status(self, **master: Any) -> BlockStatus:
        """State of the block, for the campaign and for people; `master` are the fields that the master knows of."""
        block = self.block
        if block is None:
            return BlockStatus(write_error=self.write_error, **master)
        return BlockStatus(
            **dict(block.progress(master.pop("in_flight", 0))),
            lost_workers=block.lost_workers,
            ended_workers=block.ended_workers,
            unconfirmed_workers=sorted(block.workers - block.ended_workers.keys() - set(block.lost_workers)),
            problem=block.problem,
            write_error=self.write_error,
            client=self.verdict() if block.ended else None,
            **master,
        )
