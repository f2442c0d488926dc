"""A comparison of two runs in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadgen.compare.comparison import RunComparison
from loadgen.compare.headline import headline, notices
from loadgen.compare.rows import Row, rows
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS
from loadgen.presentation.text import ONLY_HEADLINES, cell_words, printable
from loadgen.report.table import LEVEL_STYLES, WIDE, terminal_table


def show_comparison(console: Console, comparison: RunComparison, told: Language = ENGLISH) -> None:
    """Print what differs, both engines' figures, their differences, and the verdict."""
    wide = console.width >= WIDE
    console.print(terminal_table(comparison.report, told).cells(console.width))
    for cell, own in itertools.groupby(rows(comparison.statistics, every=False), key=lambda row: row.cell):
        console.print(_table(cell, list(own), wide, comparison.report.looks, told))
    console.print(Text(told(ONLY_HEADLINES), style="dim"), soft_wrap=True)
    console.print()
    for notice in notices(comparison):
        console.print(Text(printable(told.shown(notice.text)), style=LEVEL_STYLES[notice.level]), soft_wrap=True)
    console.print(Text(printable(told.shown(headline(comparison).text)), style="bold"), soft_wrap=True)


def _table(cell: str, own: list[Row], wide: bool, looks: Sequence[int], told: Language) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.title, table.title_justify = Text(told.shown(cell_words(cell))), "left"
    table.add_column(told("95% intervals"), overflow="fold")
    if wide:
        for name in ("A", "B"):
            table.add_column(name, justify="right", no_wrap=True)
    table.add_column("B − A", justify="right", no_wrap=True)
    table.add_column("B ÷ A − 1", justify="right", no_wrap=True)
    table.add_column(told("verdict"), overflow="fold")
    for row in own:
        figures = (row.a, row.b) if wide else ()
        style = LOOKS[looks[row.winner]].terminal if row.winner is not None else "dim"
        verdict = Text(printable(told.shown(row.verdict)), style=style)
        table.add_row(f"{told.shown(row.metric)} {told(row.unit)}", *figures, row.difference, row.change, verdict)
    return table
