"""Drawing what a GPU gives: output tokens a second for each user against those of each GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from loadgen.message import counted, mark
from loadgen.presentation.style import Palette
from loadgen.presentation.text import load_words, number
from loadgen.report.cells import CellView
from loadgen.report.cost import THROUGHPUT, TPOT
from loadgen.report.data import ReportData
from loadgen.report.gpus import MS, per_gpu, per_user
from loadgen.report.plots import (
    LOG_FROM_RATIO,
    Titles,
    draw_dot,
    draw_whiskers,
    finish,
    load_id,
    log_axis,
    nothing,
    shape_name,
)
from loadgen.scenario.model import Cell

STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 2, 1, 2)))
"""Of lines, by shape."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Point:
    seat: int
    view: CellView
    x: float
    y: float


def draw_per_gpu(axes: Any, data: ReportData, palette: Palette, prefix: str) -> Titles:
    """Draw a line for each engine and shape through its loads. What the SLO allows is shaded, what met it ringed."""
    say, titles = palette.language, Titles()
    several = len(set(data.gpus.values())) > 1
    drawn: list[_Point] = []
    for place, shape in enumerate(data.shapes):
        for seat, engine in enumerate(data.engines):
            own = []
            for view in data.cells_of(shape):
                summary = view.engines[engine].summary
                x = per_user(summary) if summary is not None else None
                y = per_gpu(summary, data.gpus.get(engine, 1)) if summary is not None else None
                if x is not None and y is not None:
                    own.append(_Point(seat, view, x, y))
            if not own:
                continue
            drawn += own
            colour = palette.engines[data.looks[seat]]
            style = STYLES[place % len(STYLES)]
            axes.plot([p.x for p in own], [p.y for p in own], color=colour, linewidth=1.4, linestyle=style, zorder=3)
            for point in own:
                gid, words = _draw_point(axes, data, point, palette, prefix)
                titles[gid] = words
            beside: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "ha": "right", "color": colour}
            if len(data.shapes) > 1:
                axes.annotate(_lengths(data, shape), (own[-1].x, own[-1].y), xytext=(-5, 4), **beside)
            if several:
                gpus = say(counted(data.gpus[engine], "{count} GPU", "{count} GPUs"))
                axes.annotate(gpus, (own[0].x, own[0].y), xytext=(-7, -4), **beside)
    if not drawn:
        return nothing(axes, palette)
    _limits(axes, data, drawn, palette)
    axes.set_title(f"{say(mark('Output tokens per GPU'))}, tok/s", loc="left", color=palette.text)
    axes.set_xlabel(say(mark("output tokens per user, tok/s")), color=palette.muted)
    finish(axes, palette)
    return titles


def _lengths(data: ReportData, shape: Cell) -> str:
    """What tells a shape from the others."""
    several = len({each.output_tokens for each in data.shapes}) > 1
    return f"{shape.prompt_tokens:,d}" + (f" → {shape.output_tokens:,d}" if several else "")


def _limits(axes: Any, data: ReportData, drawn: Sequence[_Point], palette: Palette) -> None:
    """Choose what the axes span, and shade the pace that the SLO asks for."""
    xs, ys = [p.x for p in drawn], [p.y for p in drawn]
    if min(xs) > 0 and max(xs) / min(xs) > LOG_FROM_RATIO:
        log_axis(axes.xaxis, min(xs), max(xs))
        left, right = min(xs) / 1.3, max(xs) * 1.3
    else:
        left, right = 0.0, max(xs) * 1.08
    if min(ys) > 0 and max(ys) / min(ys) > LOG_FROM_RATIO:
        log_axis(axes.yaxis, min(ys), max(ys))
        axes.set_ylim(min(ys) / 1.4, max(ys) * 1.6)
    else:
        axes.set_ylim(0, max(ys) * 1.12)
    limit = data.slo.tpot_ms if data.slo is not None else None
    if limit is not None:
        right = max(right, MS / limit * 1.08)
        axes.axvspan(max(MS / limit, left), right, color=palette.grid, alpha=0.55, linewidth=0, zorder=0)
    axes.set_xlim(left, right)


def _draw_point(axes: Any, data: ReportData, point: _Point, palette: Palette, prefix: str) -> tuple[str, str]:
    """Draw one load with both 95% intervals. Returns the id of its group, and its title."""
    engine, view, cell = data.engines[point.seat], point.view, point.view.cell
    entry, colour = view.engines[engine], palette.engines[data.looks[point.seat]]
    tpot, throughput = entry.intervals.get(TPOT), entry.intervals.get(THROUGHPUT)
    gpus = data.gpus.get(engine, 1)
    across = [MS / end for end in tpot] if tpot is not None and tpot[0] > 0 else None
    up = None if throughput is None else [end / gpus for end in throughput]
    draw_whiskers(axes, (point.x, point.y), across, up, colour)
    slo = entry.summary.slo if entry.summary else None
    if slo is not None and slo.holds:
        axes.plot(
            *([point.x], [point.y]),
            **{"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgecolor": palette.text},
            **{"markeredgewidth": 0.9, "linestyle": "none", "zorder": 5},
        )
    gid, partial = f"{prefix}-e{point.seat}-{_cell_id(view)}", entry.status == "partial"
    draw_dot(axes, data, palette, point.seat, (point.x, point.y), partial=partial, gid=gid, size=5.5, edge=1.3)
    load = f"{cell.prompt_tokens:,d} × {palette.language(load_words(cell))}" if cell is not None else view.id
    return gid, f"{engine}, {load}: {number(point.x)} tok/s, {number(point.y)} tok/s"


def _cell_id(view: CellView) -> str:
    """A cell as a part of an element's id."""
    return view.id if view.cell is None else f"{shape_name(view.cell)}-c{load_id(view.cell.load)}"
