"""A result in the terminal."""

from __future__ import annotations

import rich.box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadgen.presentation.text import printable
from loadgen.quality.result import QualityResult, Verdict
from loadgen.quality.rows import rows

STYLES: dict[Verdict, str] = {
    "same": "bold green",
    "differ": "bold red",
    "degenerate": "bold red",
    "unknown": "bold yellow",
}


def quality_text(result: QualityResult) -> RenderableType:
    """The figures, then the verdict."""
    table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("what", "whose", "figure", "95% interval", "detail"):
        table.add_column(heading, overflow="fold")
    for row in rows(result):
        cells = (row.what, row.whose, row.figure, row.interval, row.detail)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    notes = [Text(printable(note), style="yellow") for note in result.notes]
    if not result.complete:
        notes.append(Text("Not every engine was asked to the end.", style="yellow"))
    return Group(table, *notes, Text(printable(result.sentence), style=STYLES[result.verdict]))
