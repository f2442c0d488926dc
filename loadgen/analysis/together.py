"""Engines that ran together: how much of the time they really did, and how much that disturbed each."""

from __future__ import annotations

import dataclasses

from loadgen.analysis.comparison import margin
from loadgen.analysis.floors import floors_ms
from loadgen.analysis.samples import most_errors, paired, samples_by_cell
from loadgen.runs.folder import BlockData, RunData
from loadgen.statistics.compare import compare
from loadgen.statistics.result import Settings, Statistics


@dataclasses.dataclass(frozen=True, slots=True)
class Overlap:
    """Shares of the blocks' windows, 0 to 1, in which all that they were to run together with were measured too."""

    mean: float
    least: float


def overlap(run: RunData) -> Overlap | None:
    """How much of their windows blocks that ran together had in common; None where none did."""
    by_id = {block.facts.record_id: block for block in run.blocks}
    shares = []
    for block in run.blocks:
        others = [by_id[name] for name in block.facts.beside if name in by_id]
        if others and block.facts.status == "complete" and (share := _common(block, others)) is not None:
            shares.append(share)
    return Overlap(sum(shares) / len(shares), min(shares)) if shares else None


def _common(block: BlockData, others: list[BlockData]) -> float | None:
    windows = [one.cut.window for one in (block, *others)]
    known = [window for window in windows if window is not None]
    own = known[0].end_ns - known[0].start_ns if len(known) == len(windows) else 0
    if own <= 0:
        return None
    common = min(window.end_ns for window in known) - max(window.start_ns for window in known)
    return max(common, 0) / own


def disturbances(run: RunData) -> list[Statistics]:
    """Each engine of a race of both placements: in turns (a) against together with the others (b), repeat by repeat.

    Both are of one process, so that what its start and its card happen to be is in neither: the unit is the repeat, on
    whichever start it ran.
    """
    pairs = [(facts.together_of, facts.name) for facts in run.manifest.engines if facts.together_of is not None]
    if not pairs:
        return []
    most = most_errors(run.manifest)
    settings = Settings(
        alpha=run.manifest.alpha / len(pairs),  # false alarms over all engines together (Bonferroni)
        margin=margin(run.manifest),
        floors_ms=floors_ms([(run.manifest, run.blocks)]),
    )
    blocks = [dataclasses.replace(block, facts=block.facts.model_copy(update={"start": None})) for block in run.blocks]
    return [
        compare(a, b, paired(samples_by_cell(blocks, a, most), samples_by_cell(blocks, b, most), blocks), settings)
        for a, b in pairs
    ]
