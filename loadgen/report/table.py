"""The comparison table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import rich.box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from loadgen.presentation.ascii import in_ascii
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS, SIGNS, verdict_mark
from loadgen.presentation.text import DASH, ONLY_HEADLINES, count, printable, ratio, ratio_interval
from loadgen.report.cells import CellView, EngineCell
from loadgen.report.columns import SLO_COLUMNS, TPOT_P95, TTFT_P95, Column
from loadgen.report.data import ReportData
from loadgen.report.endings import endings_words, mixed
from loadgen.report.headline import headline, notices
from loadgen.report.verdicts import VerdictEntry, VerdictTable, row_axis, verdict_tables

WIDE = 104
"""Columns of a terminal that holds every figure."""
ROW_NAME, VERDICT = 22, 12
"""Columns of the verdicts: a row's name at most, a verdict at least."""
DISPENSABLE = (TPOT_P95, TTFT_P95)
"""What is left out first where there is no room; the report has it."""
ENDLESS = 500
LEVEL_STYLES = {"bad": "bold red", "warn": "yellow", "info": "dim"}


class Plain:
    """A renderable in ASCII where its terminal has no more."""

    def __init__(self, *parts: RenderableType) -> None:
        self.parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the parts one below the other."""
        for part in self.parts:
            for segment in console.render(part, options):
                yield Segment(in_ascii(segment.text), *segment[1:]) if options.ascii_only else segment


class TerminalTable:
    """A rich renderable: the table, the verdicts, what is wrong with the run, the headline. Fits its terminal, which
    shows the end of it."""

    def __init__(self, data: ReportData, language: Language = ENGLISH) -> None:
        self.data = data
        self.say = language

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the width at hand."""
        parts: list[RenderableType] = []
        if self.data.cells and self.data.engines:
            parts.append(self.cells(options.max_width))
        ended = endings_words(self.data.endings)
        if ended is not None and not mixed(self.data.endings):  # else it is among the notices
            parts.append(self._text(ended, "dim"))
        if self.data.capacity:
            parts.append(self._capacity())
        for table in verdict_tables(self.data):
            parts += self.verdicts(table)
        told = [notice for notice in notices(self.data) if notice.level != "info"]
        if told:
            parts += [Text(), *(self._text(notice.text, LEVEL_STYLES[notice.level]) for notice in told)]
        parts.append(Text())
        found = headline(self.data)
        parts += [
            self._text(found.sentence, "bold"),
            *(self._text(f"  {self.say.shown(fact)}") for fact in found.facts),
            *([self._text(f"  {self.say.shown(found.following)}")] if found.following else []),
        ]
        if self.data.experiment is not None:
            parts += map(self._text, self.data.experiment.lines())
        yield Plain(*parts)

    def _text(self, text: str, style: str = "") -> Text:
        return Text(printable(self.say.shown(text)), style=style)

    def verdicts(self, found: VerdictTable) -> list[RenderableType]:
        """The verdicts by cell, each in a dozen characters, and what they mean."""
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        widest = min(ROW_NAME, max((cell_len(self.say.shown(row.words)) for row in found.rows), default=0))
        table.add_column(self.say.shown(row_axis(self.data)), overflow="fold", min_width=widest, max_width=ROW_NAME)
        for metric in found.metrics:
            table.add_column(self.say.shown(metric), min_width=VERDICT)
        for row in found.rows:
            cells = [_signed(entry) for entry in row.entries]
            table.add_row(self._text(row.words), *cells, style="bold" if row.cell is None else "")
        legend = Text(style="dim")
        comma, ending = self.say.comma, self.say.stop + self.say.gap
        for engine in (found.a, found.b):
            look = LOOKS[self.data.look(engine)]
            legend.append(look.glyph, style=look.terminal).append(
                f" {printable(engine)} {self.say('is faster')}{comma}"
            )
        for sign, words in SIGNS:
            legend.append(f"{sign} {self.say(words)}{ending if sign == SIGNS[-1][0] else comma}")
        legend.append(self.say.shown(found.figures))
        reasons = [self._text(f"{sign} {self.say.shown(text)}", "dim") for sign, text in found.reasons]
        return [table, legend, *reasons]

    def cells(self, width: int) -> Table:
        """The table alone, for a terminal of so many columns: what is no headline gives way to whole names."""
        wide = width >= WIDE
        columns = [column for column in self.data.columns if wide or not column.wide_only]
        if not wide and self.data.slo is not None:
            columns.remove(TPOT_P95)  # there is no room for this and goodput
        table = self._cells(columns, wide)
        for column in DISPENSABLE:
            if not wide and column in columns and Console(width=ENDLESS).measure(table).maximum > width:
                columns.remove(column)
                table = self._cells(columns, wide)
        return table

    def _cells(self, columns: Sequence[Column], wide: bool) -> Table:
        say = self.say
        load = {"concurrency": say("users"), "batch size": say("batch")}.get(self.data.load_axis, "req/s")
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        # Only names may give way to a narrow terminal: a figure that loses a digit is a wrong figure.
        lengths = say("prompt → output").replace("→ ", "→\n") if wide else say("prompt")
        table.add_column(f"{lengths}\n× {load}", overflow="fold")
        table.add_column(say("engine"), overflow="fold", max_width=24 if wide else 12)
        for column in columns:
            heading = f"{say(column.label)}\n{say(column.unit)}".replace(" ", "\n")
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(say("err."), justify="right", no_wrap=True)
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
                label = say("ratio") if len(self.data.engines) == 2 else f"{printable(engine)} ÷"
                table.add_row("", Text(label, style="dim"), *(self._ratio(view, seat, c) for c in columns), "")
            table.add_section()
        if len(self.data.engines) > 1:
            table.caption = self._caption()
        if any(entry.status == "partial" for view in self.data.cells for entry in view.engines.values()):
            table.caption = Text.assemble(table.caption or "", f"  * {say('partial')}")
        if any(entry.limited for view in self.data.cells for entry in view.engines.values()):
            limited = say("client-limited: decides nothing")
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
        ends = ratio_interval(judged.ratio.ci95, fine=False, of=judged.ratio.estimate)
        return found.append(f"\n{ends}", style="dim") if ends else found

    def _caption(self) -> Text:
        """What the signs of ratios mean."""
        say, first = self.say, printable(self.data.engines[0])
        found = Text(say("ratio: a figure divided by that of {engine}, with its 95% interval;", engine=first))
        found.append(say.gap)
        for place, engine in zip(self.data.looks, self.data.engines, strict=True):
            look = LOOKS[place]
            found.append(look.glyph, style=look.terminal).append(f" {printable(engine)} {say('is faster')}{say.comma}")
        signs = say.comma.join(f"{sign} {say(words)}" for sign, words in SIGNS)
        return found.append(f"{signs}{say.stop}{say.gap}{say(ONLY_HEADLINES)}")

    def _capacity(self) -> Table:
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        say = self.say
        for heading in (say("prompt → output").replace("→ ", "→\n"), say("engine")):
            table.add_column(heading, overflow="fold")
        for heading in (say("capacity"), say("interval")):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(say("note"), overflow="fold")
        for row in self.data.capacity:
            shared = f", {self._shared(round(100 * row.shared_prefix))}" if row.shared_prefix else ""
            shape = f"{row.prompt_tokens} → {row.output_tokens}{shared}"
            cells = (shape, printable(row.engine), row.text, row.interval_text, row.note)
            table.add_row(*(Text(say.shown(cell)) for cell in cells))
        return table

    def _cell_name(self, view: CellView, wide: bool) -> str:
        if view.cell is None:
            return printable(view.id)
        output = f" → {view.cell.output_tokens}" if wide else ""
        # What else a cell has is the same in all of them.
        shared = f", {self._shared(view.cell.shared_percent)}" if view.cell.shared_percent else ""
        return f"{view.cell.prompt_tokens}{output} × {view.cell.load:g}{shared}"

    def _shared(self, percent: int) -> str:
        return self.say("{percent}% shared", percent=percent)


def _figure(column: Column, entry: EngineCell) -> Text:
    """A figure; those of the SLO have no verdict that would show how sure they are, so their intervals stand below."""
    found = Text(column.text(entry.summary))
    ends = column.interval_text(entry.intervals.get(column.key)) if column in SLO_COLUMNS else ""
    return found.append(f"\n{ends}", style="dim") if ends else found


def _signed(entry: VerdictEntry) -> Text:
    """A verdict's mark and figure; between them, where nobody won, the mark of who is ahead."""
    text = Text(entry.mark.sign, style="" if entry.mark.look is None else LOOKS[entry.mark.look].terminal)
    if entry.lead is not None and entry.lead.look is not None:
        text.append(entry.lead.sign, style=LOOKS[entry.lead.look].terminal)
    return text.append(f" {entry.brief}")


def terminal_table(data: ReportData, language: Language = ENGLISH) -> TerminalTable:
    """Return the comparison table as a rich renderable: `Console().print(terminal_table(data))`."""
    return TerminalTable(data, language)
