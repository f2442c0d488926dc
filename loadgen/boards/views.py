"""Each panel as the page shows it: a plot with its legend, tiles, a table, a text, or why there is nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt

from loadgen.boards.answers import Answer, Line
from loadgen.boards.colours import TEXT, Colour
from loadgen.boards.dashboard import Panel, Place
from loadgen.boards.fields import Field, field_of
from loadgen.boards.figures import Figure, lines_figure, states_figure
from loadgen.boards.macros import Value, plain
from loadgen.boards.paint import Paint
from loadgen.boards.reduce import REDUCERS, name, reduce
from loadgen.boards.span import Span
from loadgen.boards.tables import Table, table_of

NOTHING = "No data in this time range."
MARKDOWN = MarkdownIt("commonmark", {"html": False})


@dataclasses.dataclass(frozen=True)
class Key:
    """One entry of a legend. `trace` is its place among the plot's series; None where it stands for several."""

    name: str
    colour: Colour
    dash: str = "solid"
    figures: tuple[str, ...] = ()
    trace: int | None = None


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure and its legend; `columns` are the legend's figures, such as `mean`."""

    figure: Figure
    keys: list[Key]
    columns: list[str]


@dataclasses.dataclass(frozen=True)
class Tile:
    """One figure. `share` is how far its bar goes, 0 to 1, where it has one."""

    name: str
    text: str
    colour: Colour
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """One panel as it is shown: one of plot, tiles, table and text, or none of them and the reason."""

    title: str
    about: str
    """HTML, made of Markdown."""
    place: Place
    problems: tuple[str, ...]
    points: int
    plot: Plot | None = None
    tiles: list[Tile] | None = None
    table: Table | None = None
    text: str | None = None
    """HTML, made of Markdown."""
    reason: str | None = None


def view_of(
    panel: Panel,
    answer: Answer,
    values: Mapping[str, Value],
    span: Span,
    paint: Paint,
    background: Sequence[dict[str, Any]] = (),
) -> View:
    """What the page shows of a panel and the answer to its queries."""
    view = View(
        title=plain(panel.title, values),
        about=MARKDOWN.renderInline(plain(panel.description, values)),
        place=panel.place,
        problems=answer.problems,
        points=answer.points,
    )
    if panel.type == "text":
        content = plain(str(panel.options.get("content") or ""), values)
        return dataclasses.replace(view, text=MARKDOWN.render(content))
    if answer.points == 0:
        return dataclasses.replace(view, reason=str(panel.fields.defaults.get("noValue") or NOTHING))
    if panel.type == "table":
        return dataclasses.replace(view, table=table_of(panel, answer))
    if panel.type in ("stat", "gauge", "bargauge"):
        return dataclasses.replace(view, tiles=list(_tiles(panel, answer, paint)))
    lines = answer.lines or _flat(answer, span)
    fields = [field_of(panel.fields, line.name, ref=line.ref) for line in lines]
    legend = panel.options.get("legend") or {}
    if panel.type == "state-timeline":
        figure, states = states_figure(lines, fields, span, paint, background)
        keys = [Key(words, colour) for words, colour in states if legend.get("showLegend", True)]
        return dataclasses.replace(view, plot=Plot(figure, keys, []))
    looks = paint.lines(fields, [line.labels.get("engine") for line in lines])
    figure = lines_figure(lines, fields, looks, span, paint, background)
    return dataclasses.replace(view, plot=_with_legend(legend, figure, lines, fields, looks))


def _with_legend(
    legend: Mapping[str, Any],
    figure: Figure,
    lines: Sequence[Line],
    fields: Sequence[Field],
    looks: Sequence[tuple[Colour, str]],
) -> Plot:
    if legend.get("showLegend") is False:
        return Plot(figure, [], [])
    calcs = [calc for calc in legend.get("calcs") or () if calc in REDUCERS]
    keys = [
        Key(field.name, colour, dash, tuple(field.text(reduce(line.values, calc)) for calc in calcs), i)
        for i, (line, field, (colour, dash)) in enumerate(zip(lines, fields, looks, strict=True))
    ]
    return Plot(figure, keys, [name(calc) for calc in calcs])


def _tiles(panel: Panel, answer: Answer, paint: Paint) -> Iterable[Tile]:
    options = panel.options.get("reduceOptions") or {}
    how = next((calc for calc in options.get("calcs") or () if calc in REDUCERS), "lastNotNull")
    figures = [(s.name, s.ref, s.labels, s.value) for s in answer.samples]
    for line in answer.lines:
        value = reduce(line.values, how)
        if value is not None:
            figures.append((line.name, line.ref, line.labels, value))
    fields = [field_of(panel.fields, name, ref=ref) for name, ref, _, _ in figures]
    largest = max(value for *_, value in figures)
    for (_, _, labels, value), field in zip(figures, fields, strict=True):
        engine = labels.get("engine")
        colour = field.state_colour(value) or field.fixed or (paint.engine(engine) if engine else TEXT)
        yield Tile(
            name=field.name if len(figures) > 1 or panel.type != "stat" else "",
            text=field.text(value),
            colour=TEXT if panel.options.get("colorMode") == "none" else colour,
            share=None if panel.type == "stat" else _share(value, field, largest),
        )


def _share(value: float, field: Field, largest: float) -> float:
    least = field.least or 0.0
    most = largest if field.most is None else field.most
    return 0.0 if most <= least else min(1.0, max(0.0, (value - least) / (most - least)))


def _flat(answer: Answer, span: Span) -> tuple[Line, ...]:
    """Instant values in a panel over time: each at the range's end."""
    return tuple(Line(s.name, s.ref, s.labels, [*[None] * (span.count - 1), s.value]) for s in answer.samples)
