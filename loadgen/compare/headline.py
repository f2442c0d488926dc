"""A comparison of two runs in a sentence, and what a reader must know first."""

from __future__ import annotations

from loadgen.analysis.floors import beyond_calibration
from loadgen.analysis.samples import most_errors
from loadgen.compare.comparison import RunComparison, blocks_of
from loadgen.compare.sides import Side
from loadgen.message import Message, say
from loadgen.presentation.headline import Headline
from loadgen.presentation.headline import headline as headline_of
from loadgen.presentation.text import cell_words, listing
from loadgen.report.headline import Notice, bad_line_notices
from loadgen.report.lost import lost_words

MANY = 3
"""More warnings of one kind than this become one line."""


def headline(comparison: RunComparison) -> Headline:
    """The verdict over all cells, and which blocks it knows nothing of."""
    most = {side.label: most_errors(side.manifest) for side in (comparison.a, comparison.b)}
    return headline_of(comparison.statistics, others=lost_words(comparison.report.blocks, most))


def notices(comparison: RunComparison) -> list[Notice]:
    """What differs between the runs, cells and blocks left out; what was accepted comes first."""
    found = [
        Notice("bad", say("Accepted: {difference}.", difference=row.sentence()))
        for row in comparison.differences
        if row.level == "refuse"
    ]
    for letter, cells in (("A", comparison.cells.only_a), ("B", comparison.cells.only_b)):
        if cells:
            names = listing([cell_words(cell) for cell in cells], most=4)
            text = say(
                "Left out, because only {letter} has {cells}: {names}.", letter=letter, cells=_these(cells), names=names
            )
            found.append(Notice("warn", text))
    found += _one_start(comparison)
    for side in (comparison.a, comparison.b):
        for notice in bad_line_notices(side.run.bad_lines):
            found.append(Notice(notice.level, say("Run {letter}: {text}", letter=side.letter, text=notice.text)))
        beyond = beyond_calibration(side.manifest, blocks_of(side, comparison.cells.common))
        if beyond is not None:
            found.append(Notice("warn", say("Run {letter}: {text}", letter=side.letter, text=beyond)))
    for cell in comparison.statistics.cells:
        for block in cell.left_out:
            side = comparison.a if block.engine == "a" else comparison.b
            text = say(
                "{engine} at {cell}, repeat {repeat}, decides nothing: {reason}.",
                engine=side.label,
                cell=cell_words(cell.id),
                repeat=block.repeat,
                reason=block.reason or "",
            )
            found.append(Notice("warn", text))
    warnings = [row for row in comparison.differences if row.level == "warn"]
    for key in dict.fromkeys(row.key for row in warnings):
        same = [row for row in warnings if row.key == key]
        if len(same) > MANY:
            names = listing([row.what for row in same], most=MANY)
            found.append(Notice("warn", say("Not the same in both runs: {names}.", names=names)))
        else:
            found += [Notice("warn", say("{sentence}.", sentence=row.sentence())) for row in same]
    found += [
        Notice("info", say("{sentence}.", sentence=row.sentence()))
        for row in comparison.differences
        if row.level == "info"
    ]
    return found


def _one_start(comparison: RunComparison) -> list[Notice]:
    """Said where a run's engines stayed up: all its blocks tell of one start of its engine."""
    kept = [side.letter for side in (comparison.a, comparison.b) if _stayed_up(side)]
    if not kept:
        return []
    runs = say("both runs") if len(kept) == 2 else say("run {letter}", letter=kept[0])
    text = say(
        "In {runs} the engine stayed up from block to block, so each such run is one start of it. No interval here "
        "holds how much one start differs from the next: equal engines can look different. Repeat the whole comparison "
        "with engines started afresh, or race with `between_blocks: restart` or `starts`.",
        runs=runs,
    )
    return [Notice("warn", text)]


def _stayed_up(side: Side) -> bool:
    manifest = side.manifest
    started_afresh = len({facts.start for facts in manifest.blocks if facts.start is not None}) > 1
    kept = manifest.source == "web-ui" or manifest.scenario.get("between_blocks") == "keep"
    return kept and not started_afresh


def _these(cells: list[str]) -> Message:
    return say("it") if len(cells) == 1 else say("them")
