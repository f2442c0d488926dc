"""The comparison table in the terminal."""

from __future__ import annotations

import rich.box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from loadgen.report.columns import quotient
from loadgen.report.data import CellView, ReportData
from loadgen.report.headline import headline, notices
from loadgen.report.text import DASH, count, printable, ratio

WIDE = 104
"""Columns of a terminal that holds every figure."""
ENGINE_STYLES = ("cyan", "yellow", "green", "magenta", "bright_yellow", "white")
LEVEL_STYLES = {"bad": "bold red", "warn": "yellow", "info": "dim"}


class TerminalTable:
    """A rich renderable: what is wrong with the run, the table, the headline. Fits its terminal."""

    def __init__(self, data: ReportData) -> None:
        self.data = data

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the width at hand."""
        for notice in notices(self.data):
            if notice.level != "info":
                yield Text(printable(notice.text), style=LEVEL_STYLES[notice.level])
        if self.data.cells and self.data.engines:
            yield self.cells(options.max_width >= WIDE)
        if self.data.capacity:
            yield self._capacity()
        yield Text(printable(headline(self.data)), style="bold")

    def cells(self, wide: bool) -> Table:
        """The table alone."""
        columns = [column for column in self.data.columns if wide or not column.wide_only]
        load = "users" if self.data.load_axis == "concurrency" else "req/s"
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        # Only names may give way to a narrow terminal: a figure that loses a digit is a wrong figure.
        table.add_column(f"prompt →\noutput\n× {load}" if wide else f"prompt\n× {load}", overflow="fold")
        table.add_column("engine", overflow="fold", max_width=24 if wide else 12)
        for column in columns:
            table.add_column(f"{column.label}\n{column.unit}".replace(" ", "\n"), justify="right", no_wrap=True)
        table.add_column("errors", justify="right", no_wrap=True)
        for view in self.data.cells:
            for seat, engine in enumerate(self.data.engines):
                entry = view.engines[engine]
                name = printable(engine) + (" *" if entry.status == "partial" else "") + (" !" if entry.limited else "")
                failed = DASH if entry.summary is None else count(sum(entry.summary.errors.values()))
                table.add_row(
                    Text("" if seat else _cell_name(view, wide)),
                    Text(name, style=ENGINE_STYLES[seat % len(ENGINE_STYLES)]),
                    *(column.text(entry.summary) for column in columns),
                    Text(failed, style="red" if failed not in (DASH, "0") else ""),
                )
            base = view.engines[self.data.engines[0]]
            for engine in self.data.engines[1:]:
                other = view.engines[engine]
                both = base.decides and other.decides
                ratios = [ratio(quotient(c, base.summary, other.summary) if both else None) for c in columns]
                label = "ratio" if len(self.data.engines) == 2 else f"{printable(engine)} ÷"
                table.add_row("", Text(label), *ratios, "", style="dim")
            table.add_section()
        if len(self.data.engines) > 1:
            table.caption = Text(f"ratio: a figure divided by that of {printable(self.data.engines[0])}")
        if any(entry.status == "partial" for view in self.data.cells for entry in view.engines.values()):
            table.caption = Text.assemble(table.caption or "", "  * partial")
        if any(entry.limited for view in self.data.cells for entry in view.engines.values()):
            table.caption = Text.assemble(table.caption or "", "  ! client-limited: decides nothing")
        return table

    def _capacity(self) -> Table:
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        for heading in ("prompt →\noutput", "engine"):
            table.add_column(heading, overflow="fold")
        for heading in ("capacity", "interval"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("note", overflow="fold")
        for row in self.data.capacity:
            shared = f", {row.shared_prefix:.0%} shared" if row.shared_prefix else ""
            shape = f"{row.prompt_tokens} → {row.output_tokens}{shared}"
            cells = (shape, printable(row.engine), row.text, row.interval_text, row.note)
            table.add_row(*(Text(cell) for cell in cells))
        return table


def _cell_name(view: CellView, wide: bool) -> str:
    if view.cell is None:
        return printable(view.id)
    output = f" → {view.cell.output_tokens}" if wide else ""
    # What else a cell has is the same in all of them.
    shared = f", {view.cell.shared_percent}% shared" if view.cell.shared_percent else ""
    return f"{view.cell.prompt_tokens}{output} × {view.cell.load:g}{shared}"


def terminal_table(data: ReportData) -> TerminalTable:
    """Return the comparison table as a rich renderable: `Console().print(terminal_table(data))`."""
    return TerminalTable(data)
