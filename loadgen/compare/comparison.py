"""The comparison of two runs as plain data: what the terminal, the page and `compare.json` show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loadgen.analysis.comparison import margin
from loadgen.analysis.floors import floors_ms
from loadgen.analysis.samples import cell_sample, judged_sample, most_errors, with_starts
from loadgen.compare.manifests import Difference, check, differences
from loadgen.compare.sides import Cells, Side, common_cells
from loadgen.errors import UserError
from loadgen.gate.cases import difference_cases, limit_cases
from loadgen.gate.decide import Decision, decide
from loadgen.metrics.slo import Slo
from loadgen.monitoring.memory import Memory
from loadgen.report.data import ReportData, build_report_data
from loadgen.runs.folder import BlockData, RunData
from loadgen.runs.manifest import Manifest
from loadgen.runs.resume import scenario_of
from loadgen.scenario.threshold import Threshold
from loadgen.statistics.metrics import METRICS, WITH_SLO, BlockSample
from loadgen.statistics.result import Settings, Statistics
from loadgen.statistics.unpaired import compare_unpaired


@dataclasses.dataclass(frozen=True, slots=True)
class RunComparison:
    """Engine B of one run against engine A of another."""

    a: Side
    b: Side
    cells: Cells
    differences: list[Difference]
    statistics: Statistics
    decisions: list[Decision]
    report: ReportData
    """Both engines as if of one run: tables and plots are the report's."""


def compare_runs(
    a: Side, b: Side, *, accepted: Sequence[str] = (), thresholds: Sequence[Threshold] = ()
) -> RunComparison:
    """Compare two sides over the cells that both have.

    Raises:
        UserError: they have none in common, or differ in what makes a comparison meaningless and is not accepted.
    """
    cells = common_cells(a, b)
    found = differences(a.manifest, b.manifest, a.facts, b.facts)
    check(found, accepted)
    slo = common_slo(a, b)
    samples = [cell_sample(cell, _samples(a, cell, slo), _samples(b, cell, slo)) for cell in cells.common]
    floors = floors_ms([(side.manifest, blocks_of(side, cells.common)) for side in (a, b)])
    settings = Settings(margin=margin(b.manifest), floors_ms=floors)
    statistics = compare_unpaired(a.label, b.label, samples, settings, METRICS if slo is None else WITH_SLO)
    relative = [threshold for threshold in thresholds if threshold.difference]
    limits = [threshold for threshold in thresholds if not threshold.difference]
    own = {sample.id: sample.b for sample in samples}
    cases = difference_cases(relative, samples, a.label, b.label, paired=False, floors_ms=floors)
    cases += limit_cases(limits, own, b.label)
    report = build_report_data(_merged(a, b, cells), Memory(), compared=[statistics], slo=slo)
    return RunComparison(a, b, cells, found, statistics, decide(cases), report)


def blocks_of(side: Side, cells: Sequence[str]) -> list[BlockData]:
    """One side's blocks of these cells."""
    return [block for block in side.blocks if block.facts.cell in cells]


def common_slo(a: Side, b: Side) -> Slo | None:
    """What requests of both runs are held against: B's SLO, where both have one; a difference is told elsewhere."""
    slos = [scenario_slo(side.manifest) for side in (a, b)]
    return slos[1] if slos[0] is not None else None


def scenario_slo(manifest: Manifest) -> Slo | None:
    """The SLO of a run's scenario; None where there is none, or none that can be read."""
    try:
        return scenario_of(manifest).slo if manifest.source == "bench" else None
    except UserError:
        return None


def _samples(side: Side, cell: str, slo: Slo | None) -> list[BlockSample]:
    most = most_errors(side.manifest)
    return [judged_sample(block, most, slo) for block in with_starts(side.manifest, blocks_of(side, [cell]))]


def _merged(a: Side, b: Side, cells: Cells) -> RunData:
    """Both engines' blocks of the common cells under their labels, as one run: both begin when B does."""
    begins = b.manifest.started_at
    blocks = [
        _relabelled(side, block, begins - side.manifest.started_at)
        for side in (a, b)
        for block in blocks_of(side, cells.common)
    ]
    engines = [side.facts.model_copy(update={"name": side.label}) for side in (a, b) if side.facts is not None]
    manifest = b.manifest.model_copy(
        update={
            "engines": engines,
            "parity": [],
            "blocks": [block.facts for block in blocks],
            "messages": [],
            "scenario": {},
        }
    )
    return RunData(b.run.folder, manifest, blocks, [*a.run.bad_lines, *b.run.bad_lines])


def _relabelled(side: Side, block: BlockData, later_s: float) -> BlockData:
    facts = block.facts
    changed = {
        "engine": side.label,
        "record_id": f"{side.letter} {facts.record_id}",
        "started_at": facts.started_at + later_s,
        "ended_at": None if facts.ended_at is None else facts.ended_at + later_s,
    }
    return BlockData(facts.model_copy(update=changed), block.records, block.cut)
