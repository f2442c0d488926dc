"""Drawing: each function fills one matplotlib Axes. `figures` turns them into SVG and PNG."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loadgen.message import counted, mark
from loadgen.metrics.summary import CellSummary, Floats
from loadgen.presentation.language import Language
from loadgen.presentation.style import Palette
from loadgen.presentation.text import load_words, number
from loadgen.report.cells import CellView, EngineCell
from loadgen.report.data import ReportData
from loadgen.scenario.model import Cell

SECONDS_FROM_MS = 5000.0
"""An axis that reaches this many milliseconds counts in seconds."""
LOG_FROM_RATIO = 25.0
"""An axis whose values span more than this is logarithmic, or the small ones would be flat."""
ECDF_POINTS = 240

Titles = dict[str, str]
"""Hover titles by the id of the SVG group that they belong to."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadPlot:
    """A figure against concurrency: the line goes through `value`, a whisker reaches up to `upper`."""

    key: str
    title: str
    unit: str
    value: Callable[[CellSummary], float | None]
    upper: Callable[[CellSummary], float | None]
    value_name: str
    upper_name: str | None = None


LOAD_PLOTS: tuple[LoadPlot, ...] = (
    LoadPlot("ttft", mark("Time to first token"), "ms", lambda s: s.ttft_ms.p50, lambda s: s.ttft_ms.p95, "p50", "p95"),
    LoadPlot(
        "tpot",
        mark("Time per output token"),
        "ms",
        lambda s: s.tpot_ms.mean,
        lambda s: s.tpot_ms.p95,
        mark("mean"),
        "p95",
    ),
    LoadPlot(
        "throughput",
        mark("Output throughput"),
        "tok/s",
        lambda s: s.output_tokens_per_s,
        lambda _: None,
        mark("output"),
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Point:
    seat: int
    engine: str
    load: float
    words: str
    value: float
    upper: float | None
    partial: bool


def draw_load(
    axes: Any, data: ReportData, cells: Sequence[CellView], plot: LoadPlot, palette: Palette, prefix: str
) -> Titles:
    """Draw one figure of all engines against the load, or side by side when there is one load only."""
    points = [
        point
        for view in cells
        for seat, engine in enumerate(data.engines)
        if (point := _point(plot, seat, view, view.engines[engine])) is not None
    ]
    if not points:
        return nothing(axes, palette)
    top = max(point.upper or point.value for point in points)
    scale, unit = (1e-3, "s") if plot.unit == "ms" and top >= SECONDS_FROM_MS else (1.0, plot.unit)
    levels = sorted({view.cell.load for view in cells if view.cell is not None})
    seats = len(data.engines)
    titles: Titles = {}
    for seat, engine in enumerate(data.engines):
        own = sorted((p for p in points if p.seat == seat), key=lambda p: p.load)
        colour = palette.engines[data.looks[seat]]
        shift = (seat - (seats - 1) / 2) * 0.09
        at = [float(seat) if len(levels) == 1 else math.log2(p.load) + shift for p in own]
        if len(levels) > 1:
            axes.plot(at, [p.value * scale for p in own], color=colour, linewidth=1.6, zorder=3)
        for x, point in zip(at, own, strict=True):
            if point.upper is not None and point.upper > point.value:
                span = [point.value * scale, point.upper * scale]
                axes.plot([x, x], span, color=colour, linewidth=1.1, alpha=0.75, zorder=2)
                axes.plot([x], span[1:], marker="_", markersize=8, markeredgewidth=1.6, color=colour, zorder=2)
            gid = f"{prefix}-e{seat}-c{load_id(point.load)}"
            at_point = x, point.value * scale
            draw_dot(axes, data, palette, seat, at_point, partial=point.partial, gid=gid, size=7, edge=1.5)
            titles[gid] = _title(plot, engine, point, palette.language)
    _load_axes(axes, data, levels, f"{palette.language(plot.title)}, {unit}", palette)
    values = [p.value * scale for p in points] + [(p.upper or p.value) * scale for p in points]
    _value_axis(axes, values)
    return titles


def draw_dot(
    axes: Any,
    data: ReportData,
    palette: Palette,
    seat: int,
    at: tuple[float, float],
    *,
    partial: bool,
    gid: str,
    size: float,
    edge: float,
) -> None:
    """Draw an engine's mark, hollow where its cell is partial; `size` and width of the `edge` are in points."""
    colour = palette.engines[data.looks[seat]]
    axes.plot(
        *([at[0]], [at[1]]),
        marker=data.marker(seat),
        markersize=size,
        markeredgewidth=edge,
        markeredgecolor=colour,
        markerfacecolor=palette.background if partial else colour,
        linestyle="none",
        gid=gid,
        zorder=4,
    )


def draw_whiskers(
    axes: Any,
    at: tuple[float, float],
    across: Sequence[float] | None,
    up: Sequence[float] | None,
    colour: str,
) -> None:
    """Draw the intervals of a point as a thin cross, those that there are."""
    line = {"color": colour, "linewidth": 0.9, "alpha": 0.7, "zorder": 2}
    if across is not None:
        axes.plot(across, [at[1], at[1]], **line)
    if up is not None:
        axes.plot([at[0], at[0]], up, **line)


def load_id(load: float) -> str:
    """A load as a part of an element's id."""
    return f"{load:g}".replace(".", "_").replace("+", "")


def shape_name(shape: Cell) -> str:
    """A shape as a part of ids and of file names."""
    return f"p{shape.prompt_tokens}-o{shape.output_tokens}{shape.extras}"


def _point(plot: LoadPlot, seat: int, view: CellView, entry: EngineCell) -> _Point | None:
    if entry.summary is None or view.cell is None:
        return None
    value = plot.value(entry.summary)
    if value is None:
        return None
    upper = plot.upper(entry.summary)
    return _Point(seat, entry.engine, view.cell.load, load_words(view.cell), value, upper, entry.status == "partial")


def _title(plot: LoadPlot, engine: str, point: _Point, language: Language) -> str:
    text = f"{engine}, {language(point.words)}: {language(plot.value_name)} {number(point.value)} {plot.unit}"
    if plot.upper_name and point.upper is not None:
        text += f", {plot.upper_name} {number(point.upper)} {plot.unit}"
    return text + (f" ({language('partial')})" if point.partial else "")


def _load_axes(axes: Any, data: ReportData, levels: Sequence[float], title: str, palette: Palette) -> None:
    axes.set_title(title, loc="left", color=palette.text)
    if len(levels) == 1:
        axes.set_xticks(range(len(data.engines)), [short(engine) for engine in data.engines])
        axes.set_xlim(-0.7, len(data.engines) - 0.3)
        axes.set_xlabel(f"{palette.language(data.load_axis)} {levels[0]:g}", color=palette.muted)
    else:
        axes.set_xticks([math.log2(level) for level in levels], [f"{level:g}" for level in levels])
        margin = 0.06 * (math.log2(levels[-1]) - math.log2(levels[0])) + 0.12
        axes.set_xlim(math.log2(levels[0]) - margin, math.log2(levels[-1]) + margin)
        axes.set_xlabel(palette.language(data.load_axis), color=palette.muted)
    finish(axes, palette)


def _value_axis(axes: Any, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > LOG_FROM_RATIO:
        log_axis(axes.yaxis, min(positive), max(positive))
        axes.set_ylim(min(positive) / 1.4, max(positive) * 1.4)
    else:
        axes.set_ylim(0, max(values, default=1.0) * 1.1 or 1.0)


def log_axis(axis: Any, low: float, high: float) -> None:
    """Make an axis logarithmic with readable ticks at 1, 2, 5 of every decade (1 only over many decades)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    steps = (1.0, 2.0, 5.0) if high / low < 300 else (1.0, 3.0) if high / low < 3000 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def draw_ecdf(
    axes: Any, data: ReportData, view: CellView, metric: str, limits: tuple[float, float], palette: Palette, prefix: str
) -> Titles:
    """Draw which share of a cell's requests was at least as fast as x, one step line an engine.

    Args:
        metric: `ttft` or `tpot`.
        limits: least and greatest value over all panels that share this axis, in ms.
    """
    titles: Titles = {}
    scale, unit = (1e-3, "s") if limits[1] >= SECONDS_FROM_MS else (1.0, "ms")
    for seat, engine in enumerate(data.engines):
        values: Floats = getattr(view.engines[engine], metric)
        if not values.size:
            continue
        x, share = ecdf(values)
        colour = palette.engines[data.looks[seat]]
        partial = view.engines[engine].status == "partial"
        gid = f"{prefix}-e{seat}"
        axes.step(
            np.concatenate([x[:1], x]) * scale,
            np.concatenate([[0.0], share]),
            where="post",
            color=colour,
            linewidth=1.6,
            linestyle=(0, (4, 2)) if partial else "-",
            gid=gid,
        )
        median = float(np.median(values))
        axes.plot([median * scale], [0.5], marker=data.marker(seat), markersize=6, color=colour, linestyle="none")
        titles[gid] = palette.language(
            "{engine}: {requests}, p50 {median} ms, max {most} ms",
            engine=engine,
            requests=counted(values.size, "{count} request", "{count} requests"),
            median=number(median),
            most=number(float(values[-1])),
        )
    if not titles:
        return nothing(axes, palette)
    low, high = limits[0] * scale, limits[1] * scale
    if low > 0 and high / low > LOG_FROM_RATIO:
        log_axis(axes.xaxis, low, high)
        axes.set_xlim(low / 1.15, high * 1.15)
    else:
        axes.set_xlim(0, high * 1.04 or 1.0)
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.5, 0.95], ["0", "50 %", "95 %"])
    axes.set_xlabel(unit, color=palette.muted)
    if view.cell is not None:
        axes.set_title(f"{palette.language(data.load_axis)} {view.cell.load:g}", loc="left", color=palette.text)
    finish(axes, palette)
    return titles


def ecdf(values: Floats) -> tuple[Floats, Floats]:
    """Return sorted values and the share of values at or below each; thinned to a few hundred, ends kept."""
    ordered = np.sort(values)
    share = np.arange(1, ordered.size + 1, dtype=np.float64) / ordered.size
    if ordered.size > ECDF_POINTS:
        keep = np.unique(np.linspace(0, ordered.size - 1, ECDF_POINTS).round().astype(int))
        ordered, share = ordered[keep], share[keep]
    return ordered, share


def ecdf_limits(cells: Sequence[CellView], metric: str) -> tuple[float, float]:
    """Least and greatest value of a metric over cells and engines, in ms; (0, 0) when there is none."""
    arrays = [getattr(entry, metric) for view in cells for entry in view.engines.values()]
    ends = [(float(a[0]), float(a[-1])) for a in arrays if a.size]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0.0, 0.0)


def finish(axes: Any, palette: Palette) -> None:
    """Quiet frame, horizontal grid behind the data."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.muted)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", colors=palette.muted, labelcolor=palette.muted, length=0)
    axes.tick_params(axis="x", color=palette.muted, length=3)


NOTHING = mark("nothing was measured")


def nothing(axes: Any, palette: Palette, why: str = NOTHING) -> Titles:
    """Say that there is nothing to draw, and why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, palette.language(why), ha="center", va="center", color=palette.muted)
    return {}


def short(name: str, most: int = 16) -> str:
    """Cut a long name."""
    return name if len(name) <= most else name[: most - 1] + "…"
