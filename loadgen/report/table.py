"""The comparison table in the terminal."""

from __future__ import annotations

import rich.box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS, SIGNS, verdict_mark
from loadgen.presentation.text import DASH, ONLY_HEADLINES, count, printable, ratio, ratio_interval
from loadgen.report.cells import CellView, EngineCell
from loadgen.report.columns import SLO_COLUMNS, TPOT_P95, Column
from loadgen.report.data import ReportData
from loadgen.report.headline import headline, notices

WIDE = 104
"""Columns of a terminal that holds every figure."""
LEVEL_STYLES = {"bad": "bold red", "warn": "yellow", "info": "dim"}


class TerminalTable:
    """A rich renderable: what is wrong with the run, the table, the headline. Fits its terminal."""

    def __init__(self, data: ReportData, told: Language = ENGLISH) -> None:
        self.data = data
        self._told = told

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the width at hand."""
        for notice in notices(self.data):
            if notice.level != "info":
                yield Text(printable(self._told.shown(notice.text)), style=LEVEL_STYLES[notice.level])
        if self.data.cells and self.data.engines:
            yield self.cells(options.max_width >= WIDE)
        if self.data.capacity:
            yield self._capacity()
        yield Text(printable(self._told.shown(headline(self.data))), style="bold")

    def cells(self, wide: bool) -> Table:
        """The table alone."""
        columns = [column for column in self.data.columns if wide or not column.wide_only]
        if not wide and self.data.slo is not None:
            columns.remove(TPOT_P95)  # there is no room for this and goodput
        told = self._told
        load = {"concurrency": told("users"), "batch size": told("batch")}.get(self.data.load_axis, "req/s")
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        # Only names may give way to a narrow terminal: a figure that loses a digit is a wrong figure.
        lengths = told("prompt → output").replace("→ ", "→\n") if wide else told("prompt")
        table.add_column(f"{lengths}\n× {load}", overflow="fold")
        table.add_column(told("engine"), overflow="fold", max_width=24 if wide else 12)
        for column in columns:
            heading = f"{told(column.label)}\n{told(column.unit)}".replace(" ", "\n")
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(told("err."), justify="right", no_wrap=True)
        for view in self.data.cells:
            for seat, engine in enumerate(self.data.engines):
                entry = view.engines[engine]
                name = printable(engine) + (" *" if entry.status == "partial" else "") + (" !" if entry.limited else "")
                failed = DASH if entry.summary is None else count(sum(entry.summary.errors.values()))
                table.add_row(
                    Text("" if seat else self._cell_name(view, wide)),
                    Text(name, style=LOOKS[self.data.looks[seat]].terminal),
                    *(_figure(column, entry) for column in columns),
                    Text(failed, style="red" if failed not in (DASH, "0") else ""),
                )
            for seat, engine in enumerate(self.data.engines[1:], start=1):
                label = told("ratio") if len(self.data.engines) == 2 else f"{printable(engine)} ÷"
                table.add_row("", Text(label, style="dim"), *(self._ratio(view, seat, c) for c in columns), "")
            table.add_section()
        if len(self.data.engines) > 1:
            table.caption = self._caption()
        if any(entry.status == "partial" for view in self.data.cells for entry in view.engines.values()):
            table.caption = Text.assemble(table.caption or "", f"  * {told('partial')}")
        if any(entry.limited for view in self.data.cells for entry in view.engines.values()):
            limited = told("client-limited: decides nothing")
            table.caption = Text.assemble(table.caption or "", f"  ! {limited}")
        return table

    def _ratio(self, view: CellView, seat: int, column: Column) -> Text:
        """A ratio with the mark of its verdict if it is a headline metric, and its 95% interval below."""
        engine = self.data.engines[seat]
        cell = self.data.compared(engine, view.id)
        judged = cell.metrics.get(column.key) if cell else None
        if judged is None or judged.ratio is None:
            bare = view.ratios(self.data.engines[0], engine).get(column.key) if judged is None else None
            return Text(ratio(bare), style="dim")
        found = Text(ratio(judged.ratio.estimate), style="dim")
        if judged.headline:
            sign = verdict_mark(judged.verdict, self.data.looks[0], self.data.looks[seat])
            found.append(f" {sign.sign}")
            found.style = "dim" if sign.look is None else LOOKS[sign.look].terminal
        ends = ratio_interval(judged.ratio.ci95, fine=False)
        return found.append(f"\n{ends}", style="dim") if ends else found

    def _caption(self) -> Text:
        """What the signs of ratios mean."""
        told, first = self._told, printable(self.data.engines[0])
        found = Text(told("ratio: a figure divided by that of {engine}, with its 95% interval;", engine=first))
        for place, engine in zip(self.data.looks, self.data.engines, strict=True):
            look = LOOKS[place]
            faster = told("{engine} is faster", engine=printable(engine))
            found.append(f" {look.glyph}", style=look.terminal).append(f" {faster},")
        signs = ", ".join(f"{sign} {told(words)}" for sign, words in SIGNS)
        return found.append(f" {signs}. {told(ONLY_HEADLINES)}")

    def _capacity(self) -> Table:
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        told = self._told
        for heading in (told("prompt → output").replace("→ ", "→\n"), told("engine")):
            table.add_column(heading, overflow="fold")
        for heading in (told("capacity"), told("interval")):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(told("note"), overflow="fold")
        for row in self.data.capacity:
            shared = f", {self._shared(round(100 * row.shared_prefix))}" if row.shared_prefix else ""
            shape = f"{row.prompt_tokens} → {row.output_tokens}{shared}"
            cells = (shape, printable(row.engine), row.text, row.interval_text, row.note)
            table.add_row(*(Text(told.shown(cell)) for cell in cells))
        return table

    def _cell_name(self, view: CellView, wide: bool) -> str:
        if view.cell is None:
            return printable(view.id)
        output = f" → {view.cell.output_tokens}" if wide else ""
        # What else a cell has is the same in all of them.
        shared = f", {self._shared(view.cell.shared_percent)}" if view.cell.shared_percent else ""
        return f"{view.cell.prompt_tokens}{output} × {view.cell.load:g}{shared}"

    def _shared(self, percent: int) -> str:
        return self._told("{percent}% shared", percent=percent)


def _figure(column: Column, entry: EngineCell) -> Text:
    """A figure; those of the SLO have no verdict that would show how sure they are, so their intervals stand below."""
    found = Text(column.text(entry.summary))
    ends = column.interval_text(entry.intervals.get(column.key)) if column in SLO_COLUMNS else ""
    return found.append(f"\n{ends}", style="dim") if ends else found


def terminal_table(data: ReportData, told: Language = ENGLISH) -> TerminalTable:
    """Return the comparison table as a rich renderable: `Console().print(terminal_table(data))`."""
    return TerminalTable(data, told)
