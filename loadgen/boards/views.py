"""Each panel as the page shows it: a plot with its legend, tiles, a table, or why there is nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from markdown_it import MarkdownIt

from loadgen.boards.answers import Answer
from loadgen.boards.colours import TEXT, Colour
from loadgen.boards.figures import Figure, lines_figure, states_figure, value_text
from loadgen.boards.model import Panel, Place
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span

MARKDOWN = MarkdownIt("commonmark", {"html": False})


@dataclasses.dataclass(frozen=True)
class Key:
    """One entry of a legend: a line with its newest and its greatest value."""

    name: str
    colour: Colour
    dash: str
    last: str
    max: str


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure and its legend, in the order of the figure's lines; states have none."""

    figure: Figure
    keys: list[Key]


@dataclasses.dataclass(frozen=True)
class Tile:
    """One figure. `share` is how far its bar goes, 0 to 1, where it has one."""

    name: str
    text: str
    colour: Colour
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    numeric: bool = False
    engine: str | None = None
    """The engine that the cell names."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    columns: list[str]
    rows: list[list[Cell]]


@dataclasses.dataclass(frozen=True)
class View:
    """One panel as it is shown: one of plot, tiles and table, or none of them and the reason."""

    title: str
    about: str
    """HTML, made of Markdown."""
    place: Place
    problems: tuple[str, ...]
    points: int
    plot: Plot | None = None
    tiles: list[Tile] | None = None
    table: Table | None = None
    reason: str | None = None


def view_of(
    panel: Panel, place: Place, answer: Answer, span: Span, paint: Paint, background: Sequence[Figure] = ()
) -> View:
    """What the page shows of a panel and the answer to its queries."""
    view = View(panel.title, MARKDOWN.renderInline(panel.about), place, answer.problems, answer.points)
    if answer.points == 0:
        return dataclasses.replace(view, reason=panel.no_data)
    if panel.kind == "table":
        return dataclasses.replace(view, table=_table(panel, answer))
    if panel.kind in ("stat", "bargauge"):
        return dataclasses.replace(view, tiles=list(_tiles(panel, answer, paint)))
    if panel.kind == "state-timeline":
        return dataclasses.replace(view, plot=Plot(states_figure(panel, answer.lines, span, paint, background), []))
    looks = paint.lines(panel, answer.lines)
    keys = [
        Key(line.name, colour, dash, value_text(panel, line.present[-1]), value_text(panel, max(line.present)))
        for line, (colour, dash) in zip(answer.lines, looks, strict=True)
    ]
    figure = lines_figure(panel, answer.lines, looks, span, paint, background)
    return dataclasses.replace(view, plot=Plot(figure, keys))


def _tiles(panel: Panel, answer: Answer, paint: Paint) -> Iterable[Tile]:
    samples = answer.newest()
    least = panel.minimum or 0.0
    most = max(sample.value for sample in samples) if panel.maximum is None else panel.maximum
    for sample in samples:
        text = value_text(panel, sample.value)
        if panel.kind == "stat":
            yield Tile(sample.name if len(samples) > 1 else "", text, TEXT)
            continue
        share = 0.0 if most <= least else min(1.0, max(0.0, (sample.value - least) / (most - least)))
        yield Tile(sample.name, text, paint.state(panel, sample, sample.value) or TEXT, share)


def _table(panel: Panel, answer: Answer) -> Table:
    """A row for each series: its labels, and then its value."""
    samples = answer.newest()
    columns = [*sorted({label for sample in samples for label in sample.labels}), "Value"]
    columns = [column for column in columns if column not in (*panel.hidden, "__name__")]

    def cell(column: str, labels: dict[str, str], value: float) -> Cell:
        if column == "Value":
            return Cell(value_text(panel, value), numeric=True)
        text = labels.get(column)
        return Cell(panel.no_data if text is None else text, engine=text if column == "engine" else None)

    return Table(columns, [[cell(column, dict(s.labels), s.value) for column in columns] for s in samples])
