"""A panel's series as a figure in plotly's terms: lines over time, and states over time."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from loadgen.boards import units
from loadgen.boards.answers import Line, Outage
from loadgen.boards.colours import BAD, CARD, MUTED, TEXT, Colour
from loadgen.boards.marks import Mark
from loadgen.boards.model import Panel
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span

Figure = dict[str, Any]
DIGITS = 8
"""Digits that count of each value on the page: more than a picture shows, and half the size of all of them."""
SHADE = 0.10
DOT = 5
LINE_WIDTH = 2
SMALL = {"mode": "hide", "minsize": 9}
"""Text that does not fit into its bar is left out."""


def value_text(panel: Panel, value: float) -> str:
    """A value of a panel as it is shown: as a state, else with its unit."""
    return panel.states.get(value) or units.text(value, panel.unit, panel.decimals)


def lines_figure(
    panel: Panel,
    lines: Sequence[Line],
    looks: Sequence[tuple[Colour, str]],
    span: Span,
    paint: Paint,
    background: Iterable[Figure] = (),
) -> Figure:
    """Lines over time. A moment without a value is a gap, and a value alone between two gaps is a dot.

    `layout.meta` says by what the axis' values were divided.
    """
    scale = units.scale_for(panel.unit, max((abs(value) for line in lines for value in line.present), default=0))
    data = []
    for line, look in zip(lines, looks, strict=True):
        values = [None if value is None else rounded(value / scale.divisor) for value in line.values]
        hover = {"yaxis": "y", "hovertemplate": f"%{{y:,.4~r}}{scale.suffix}"}
        data.append(_trace(line.name, values, look, span, paint) | hover)
    limit = [] if panel.bad_from is None else [_limit(rounded(panel.bad_from / scale.divisor), paint.token(BAD))]
    layout = _layout(span, [*background, *limit], paint)
    layout["meta"] = {"divisors": {"y": scale.divisor}}
    shown = [value for trace in data for value in trace["y"] if value is not None]
    layout["yaxis"] = _value_axis(panel, scale.divisor, shown) | {"ticksuffix": scale.suffix}
    return {"data": data, "layout": layout}


def states_figure(
    panel: Panel, lines: Sequence[Line], span: Span, paint: Paint, background: Iterable[Figure] = ()
) -> Figure:
    """States over time, one row a series. A row is one bar for each stretch of equal values; a gap stays empty."""
    traces: dict[tuple[str, Colour], Figure] = {}
    for line in lines:
        for start, end, value in _stretches(line.values, span):
            words = value_text(panel, value)
            shade = paint.state(panel, line, value) or MUTED
            trace = traces.setdefault((words, shade), _bars(words, paint.token(shade)))
            _add_bar(trace, line.name, start, end, words, f"{clock(start)} to {clock(end)}")
    names = list(dict.fromkeys(line.name for line in lines))
    return _rows_figure(list(traces.values()), names, _layout(span, background, paint))


def blocks_figure(marks: Sequence[Mark], outages: Sequence[Outage], span: Span, paint: Paint) -> Figure:
    """Which engine's block ran when: one row an engine."""
    engines = list(dict.fromkeys(mark.engine for mark in marks))
    data = []
    for engine in engines:
        trace = _bars(engine, paint.token(paint.engine(engine)))
        for mark in (mark for mark in marks if mark.engine == engine):
            start, end = max(mark.start, span.start), min(max(mark.end, mark.start), span.end)
            if end >= start:
                words = f"{mark.cell}, block {mark.block}<br>{clock(mark.start)} to {clock(mark.end)}"
                _add_bar(trace, engine, start, end, mark.cell, words)
        data.append(trace)
    grounds = [_away(start, end, span, paint) for start, end in outages]
    return _rows_figure(data, engines, _layout(span, grounds, paint))


def mark_shapes(marks: Sequence[Mark], span: Span, paint: Paint) -> list[Figure]:
    """Each block as a faint ground in its engine's colour."""
    return [
        _ground(max(mark.start, span.start), min(mark.end, span.end), paint.token(paint.engine(mark.engine)), SHADE)
        for mark in marks
        if mark.end > span.start and mark.start < span.end
    ]


def outage_shapes(outages: Sequence[Outage], span: Span, paint: Paint) -> list[Figure]:
    """Each time in which Prometheus took nothing in, as a gray ground that says so."""
    font = {"size": 10, "color": paint.token(TEXT)}
    label = {"text": "not recorded", "textangle": -90, "font": font}
    return [_away(start, end, span, paint) | {"label": label} for start, end in outages]


def moment(seconds: float) -> str:
    """A moment as plotly reads it, in UTC, to the millisecond."""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]


def clock(seconds: float) -> str:
    """The time of day of a moment, in UTC."""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%H:%M:%S}"


def rounded(value: float) -> float:
    """Without the digits that no picture shows."""
    return float(f"{value:.{DIGITS}g}")


def _trace(name: str, values: list[float | None], look: tuple[Colour, str], span: Span, paint: Paint) -> Figure:
    colour, dash = look
    token = paint.token(colour)
    trace: Figure = {
        "name": name,
        "x0": moment(span.start),
        "dx": span.step * 1000,
        "y": values,
        "type": "scatter",
        "mode": "lines",
        "connectgaps": False,
        "line": {"color": token, "dash": dash, "width": LINE_WIDTH},
    }
    alone = [
        value is not None and (i == 0 or values[i - 1] is None) and (i + 1 == len(values) or values[i + 1] is None)
        for i, value in enumerate(values)
    ]
    if any(alone):
        trace["mode"] = "lines+markers"
        trace["marker"] = {"color": token, "size": [DOT if one else 0 for one in alone], "line": {"width": 0}}
    return trace


def _bars(name: str, token: str) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "base": [],
        "x": [],
        "y": [],
        "text": [],
        "textposition": "inside",
        "insidetextanchor": "start",
        "textangle": 0,
        "customdata": [],
        "marker": {"color": token, "line": {"width": 0}},
        "hovertemplate": "%{fullData.name}<br>%{customdata}<extra>%{y}</extra>",
    }


def _add_bar(trace: Figure, row: str, start: float, end: float, inside: str, hover: str) -> None:
    trace["base"].append(moment(start))
    trace["x"].append(round((end - start) * 1000))
    trace["y"].append(row)
    trace["text"].append(inside)
    trace["customdata"].append(hover)


def _rows_figure(data: list[Figure], names: Sequence[str], layout: Figure) -> Figure:
    axis = {
        "type": "category",
        "categoryarray": list(names),
        "categoryorder": "array",
        "range": [len(names) - 0.5, -0.5],
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
    }
    own = {"barmode": "overlay", "bargap": 0.25 if len(names) > 1 else 0.5, "hovermode": "closest"}
    return {"data": data, "layout": layout | own | {"uniformtext": SMALL, "yaxis": axis}}


def _value_axis(panel: Panel, divisor: float, shown: Sequence[float]) -> Figure:
    least = None if panel.minimum is None else panel.minimum / divisor
    most = None if panel.maximum is None else panel.maximum / divisor
    low = min([*shown, 0.0])
    high = max(shown, default=0.0)
    if least is not None:
        low = min(least, low) if shown else least
    if most is not None:
        high = max(most, high)
    room = 0.0 if most is not None and high == most else 0.06 * (high - low)
    ends = [low - (room if low < 0 else 0), high + room] if high > low else [low, low + (most or 1.0)]
    return {
        "automargin": True,
        "zeroline": False,
        "gridcolor": "#8884",
        "fixedrange": True,
        "nticks": 6,
        "range": ends,
    }


def _layout(span: Span, shapes: Iterable[Figure], paint: Paint) -> Figure:
    return {
        "autosize": False,
        "font": {"size": 11, "color": paint.token(MUTED)},
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {
            "font": {"size": 12, "color": paint.token(TEXT)},
            "bgcolor": paint.token(CARD),
            "namelength": -1,
        },
        "margin": {"l": 8, "r": 12, "t": 6, "b": 24, "pad": 2},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "shapes": list(shapes),
        "xaxis": {
            "type": "date",
            "range": [moment(span.start), moment(span.start + (span.count - 1) * span.step)],
            "gridcolor": "#8882",
            "tickformat": _clock_format(span),
            "tickangle": 0,
            "hoverformat": "%Y-%m-%d %H:%M:%S",
        },
    }


def _clock_format(span: Span) -> str:
    """Times of day, with seconds on short ranges and with the date on those over a day."""
    return "%H:%M:%S" if span.seconds < 1200 else "%H:%M" if span.seconds < 86400 else "%b %-d %H:%M"


def _limit(at: float, token: str) -> Figure:
    """From where on a value is bad, as a line."""
    line = {"color": token, "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": at, "y1": at, "line": line}


def _stretches(values: Sequence[float | None], span: Span) -> Iterator[tuple[float, float, float]]:
    """Runs of equal values: from, to (seconds since the Unix epoch), value."""
    begin = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[begin]:
            value = values[begin]
            if value is not None:
                yield span.start + begin * span.step, span.start + i * span.step, value
            begin = i


def _away(start: float, end: float, span: Span, paint: Paint) -> Figure:
    return _ground(start, min(end, span.end), paint.token(MUTED), 0.25)


def _ground(start: float, end: float, token: str, opacity: float) -> Figure:
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": moment(start),
        "x1": moment(end),
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": token,
        "opacity": opacity,
    }
