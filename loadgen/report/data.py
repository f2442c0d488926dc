"""From a run to what the report shows: plain data, no files, no network, no drawing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from loadgen.analysis.comparison import comparisons
from loadgen.analysis.floors import beyond_calibration
from loadgen.analysis.prefill import PrefillFit, prefill_fits
from loadgen.analysis.scaling import Step, families, steps
from loadgen.client.verdict import ClientVerdict
from loadgen.contention.reading import Contention
from loadgen.explain import EngineFindings, findings
from loadgen.message import Message, mark
from loadgen.metrics.slo import Slo
from loadgen.monitoring.energy import Energy
from loadgen.monitoring.engine_figures import EngineFigures
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.monitoring.memory import Memory
from loadgen.presentation.style import LOOKS, looks_of
from loadgen.quality.result import QualityResult
from loadgen.report.attention import Attention, attention_of
from loadgen.report.capacity import CapacityRow, capacity_rows
from loadgen.report.cards import SeatCards, seat_cards
from loadgen.report.cells import CellView, engine_cell
from loadgen.report.columns import BATCH_COLUMNS, COLUMNS, SLO_COLUMNS, Column
from loadgen.report.cost import Costs, costs_of
from loadgen.report.endings import EndingRow, ending_rows
from loadgen.report.engine_says import EngineSays, engine_says
from loadgen.report.experiment import Outcome, outcome_of
from loadgen.report.fairness import FairnessRow, fairness_rows
from loadgen.report.gpus import gpus_of, kind_of
from loadgen.report.serving import ServingRow, serving_rows
from loadgen.report.tallies import ClientFacts, ErrorRow, client_facts, error_rows
from loadgen.report.together import Together, place_words, together_of
from loadgen.runs.folder import BlockData, RunData
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.runs.record_file import BadLine
from loadgen.runs.resume import readable_scenario
from loadgen.scenario.cell import in_order, read_cell
from loadgen.scenario.cost import priced
from loadgen.scenario.model import Cell, Scenario
from loadgen.statistics.result import CellResult, Statistics

NOTHING_READ: Mapping[str, BlockSamples] = MappingProxyType({})


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
    engine_figures: EngineFigures | None = None
    """What the engine said of itself; None where nobody read that."""
    contention: Contention | None = None
    """What else the machine did; None where nobody looked."""


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
    attention: Attention | None = None
    """Attention's part of that; None where no GPU is known to have raced, or two runs are compared."""
    quality: QualityResult | None = None
    """Whether the engines' answers are the same; None where nobody asked."""
    costs: Costs | None = None
    """What tokens cost; None where nobody said what a GPU hour does, or two runs are compared."""
    gpus: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many each engine has; empty where two runs are compared."""
    scaling: Sequence[Step] = ()
    """What more GPUs are worth to engines that differ in their number alone; empty where none do."""
    cards: Sequence[SeatCards] = ()
    """Which GPUs each engine was on; empty where nobody tells."""
    engine_says: EngineSays = dataclasses.field(default_factory=EngineSays)
    """The engines' own figures; empty where nobody read them, or two runs are compared."""
    explained: Sequence[EngineFindings] = ()
    """Which known mechanisms show, by engine; empty where two runs are compared."""
    experiment: Outcome | None = None
    """What came of the scenario's experiment; None where it has none."""
    together: Together | None = None
    """How engines ran that ran together; None where they took turns, or two runs are compared."""
    beyond_calibration: Message | None = None
    """Where more streams were in flight than the load generator was calibrated with."""

    @property
    def endings(self) -> list[EndingRow]:
        """How answers ended, by engine and where it matters by cell."""
        return ending_rows(self.engines, self.cells)

    @property
    def looks(self) -> tuple[int, ...]:
        """Places of the engines' looks, by seat."""
        return looks_of(self.engines)

    def marker(self, seat: int) -> str:
        """What marks the engine of a seat in plots."""
        return LOOKS[self.looks[seat]].marker

    def look(self, engine: str) -> int:
        """Place of an engine's look."""
        return self.looks[self.engines.index(engine)]

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
    def several_gpus(self) -> bool:
        """Whether an engine has more than one."""
        return any(count > 1 for count in self.gpus.values())

    @property
    def open_loop(self) -> bool:
        """Whether the load is a rate."""
        return any(view.cell.open_loop for view in self.cells if view.cell is not None)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of its tables of cells."""
        batches = BATCH_COLUMNS if self.batch else ()
        return (*COLUMNS, *batches) if self.slo is None else (*COLUMNS, *batches, *SLO_COLUMNS)

    @property
    def batch(self) -> bool:
        """Whether the load is batches."""
        return any(view.cell.batch for view in self.cells if view.cell is not None)

    @property
    def load_axis(self) -> str:
        """What the load is counted in: `concurrency`, requests of a batch, or requests a second in an open loop."""
        if self.batch:
            return mark("batch size")
        return mark("offered requests/s") if self.open_loop else mark("concurrency")

    @property
    def load_column(self) -> str:
        """Heading of a column of loads."""
        if self.batch:
            return mark("batch size")
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
    run: RunData,
    memory: Memory,
    energy: Energy | None = None,
    compared: Sequence[Statistics] | None = None,
    slo: Slo | None = None,
    model_config: Mapping[str, Any] | None = None,
    quality: QualityResult | None = None,
    gpu_hour: float | None = None,
    samples: Mapping[str, BlockSamples] = NOTHING_READ,
) -> ReportData:
    """Work out everything the report shows from a run's records and manifest.

    Args:
        compared: the statistics, where they are not those of the engines of one run, block by block.
        slo: what requests are held against, where it is not the scenario's.
        model_config: what `attention_config` keeps of the model's config, where launch records lack it.
        quality: what the check of answers has found; None where there was none.
        gpu_hour: what an hour of one GPU costs, over the scenario's price.
        samples: what was read of the engines' metrics, by block.

    Raises UserError where that is no price.
    """
    engines, scenario = _engine_names(run), readable_scenario(run.manifest)
    cost = scenario.cost if scenario is not None else None
    if gpu_hour is not None:
        cost = priced(cost, gpu_hour)
    if scenario is not None:
        slo = slo or scenario.slo
    by_cell: dict[str, dict[str, list[BlockData]]] = {cell_id: {} for cell_id in _expected_cells(scenario)}
    for block in run.blocks:
        by_cell.setdefault(block.facts.cell, {}).setdefault(block.facts.engine, []).append(block)
    views = []
    for cell_id in in_order(by_cell):
        blocks = by_cell[cell_id]
        entries = {engine: engine_cell(engine, blocks.get(engine, []), slo) for engine in engines}
        views.append(CellView(cell_id, read_cell(cell_id), entries))
    used = {block for view in views for entry in view.engines.values() for block in entry.blocks}
    found = _compared(run, engines, scenario, slo) if compared is None else list(compared)
    searched, energy = capacity_rows(scenario, engines, run.blocks), energy or Energy()
    gpus = {} if compared is not None else gpus_of(run.manifest, engines, cost)
    costs = None
    if cost is not None and compared is None:
        costs = costs_of(cost, gpus, views, searched, found, energy.rows)
    explained = findings(run, samples, scenario) if compared is None else ()
    says = engine_says(run, views, samples, scenario, explained)
    fits = prefill_fits(run.blocks, engines, used)
    together = together_of(run) if compared is None else None
    fairness = fairness_rows(run, engines)
    if together is not None and together.placed:
        names = {facts.name: facts.together_of or facts.name for facts in run.manifest.engines}
        values = {engine: place_words(together, names.get(engine, engine)) for engine in engines}
        fairness.append(FairnessRow(mark("where it ran"), None, "", values))
    return ReportData(
        manifest=run.manifest,
        engines=engines,
        cells=views,
        slo=slo,
        capacity=searched,
        blocks=[_block_view(block, used, says) for block in run.blocks],
        errors=error_rows(run.blocks),
        fairness=fairness,
        serving=serving_rows(run.manifest, engines),
        client=client_facts(run.blocks),
        memory=memory,
        bad_lines=run.bad_lines,
        comparisons=found,
        energy=energy,
        prefill=fits,
        attention=attention_of(run.manifest, fits, views, found, model_config) if compared is None else None,
        costs=costs,
        gpus=gpus,
        scaling=_scaling(run, gpus, found, slo),
        cards=seat_cards(run, engines, says),
        beyond_calibration=beyond_calibration(run.manifest, run.blocks),
        together=together,
        quality=quality,
        engine_says=says,
        explained=explained,
        experiment=outcome_of(run, samples, scenario),
    )


def _compared(run: RunData, engines: Sequence[str], scenario: Scenario | None, slo: Slo | None) -> list[Statistics]:
    """The comparisons of a race; a search for capacity asks each engine at loads of its own."""
    return [] if scenario is not None and scenario.find_capacity is not None else comparisons(run, engines, slo)


def _scaling(run: RunData, gpus: Mapping[str, int], found: Sequence[Statistics], slo: Slo | None) -> list[Step]:
    """Each engine against the one with the fewest GPUs, which need not be the first."""
    made = []
    for base, *others in families(gpus, kind_of(run.manifest)) if found else ():
        known = [one for one in found if one.a == base and one.b in others]
        made += steps(known if len(known) == len(others) else comparisons(run, [base, *others], slo), gpus)
    return made


def _engine_names(run: RunData) -> list[str]:
    names = [facts.name for facts in run.manifest.engines] + [block.facts.engine for block in run.blocks]
    return list(dict.fromkeys(names))


def _expected_cells(scenario: Scenario | None) -> list[str]:
    """Cells that the scenario asked for, also those that never came to run. A search has none of its own."""
    if scenario is None or scenario.find_capacity is not None:
        return []
    return [cell.id for cell in scenario.cells()]


def _block_view(block: BlockData, used: set[str], says: EngineSays) -> BlockView:
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
        client=facts.client,
        engine_figures=says.blocks.get(facts.record_id),
        contention=facts.contention,
    )
