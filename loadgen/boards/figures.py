"""A panel's series as a figure in plotly's terms: lines over time, and states over time."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from loadgen.boards.answers import Line, Outage
from loadgen.boards.colours import CARD, MUTED, TEXT, Colour, colour
from loadgen.boards.fields import Field
from loadgen.boards.marks import Mark
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span
from loadgen.boards.units import scale_for

Figure = dict[str, Any]
DIGITS = 8
"""Digits that count of each value on the page: more than a picture shows, and half the size of all of them."""
SHADE = 0.10
DOT = 5
SMALL = {"mode": "hide", "minsize": 9}
"""Text that does not fit into its bar is left out."""


def lines_figure(
    lines: Sequence[Line],
    fields: Sequence[Field],
    looks: Sequence[tuple[Colour, str]],
    span: Span,
    paint: Paint,
    background: Iterable[dict[str, Any]] = (),
) -> Figure:
    """Lines over time. A moment without a value is a gap, and a value alone between two gaps is a dot.

    `layout.meta` says by what each axis' values were divided.
    """
    axes = [_axis(field, fields[0]) for field in fields]
    scales = {}
    for axis in sorted(set(axes)):
        own = [line for line, other in zip(lines, axes, strict=True) if other == axis]
        unit = next(field.unit for field, other in zip(fields, axes, strict=True) if other == axis)
        scales[axis] = scale_for(unit, max((abs(v) for line in own for v in line.values if v is not None), default=0))
    data = []
    for line, field, look, axis in zip(lines, fields, looks, axes, strict=True):
        scale = scales[axis]
        values = [None if value is None else rounded(value / scale.divisor) for value in line.values]
        trace = _trace(line, values, field, look, span, paint)
        trace["yaxis"] = axis
        trace["hovertemplate"] = f"{scale.prefix}%{{y:,.4~r}}{scale.suffix}"
        data.append(trace)
    layout = _layout(span, [*background, *_limits(fields, axes, scales, paint)], paint)
    layout["barmode"] = "stack" if any(_stacked(field) for field in fields) else "overlay"
    layout["bargap"] = 0
    layout["meta"] = {"divisors": {axis: scale.divisor for axis, scale in scales.items()}}
    for axis, scale in scales.items():
        own_fields = [field for field, other in zip(fields, axes, strict=True) if other == axis]
        shown = [v for trace in data if trace["yaxis"] == axis for v in trace["y"] if v is not None]
        layout[axis.replace("y", "yaxis")] = _value_axis(axis, own_fields[0], scale.divisor, shown) | {
            "ticksuffix": scale.suffix,
            "tickprefix": scale.prefix,
        }
    return {"data": data, "layout": layout}


def states_figure(
    lines: Sequence[Line], fields: Sequence[Field], span: Span, paint: Paint, background: Iterable[dict[str, Any]] = ()
) -> tuple[Figure, list[tuple[str, Colour]]]:
    """States over time, one row a series, and the legend: what each state is called, and its colour.

    A row is one bar for each stretch of equal values; a gap stays empty.
    """
    traces: dict[tuple[str, Colour], dict[str, Any]] = {}
    for line, field in zip(lines, fields, strict=True):
        engine = line.labels.get("engine")
        for start, end, value in _stretches(line.values, span):
            words = field.text(value)
            shade = field.state_colour(value) or field.fixed or (paint.engine(engine) if engine else MUTED)
            trace = traces.setdefault((words, shade), _bars(words, paint.token(shade)))
            trace["base"].append(moment(start))
            trace["x"].append(round((end - start) * 1000))
            trace["y"].append(field.name)
            trace["text"].append(words)
            trace["customdata"].append(f"{clock(start)} to {clock(end)}")
    layout = _layout(span, background, paint)
    layout["barmode"] = "overlay"
    names = list(dict.fromkeys(field.name for field in fields))
    layout["bargap"] = 0.25 if len(names) > 1 else 0.5
    layout["hovermode"] = "closest"
    layout["uniformtext"] = SMALL
    layout["yaxis"] = _rows(names)
    return {"data": list(traces.values()), "layout": layout}, list(traces)


def blocks_figure(marks: Sequence[Mark], outages: Sequence[Outage], span: Span, paint: Paint) -> Figure:
    """Which engine's block ran when: one row an engine."""
    data = []
    engines = list(dict.fromkeys(mark.engine for mark in marks))
    for engine in engines:
        trace = _bars(engine, paint.token(paint.engine(engine)))
        for mark in (mark for mark in marks if mark.engine == engine):
            start, end = max(mark.start, span.start), min(max(mark.end, mark.start), span.end)
            if end < start:
                continue
            trace["base"].append(moment(start))
            trace["x"].append(round((end - start) * 1000))
            trace["y"].append(engine)
            trace["text"].append(mark.cell)
            words = f"{mark.cell}, block {mark.block}<br>{clock(mark.start)} to {clock(mark.end)}"
            trace["customdata"].append(words)
        data.append(trace)
    layout = _layout(span, [_away(start, end, span, paint) for start, end in outages], paint)
    layout |= {
        "barmode": "overlay",
        "bargap": 0.25,
        "hovermode": "closest",
        "uniformtext": SMALL,
        "yaxis": _rows(engines),
    }
    return {"data": data, "layout": layout}


def mark_shapes(marks: Sequence[Mark], span: Span, paint: Paint) -> list[dict[str, Any]]:
    """Each block as a faint ground in its engine's colour."""
    return [
        _ground(max(mark.start, span.start), min(mark.end, span.end), paint.token(paint.engine(mark.engine)), SHADE)
        for mark in marks
        if mark.end > span.start and mark.start < span.end
    ]


def outage_shapes(outages: Sequence[Outage], span: Span, paint: Paint) -> list[dict[str, Any]]:
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


def _trace(
    line: Line, values: list[float | None], field: Field, look: tuple[Colour, str], span: Span, paint: Paint
) -> dict[str, Any]:
    paper, dash = look
    token = paint.token(paper)
    trace: dict[str, Any] = {
        "name": field.name,
        "x0": moment(span.start),
        "dx": span.step * 1000,
        "y": values,
    }
    style = field.custom.get("drawStyle")
    if style == "bars" or _stacked(field):
        return trace | {"type": "bar", "marker": {"color": token, "line": {"width": 0}}, "width": span.step * 1000}
    trace |= {"type": "scatter", "mode": "lines", "connectgaps": False}
    width = field.custom.get("lineWidth")
    shape = {"stepAfter": "hv", "stepBefore": "vh", "smooth": "linear"}.get(
        str(field.custom.get("lineInterpolation")), "linear"
    )
    trace["line"] = {"color": token, "dash": dash, "width": 2 if width is None else max(width, 1), "shape": shape}
    alone = [
        value is not None and (i == 0 or values[i - 1] is None) and (i + 1 == len(values) or values[i + 1] is None)
        for i, value in enumerate(values)
    ]
    if style == "points":
        trace["mode"] = "markers"
        trace["marker"] = {"color": token, "size": DOT}
    elif any(alone):
        trace["mode"] = "lines+markers"
        trace["marker"] = {"color": token, "size": [DOT if one else 0 for one in alone], "line": {"width": 0}}
    return trace


def _bars(name: str, token: str) -> dict[str, Any]:
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


def _axis(field: Field, first: Field) -> str:
    """`y`, or `y2` on the right for series whose unit is not the first one's or that the board puts there."""
    return "y2" if field.unit != first.unit or field.custom.get("axisPlacement") == "right" else "y"


def _stacked(field: Field) -> bool:
    stacking = field.custom.get("stacking")
    return isinstance(stacking, dict) and stacking.get("mode") in ("normal", "percent")


def _value_axis(axis: str, field: Field, divisor: float, shown: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "automargin": True,
        "zeroline": False,
        "gridcolor": "#8884",
        "fixedrange": True,
        "nticks": 6,
    }
    if axis == "y2":
        found |= {"overlaying": "y", "side": "right", "showgrid": False}
    distribution = field.custom.get("scaleDistribution")
    if isinstance(distribution, dict) and distribution.get("type") == "log" and all(value > 0 for value in shown):
        return found | {"type": "log"}
    least = None if field.least is None else field.least / divisor
    most = None if field.most is None else field.most / divisor
    low = min([*shown, 0.0])
    high = max(shown, default=0.0)
    if least is not None:
        low = min(least, low) if shown else least
    if most is not None:
        high = max(most, high)
    if high == low:
        return found | {"range": [low, low + (most or 1.0)]}
    room = 0 if most is not None and high == most else 0.06 * (high - low)
    return found | {"range": [low - (room if low < 0 else 0), high + room]}


def _rows(names: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "category",
        "categoryarray": list(names),
        "categoryorder": "array",
        "range": [len(names) - 0.5, -0.5],
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
    }


def _layout(span: Span, shapes: Iterable[dict[str, Any]], paint: Paint) -> dict[str, Any]:
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


def _limits(
    fields: Sequence[Field], axes: Sequence[str], scales: dict[str, Any], paint: Paint
) -> Iterator[dict[str, Any]]:
    """Thresholds as lines, where the board draws them; each once."""
    drawn = set()
    for field, axis in zip(fields, axes, strict=True):
        style = field.custom.get("thresholdsStyle")
        if not isinstance(style, dict) or style.get("mode", "off") == "off":
            continue
        for step in field.thresholds.steps:
            if step.value is None or (axis, step.value) in drawn:
                continue
            drawn.add((axis, step.value))
            at = rounded(field.limit(step) / scales[axis].divisor)
            line = {"color": paint.token(colour(step.color)), "width": 1.5, "dash": "dash"}
            yield {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": at, "y1": at, "line": line}


def _stretches(values: Sequence[float | None], span: Span) -> Iterator[tuple[float, float, float]]:
    """Runs of equal values: from, to (seconds since the Unix epoch), value."""
    begin = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[begin]:
            value = values[begin]
            if value is not None:
                yield span.start + begin * span.step, span.start + i * span.step, value
            begin = i


def _away(start: float, end: float, span: Span, paint: Paint) -> dict[str, Any]:
    return _ground(start, min(end, span.end), paint.token(MUTED), 0.25)


def _ground(start: float, end: float, token: str, opacity: float) -> dict[str, Any]:
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
