"""Each engine's figures in each cell, from the blocks that count."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from loadgen.analysis.comparison import Interval, block_figures, intervals, met_interval, samples_of
from loadgen.message import joined, mark, say
from loadgen.metrics.definitions import tpots_ms, ttft_ms
from loadgen.metrics.slo import Slo
from loadgen.metrics.summary import CellSummary, Floats, summarise
from loadgen.presentation.text import number
from loadgen.report.columns import BATCH_COLUMNS, COLUMNS, MET_SHARE, SLO_COLUMNS, quotient
from loadgen.runs.folder import BlockData
from loadgen.scenario.model import Cell

CellStatus = Literal["complete", "partial", "missing"]


@dataclasses.dataclass(frozen=True, slots=True)
class EngineCell:
    """One engine's figures in one cell."""

    engine: str
    status: CellStatus
    """`partial`: from blocks that did not end well, because nothing better was measured."""
    note: str | None
    summary: CellSummary | None
    """None when nothing was measured."""
    blocks: list[str]
    """Record ids of the blocks the figures come from."""
    ttft: Floats
    tpot: Floats
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    """95% interval by column key, of the figures that have one."""
    block_figures: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """The headline figures of each of `blocks`."""
    limited: bool = False
    """Whether the load generator was the limit in any of its blocks: then it decides nothing."""

    @property
    def decides(self) -> bool:
        """Whether it may be compared."""
        return self.status == "complete" and not self.limited


@dataclasses.dataclass(frozen=True, slots=True)
class CellView:
    """One cell with every engine's figures."""

    id: str
    cell: Cell | None
    """None when the id is not one of ours."""
    engines: dict[str, EngineCell]

    def ratios(self, base: str, other: str) -> dict[str, float | None]:
        """`other / base` by column key; None where either is not complete, or was limited by the load generator."""
        a, b = self.engines[base], self.engines[other]
        both = a.decides and b.decides
        slo = a.summary is not None and a.summary.slo is not None
        batches = a.summary is not None and a.summary.batches is not None
        columns = (*COLUMNS, *(BATCH_COLUMNS if batches else ()), *(SLO_COLUMNS if slo else ()))
        return {c.key: quotient(c, a.summary, b.summary) if both else None for c in columns}


def engine_cell(engine: str, blocks: Sequence[BlockData], slo: Slo | None) -> EngineCell:
    """Choose the blocks that count: the complete ones, else whatever was measured, flagged as partial."""
    chosen = [block for block in blocks if block.facts.status == "complete" and block.measured]
    status: CellStatus = "complete"
    notes: list[str] = []
    if not chosen:
        chosen = [block for block in blocks if block.measured]
        status = "partial" if chosen else "missing"
        if chosen:
            states = joined("{a}, {b}", [say(state) for state in sorted(_states(chosen))])
            notes.append(say("only from blocks that did not end well ({states})", states=states))
        else:
            notes.append(say("never started") if not blocks else say("no request was measured"))
    for block in chosen:
        if block.lacks:
            notes.append(
                say(
                    "{count} of {wanted} requests were measured in repeat {repeat}",
                    count=len(block.measured),
                    wanted=block.facts.measured_requests,
                    repeat=block.facts.repeat,
                )
            )
    verdicts = [block.facts.client for block in chosen]
    samples = samples_of(chosen, slo)
    found = intervals(samples)
    met = None if slo is None else met_interval(chosen, slo)
    if met is not None:
        found[MET_SHARE.key] = met
    measured = [record for block in chosen for record in block.measured if record.ok]
    summary = summarise([(b.records, b.measured, b.cut.window) for b in chosen], slo) if chosen else None
    if summary is not None and summary.no_tpot is not None:
        notes.append(say("no TPOT: {why}", why=summary.no_tpot))
    if summary is not None and (answer := summary.answer_ms) is not None:
        p50, p95 = number(answer.p50), number(answer.p95)
        notes.append(
            say(
                "answers begin with reasoning; the first answer token comes after {p50} ms (p95 {p95} ms)",
                p50=p50,
                p95=p95,
            )
        )
    return EngineCell(
        engine=engine,
        status=status,
        note=joined("{a}; {b}", notes) if notes else None,
        summary=summary,
        blocks=[block.facts.record_id for block in chosen],
        ttft=_sorted([ttft_ms(record) for record in measured]),
        tpot=_sorted(tpots_ms(measured)),
        intervals=found,
        block_figures=block_figures(samples),
        limited=any(verdict is not None and verdict.limited for verdict in verdicts),
    )


def _states(blocks: Sequence[BlockData]) -> set[str]:
    words = {"running": mark("never ended"), "interrupted": mark("interrupted"), "failed": mark("failed")}
    return {words.get(block.facts.status, block.facts.status) for block in blocks}


def _sorted(values: Sequence[float | None]) -> Floats:
    return np.sort(np.asarray([value for value in values if value is not None], dtype=np.float64))
