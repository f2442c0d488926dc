"""What a gate judges: every threshold in every cell, for two runs or within one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadgen.analysis.floors import floors_ms
from loadgen.analysis.samples import cell_sample, most_errors, samples_by_cell
from loadgen.errors import UserError
from loadgen.gate.decide import Case
from loadgen.gate.quantity import SOURCES, difference_quantity, limit_quantity, measured_together
from loadgen.runs.folder import RunData
from loadgen.scenario.threshold import OF_BATCHES, Threshold, ThresholdError, parse_threshold
from loadgen.statistics.lengths import length_differs
from loadgen.statistics.measure import Measured
from loadgen.statistics.metrics import BlockSample, CellSample


def read_thresholds(texts: Sequence[str]) -> list[Threshold]:
    """Read thresholds from the command line. Raises UserError with the place of the mistake."""
    found: list[Threshold] = []
    for text in texts:
        try:
            threshold = parse_threshold(text)
        except ThresholdError as error:
            raise UserError(f"--fail-if: {error}") from None
        if threshold not in found:
            found.append(threshold)
    return found


def difference_cases(
    thresholds: Sequence[Threshold],
    cells: Sequence[CellSample],
    a: str,
    b: str,
    *,
    paired: bool,
    floors_ms: Mapping[str, float],
) -> list[Case]:
    """Differences of `b` against `a`, threshold by threshold."""
    apart = length_differs(cells)
    found = []
    for threshold in thresholds:
        floor = _floor_ms(threshold, floors_ms)
        measured: Sequence[Measured | None] = measured_together(threshold, cells, paired=paired) or [None] * len(cells)
        for cell, one in zip(cells, measured, strict=True):
            quantity = difference_quantity(
                *(threshold, cell), paired=paired, floor_ms=floor, other_lengths=cell.id in apart, measured=one
            )
            found.append(Case(threshold, cell.id, b, a, quantity))
    return found


def _floor_ms(threshold: Threshold, floors_ms: Mapping[str, float]) -> float:
    """A batch's times are those of one of its requests, so they are off by what a TTFT is off by."""
    source = "ttft_ms" if threshold.metric in OF_BATCHES else SOURCES.get(threshold.metric, "")
    return floors_ms.get(source, 0.0)


def limit_cases(thresholds: Sequence[Threshold], cells: Mapping[str, Sequence[BlockSample]], engine: str) -> list[Case]:
    """An engine's own figures, threshold by threshold."""
    return [
        Case(threshold, cell, engine, None, limit_quantity(threshold, blocks))
        for threshold in thresholds
        for cell, blocks in cells.items()
    ]


def run_cases(thresholds: Sequence[Threshold], run: RunData) -> list[Case]:
    """Within one run: limits on every engine, differences of the others against the first, repeat by repeat."""
    engines = list(dict.fromkeys([e.name for e in run.manifest.engines] + [b.facts.engine for b in run.blocks]))
    ids = list(dict.fromkeys(block.facts.cell for block in run.blocks))
    samples = {engine: samples_by_cell(run.blocks, engine, most_errors(run.manifest)) for engine in engines}
    by_engine = {engine: {cell: samples[engine].get(cell, []) for cell in ids} for engine in engines}
    limits = [threshold for threshold in thresholds if not threshold.difference]
    differences = [threshold for threshold in thresholds if threshold.difference]
    cases = [case for engine in engines for case in limit_cases(limits, by_engine[engine], engine)]
    floors = floors_ms([(run.manifest, run.blocks)])
    for other in engines[1:]:
        base = engines[0]
        cells = [cell_sample(cell, by_engine[base][cell], by_engine[other][cell]) for cell in ids]
        cases += difference_cases(differences, cells, base, other, paired=True, floors_ms=floors)
    return cases
