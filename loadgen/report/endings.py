"""How each engine's answers ended, over all cells and in those where the engines' endings differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loadgen.message import Message, joined, say
from loadgen.metrics.endings import Endings
from loadgen.report.cells import CellView


@dataclasses.dataclass(frozen=True, slots=True)
class EndingRow:
    """How an engine's measured requests ended; `cell` is None for all of them."""

    engine: str
    cell: str | None
    endings: Endings


def ending_rows(engines: Sequence[str], cells: Sequence[CellView]) -> list[EndingRow]:
    """Rows by engine over all cells, then of each cell in which they differ in a way that the first do not show."""
    whole = {engine: Endings.of(view.engines[engine].summary for view in cells) for engine in engines}
    rows = [EndingRow(engine, None, endings) for engine, endings in whole.items() if endings.requests]
    for view in cells:
        own = {engine: Endings.of([view.engines[engine].summary]) for engine in engines}
        between = any(own[engine].differs(own[engines[0]]) for engine in engines[1:])
        if between and any(own[engine].differs(whole[engine]) for engine in engines):
            rows += [EndingRow(engine, view.id, endings) for engine, endings in own.items() if endings.requests]
    return rows


def endings_words(rows: Sequence[EndingRow]) -> Message | None:
    """The finish reasons of every engine, in one line; None where none was told."""
    told = [(row.engine, row.endings.reasons_text) for row in rows if row.cell is None and row.endings.finish_reasons]
    if not told:
        return None
    if len({text for _, text in told}) == 1:
        return say("Finish reasons: {which}", which=told[0][1])
    each = joined("{a}; {b}", [say("{engine} {what}", engine=engine, what=text) for engine, text in told])
    return say("Finish reasons: {which}", which=each)


def mixed(rows: Sequence[EndingRow]) -> bool:
    """Whether an engine's answers ended in different ways. Two engines may well have two words for one way."""
    return any(row.endings.mixed for row in rows)
