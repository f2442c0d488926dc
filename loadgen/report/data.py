"""From a run to what the report shows: plain data, no files, no network, no drawing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from loadgen.cell_summary import CellSummary, Floats, summarise
from loadgen.client_verdict import ClientVerdict
from loadgen.definitions import tpot_ms, ttft_ms
from loadgen.errors import UserError
from loadgen.manifest import EngineFacts, Manifest
from loadgen.record_file import BadLine
from loadgen.report.capacity import CapacityRow, capacity_rows
from loadgen.report.columns import COLUMNS, SLO_COLUMNS, Column, quotient
from loadgen.report.comparison import Interval, block_figures, comparisons, intervals, samples_of
from loadgen.report.energy import Energy
from loadgen.report.fairness import FairnessRow, fairness_rows
from loadgen.report.language import joined, mark, say
from loadgen.report.prefill import PrefillFit, prefill_fits
from loadgen.report.prometheus import Memory
from loadgen.report.serving import ServingRow, serving_rows
from loadgen.report.tallies import ClientFacts, ErrorRow, client_facts, error_rows
from loadgen.resume import scenario_of
from loadgen.run_folder import BlockData, RunData
from loadgen.scenario import Cell, Scenario
from loadgen.slo import Slo
from loadgen.statistics.result import CellResult, Statistics

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
        columns = (*COLUMNS, *SLO_COLUMNS) if slo else COLUMNS
        return {c.key: quotient(c, a.summary, b.summary) if both else None for c in columns}


@dataclasses.dataclass(frozen=True, slots=True)
class BlockView:
    """What became of one block."""

    record_id: str
    engine: str
    cell: str
    repeat: int
    attempt: int
    users: int
    status: str
    reason: str | None
    used: bool
    """Whether it is in the figures of its cell."""
    records: int
    measured: int
    wanted: int | None
    errors: int
    started_at: float
    ended_at: float | None
    client: ClientVerdict | None
    """Whether the load generator was its limit; None where nobody judged."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReportData:
    """All that a report shows."""

    manifest: Manifest
    engines: list[str]
    """In the order of their seats; the first is what ratios are taken against."""
    cells: list[CellView]
    slo: Slo | None
    """The scenario's; None where it has none."""
    capacity: list[CapacityRow]
    """What a search for capacity has found; empty where there was none."""
    blocks: list[BlockView]
    errors: list[ErrorRow]
    fairness: list[FairnessRow]
    serving: list[ServingRow]
    client: ClientFacts
    memory: Memory
    bad_lines: list[BadLine]
    comparisons: list[Statistics] = dataclasses.field(default_factory=list)
    """The first seat against each other one; empty where only one engine ran."""
    energy: Energy = dataclasses.field(default_factory=Energy)
    prefill: list[PrefillFit] = dataclasses.field(default_factory=list)
    """By engine; empty where the run has fewer than two prompt lengths."""

    def comparison(self, engine: str) -> Statistics | None:
        """The first seat against this one."""
        return next((found for found in self.comparisons if found.b == engine), None)

    def compared(self, engine: str, cell_id: str) -> CellResult | None:
        """One cell of that."""
        found = self.comparison(engine)
        return next((cell for cell in found.cells if cell.id == cell_id), None) if found else None

    @property
    def shapes(self) -> list[Cell]:
        """The cells without their loads, each once, in order."""
        return sorted({c.cell.shape for c in self.cells if c.cell is not None})

    def cells_of(self, shape: Cell) -> list[CellView]:
        """Cells of one shape, lowest load first."""
        return [c for c in self.cells if c.cell is not None and c.cell.shape == shape]

    def facts(self, engine: str) -> EngineFacts | None:
        """The manifest's facts of an engine."""
        return next((facts for facts in self.manifest.engines if facts.name == engine), None)

    def row_label(self, cell_id: str) -> str:
        """A cell as a short label: `512 → 128 × 16`, or `512 × 16` where all outputs are of one length."""
        cell = next((view.cell for view in self.cells if view.id == cell_id), None)
        if cell is None:
            return cell_id
        several = len({view.cell.output_tokens for view in self.cells if view.cell is not None}) > 1
        lengths = f"{cell.prompt_tokens} → {cell.output_tokens}" if several else f"{cell.prompt_tokens}"
        return f"{lengths} × {cell.load:g}{cell.extras.replace('-', ' ')}"

    @property
    def open_loop(self) -> bool:
        """Whether the load is a rate."""
        return any(view.cell.open_loop for view in self.cells if view.cell is not None)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of its tables of cells."""
        return COLUMNS if self.slo is None else (*COLUMNS, *SLO_COLUMNS)

    @property
    def load_axis(self) -> str:
        """What the load is counted in: `concurrency`, or requests a second in an open loop."""
        return mark("offered requests/s") if self.open_loop else mark("concurrency")

    @property
    def load_column(self) -> str:
        """Heading of a column of loads."""
        return mark("req/s offered") if self.open_loop else mark("users")

    @property
    def measured_requests(self) -> int:
        """Measured requests in the figures shown, failures included."""
        return sum(e.summary.requests for c in self.cells for e in c.engines.values() if e.summary)

    @property
    def failed_requests(self) -> int:
        """Failed measured requests in the figures shown."""
        return sum(sum(e.summary.errors.values()) for c in self.cells for e in c.engines.values() if e.summary)

    @property
    def partial(self) -> bool:
        """Whether anything that was to be measured was not, or not wholly."""
        return self.manifest.status != "complete" or any(
            entry.status == "partial" or (entry.status == "missing" and not self.capacity)
            for cell in self.cells
            for entry in cell.engines.values()
        )


def build_report_data(
    run: RunData, memory: Memory, energy: Energy | None = None, compared: Sequence[Statistics] | None = None
) -> ReportData:
    """Work out everything the report shows from a run's records and manifest.

    Args:
        compared: the statistics, where they are not those of the engines of one run, block by block.
    """
    engines, scenario = _engine_names(run), _scenario(run.manifest)
    slo = scenario.slo if scenario is not None else None
    by_cell: dict[str, dict[str, list[BlockData]]] = {cell_id: {} for cell_id in _expected_cells(scenario)}
    for block in run.blocks:
        by_cell.setdefault(block.facts.cell, {}).setdefault(block.facts.engine, []).append(block)
    views = []
    for cell_id, blocks in by_cell.items():
        entries = {engine: _engine_cell(engine, blocks.get(engine, []), slo) for engine in engines}
        views.append(CellView(cell_id, _parse(cell_id), entries))
    views.sort(key=lambda view: _sort_key(view.cell, view.id))
    used = {block for view in views for entry in view.engines.values() for block in entry.blocks}
    return ReportData(
        manifest=run.manifest,
        engines=engines,
        cells=views,
        slo=slo,
        capacity=capacity_rows(scenario, engines, run.blocks),
        blocks=[_block_view(block, used) for block in run.blocks],
        errors=error_rows(run.blocks),
        fairness=fairness_rows(run, engines),
        serving=serving_rows(run.manifest, engines),
        client=client_facts(run.blocks),
        memory=memory,
        bad_lines=run.bad_lines,
        comparisons=_compared(run, engines, scenario) if compared is None else list(compared),
        energy=energy or Energy(),
        prefill=prefill_fits(run.blocks, engines, used),
    )


def _compared(run: RunData, engines: Sequence[str], scenario: Scenario | None) -> list[Statistics]:
    """The comparisons of a race; a search for capacity asks each engine at loads of its own."""
    return [] if scenario is not None and scenario.find_capacity is not None else comparisons(run, engines)


def _engine_names(run: RunData) -> list[str]:
    names = [facts.name for facts in run.manifest.engines] + [block.facts.engine for block in run.blocks]
    return list(dict.fromkeys(names))


def _parse(cell_id: str) -> Cell | None:
    try:
        return Cell.parse(cell_id)
    except ValueError:
        return None


def _sort_key(cell: Cell | None, cell_id: str) -> tuple[int, int, int, int, float, str]:
    if cell is None:
        return (1, 0, 0, 0, 0, cell_id)
    return (0, cell.prompt_tokens, cell.output_tokens, cell.shared_percent, cell.load, cell_id)


def _scenario(manifest: Manifest) -> Scenario | None:
    """The scenario of a bench; None where there is none that can be read."""
    try:
        return scenario_of(manifest) if manifest.source == "bench" else None
    except UserError:
        return None


def _expected_cells(scenario: Scenario | None) -> list[str]:
    """Cells that the scenario asked for, also those that never came to run. A search has none of its own."""
    if scenario is None or scenario.find_capacity is not None:
        return []
    return [cell.id for cell in scenario.cells()]


def _engine_cell(engine: str, blocks: Sequence[BlockData], slo: Slo | None) -> EngineCell:
    """Choose the blocks that count: the complete ones, else whatever was measured, flagged as partial."""
    chosen = [block for block in blocks if block.facts.status == "complete" and block.measured]
    status: CellStatus = "complete"
    notes: list[str] = []
    if not chosen:
        chosen = [block for block in blocks if block.measured]
        status = "partial" if chosen else "missing"
        if chosen:
            states = joined(", ", [say(state) for state in sorted(_states(chosen))])
            notes.append(say("only from blocks that did not end well ({states})", states=states))
        else:
            notes.append(say("never started") if not blocks else say("no request was measured"))
    for block in chosen:
        wanted = block.facts.measured_requests
        if wanted is not None and len(block.measured) < wanted and block.facts.ended_early is None:
            notes.append(
                say(
                    "{count} of {wanted} requests were measured in repeat {repeat}",
                    count=len(block.measured),
                    wanted=wanted,
                    repeat=block.facts.repeat,
                )
            )
    verdicts = [block.client for block in chosen]
    samples = samples_of(chosen)
    measured = [record for block in chosen for record in block.measured if record.ok]
    return EngineCell(
        engine=engine,
        status=status,
        note=joined("; ", notes) if notes else None,
        summary=summarise([(b.records, b.measured, b.cut.window) for b in chosen], slo) if chosen else None,
        blocks=[block.facts.record_id for block in chosen],
        ttft=_sorted([ttft_ms(record) for record in measured]),
        tpot=_sorted([tpot_ms(record) for record in measured]),
        intervals=intervals(samples),
        block_figures=block_figures(samples),
        limited=any(verdict is not None and verdict.limited for verdict in verdicts),
    )


def _states(blocks: Sequence[BlockData]) -> set[str]:
    words = {"running": mark("never ended"), "interrupted": mark("interrupted"), "failed": mark("failed")}
    return {words.get(block.facts.status, block.facts.status) for block in blocks}


def _sorted(values: Sequence[float | None]) -> Floats:
    return np.sort(np.asarray([value for value in values if value is not None], dtype=np.float64))


def _block_view(block: BlockData, used: set[str]) -> BlockView:
    facts, measured = block.facts, block.measured
    return BlockView(
        record_id=facts.record_id,
        engine=facts.engine,
        cell=facts.cell,
        repeat=facts.repeat,
        attempt=facts.attempt,
        users=facts.users,
        status=facts.status,
        reason=facts.reason,
        used=facts.record_id in used,
        records=len(block.records),
        measured=len(measured),
        wanted=facts.measured_requests,
        errors=sum(not record.ok for record in measured),
        started_at=facts.started_at,
        ended_at=facts.ended_at,
        client=block.client,
    )
