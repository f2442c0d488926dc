"""A comparison of two runs in a sentence, and what a reader must know first."""

from __future__ import annotations

from loadgen.compare.comparison import RunComparison
from loadgen.report.headline import Notice
from loadgen.report.text import cell_words, listing
from loadgen.statistics.words import sentence

MANY = 3
"""More warnings of one kind than this become one line."""


def headline(comparison: RunComparison) -> str:
    """The verdict over all cells."""
    return sentence(comparison.statistics)


def notices(comparison: RunComparison) -> list[Notice]:
    """What differs between the runs, cells and blocks left out; what was accepted comes first."""
    found = [Notice("bad", f"Accepted: {row.sentence()}.") for row in comparison.differences if row.level == "refuse"]
    for letter, cells in (("A", comparison.cells.only_a), ("B", comparison.cells.only_b)):
        if cells:
            names = listing([cell_words(cell) for cell in cells], most=4)
            text = f"Left out, because only {letter} has {'it' if len(cells) == 1 else 'them'}: {names}."
            found.append(Notice("warn", text))
    for cell in comparison.statistics.cells:
        for block in cell.left_out:
            side = comparison.a if block.engine == "a" else comparison.b
            text = f"{side.label} at {cell_words(cell.id)}, repeat {block.repeat}, decides nothing: {block.reason}."
            found.append(Notice("warn", text))
    warnings = [row for row in comparison.differences if row.level == "warn"]
    for key in dict.fromkeys(row.key for row in warnings):
        same = [row for row in warnings if row.key == key]
        if len(same) > MANY:
            names = listing([row.what for row in same], most=MANY)
            found.append(Notice("warn", f"Not the same in both runs: {names}."))
        else:
            found += [Notice("warn", f"{row.sentence()}.") for row in same]
    found += [Notice("info", f"{row.sentence()}.") for row in comparison.differences if row.level == "info"]
    return found
