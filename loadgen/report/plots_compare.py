"""Drawing the comparison: the difference by cell, and drift over the run. As in `plots`, each fills one Axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadgen.message import counted, mark
from loadgen.presentation.style import Palette
from loadgen.presentation.text import cell_words, number
from loadgen.report.data import ReportData
from loadgen.report.headline import verdict_text
from loadgen.report.plots import NOTHING, Titles, finish, nothing, short
from loadgen.statistics.metrics import HEADLINE
from loadgen.statistics.result import Judged, Statistics
from loadgen.statistics.words import metric_words

SHARES = tuple(lead * 10.0**power for power in range(-3, 3) for lead in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
"""Where an axis of differences may have ticks."""
ROW_INCHES = 0.21
LABEL_INCHES = 1.12


def difference_rows(data: ReportData, statistics: Statistics) -> list[str | None]:
    """The rows of a difference plot from the top: None for all cells together, then the cells in the report's order."""
    cells: list[str | None] = [view.id for view in data.cells if any(view.id == cell.id for cell in statistics.cells)]
    return [None, *cells] if len(cells) > 1 else cells


def draw_differences(
    axes: Any, data: ReportData, statistics: Statistics, key: str, palette: Palette, prefix: str
) -> Titles:
    """Draw by how much b is faster than a, by cell, with the 95% interval, 0, and the margin as a band.

    The axis is log(speed of b / speed of a), so to the right b is faster and to the left a, whichever way the metric
    is better, and 10% is as far on either side.
    """
    say, titles = palette.language, Titles()
    rows = difference_rows(data, statistics)
    judged = [_judged(statistics, row, key) for row in rows]
    if not any(one is not None and one.ratio is not None for one in judged):
        return nothing(axes, palette, _why_nothing(data, statistics))
    seat = data.engines.index(statistics.b)
    limit = _limit(judged, statistics.settings.margin)
    band = math.log1p(statistics.settings.margin)
    axes.axvspan(-band, band, facecolor=palette.muted, alpha=0.16, linewidth=0, zorder=0)
    axes.axvline(0, color=palette.muted, linewidth=1.1, zorder=1)
    for place, (row, one) in enumerate(zip(rows, judged, strict=True)):
        if one is None or one.ratio is None:
            axes.text(0, place, "–", ha="center", va="center", color=palette.muted)
            continue
        winner = {"a": 0, "b": seat}.get(one.verdict)
        colour = palette.muted if winner is None else palette.engines[data.looks[winner]]
        at, ends = _speed(one)
        gid = f"{prefix}-e{winner}-{place}" if winner is not None else f"{prefix}-{one.verdict}-{place}"
        if ends is not None:
            axes.plot(ends, [place, place], color=colour, linewidth=2.4 if row is None else 1.5, zorder=2)
            for edge, sign, cut in ((-limit, "<", ends[0] < -limit), (limit, ">", ends[1] > limit)):
                if cut:
                    axes.plot(
                        [0.985 * edge],
                        [place],
                        marker=sign,
                        markersize=5,
                        color=colour,
                        linestyle="none",
                        clip_on=False,
                    )
        axes.plot(
            [min(max(at, -limit), limit)],
            [place],
            marker=("D" if row is None else "o") if winner is None else data.marker(winner),
            markersize=7.5 if row is None else 6,
            markeredgewidth=1.4,
            markeredgecolor=colour,
            markerfacecolor=palette.background if winner is None else colour,
            linestyle="none",
            gid=gid,
            zorder=3,
        )
        where = say("all cells") if row is None else say(cell_words(row))
        titles[gid] = f"{where}: {say(verdict_text(one, statistics))}"
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [say("all cells") if row is None else data.row_label(row) for row in rows])
    axes.set_xlim(-limit, limit)
    _share_ticks(axes, limit, band)
    sides = (
        (0, "right", -4, say("← {engine} faster", engine=short(statistics.a))),
        (seat, "left", 4, say("{engine} faster →", engine=short(statistics.b))),
    )
    for at_seat, align, aside, words in sides:
        colour = palette.engines[data.looks[at_seat]]
        below = {"xycoords": "axes fraction", "xytext": (aside, -17), "textcoords": "offset points"}
        axes.annotate(words, (0.5, 0), **below, ha=align, va="top", color=colour, fontsize=8.5)
    axes.set_title(say.shown(metric_words(key)), loc="left", color=palette.text)
    finish(axes, palette)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=palette.grid, linewidth=0.8)
    axes.tick_params(axis="x", which="minor", color=palette.muted, direction="in", length=4)
    return titles


def _why_nothing(data: ReportData, statistics: Statistics) -> str:
    """Why two engines have no difference that could be drawn."""
    entries = [view.engines[engine] for view in data.cells for engine in (statistics.a, statistics.b)]
    if any(entry.limited for entry in entries):
        return mark("client-limited: nothing is compared")
    if all(any(view.engines[engine].summary for view in data.cells) for engine in (statistics.a, statistics.b)):
        return mark("no block of both counts: nothing is compared")
    return NOTHING


def _judged(statistics: Statistics, row: str | None, key: str) -> Judged | None:
    if row is None:
        return statistics.overall.get(key)
    return next((cell.metrics.get(key) for cell in statistics.cells if cell.id == row), None)


def _speed(one: Judged) -> tuple[float, tuple[float, float] | None]:
    """log(speed of b / speed of a) with its interval."""
    if one.ratio is None:
        raise ValueError("without a ratio there is nothing to draw")
    sign = 1.0 if one.better == "higher" else -1.0
    ends = one.ratio.ci95
    logs = None if ends is None else sorted(sign * math.log(end) for end in ends)
    return sign * math.log(one.ratio.estimate), None if logs is None else (logs[0], logs[1])


def _limit(judged: Sequence[Judged | None], margin: float) -> float:
    """How far the axis goes to either side: all estimates, and the intervals unless they are much wider."""
    speeds = [_speed(one) for one in judged if one is not None and one.ratio is not None]
    furthest = max(abs(at) for at, _ in speeds)
    ends = [max(abs(low), abs(high)) for _, span in speeds if span is not None for low, high in [span]]
    whole = max([furthest, *(min(end, 2 * furthest + 4 * math.log1p(margin)) for end in ends)])
    return max(whole * 1.1, 2.2 * math.log1p(margin), 1e-6)


def _share_ticks(axes: Any, limit: float, band: float) -> None:
    """Ticks at 0 and up to three shares to either side, from the outside in, far enough apart to be read.

    And one without a label at either end of the band that does not matter.
    """
    chosen: list[float] = []
    for share in reversed(SHARES):
        at, outer = math.log1p(share), chosen[0] - 0.27 * limit if chosen else 0.95 * limit
        if 0.27 * limit <= at <= outer:
            chosen.insert(0, at)
    places = [-at for at in chosen] + [0.0] + chosen
    axes.set_xticks(places, ["0" if not at else f"{100 * math.expm1(abs(at)):,.6g}%" for at in places])
    axes.set_xticks([-band, band], minor=True)


def draw_drift(axes: Any, data: ReportData, key: str, palette: Palette, prefix: str) -> Titles:
    """Draw every block's figure over its engine's geometric mean of the same cell, in percent, over the run.

    Cells with two blocks and more. The line of an engine is the least-squares trend through its points.
    """
    say, titles = palette.language, Titles()
    started = {block.record_id: block.started_at - data.manifest.started_at for block in data.blocks}
    latest = max(started.values(), default=0.0)
    unit = 1.0 if latest < 180 else 60.0
    most = 0.0
    for seat, engine in enumerate(data.engines):
        points = drift_points(data, engine, key)
        if not points:
            continue
        at = np.array([started[block] / unit for block, _ in points])
        moved = np.array([100 * (value - 1) for _, value in points])
        most = max(most, float(np.abs(moved).max()))
        colour = palette.engines[data.looks[seat]]
        axes.plot(at, moved, marker=data.marker(seat), markersize=4, color=colour, alpha=0.55, linestyle="none")
        if np.ptp(at) > 0:
            line = np.polynomial.Polynomial.fit(at, moved, 1)
            ends = np.array([at.min(), at.max()])
            gid = f"{prefix}-e{seat}"
            axes.plot(ends, line(ends), color=colour, linewidth=1.8, gid=gid)
            change = float(line(ends[1]) - line(ends[0]))
            titles[gid] = say(
                "{engine}: {change}% from its first block to its last, along a line through {blocks}",
                engine=engine,
                change=f"{'+' if change > 0 else ''}{number(change)}",
                blocks=counted(len(points), "{count} block", "{count} blocks"),
            )
    if not titles and not axes.lines:
        return nothing(axes, palette)
    most = most or 1.0
    axes.axhline(0, color=palette.muted, linewidth=0.9, zorder=0)
    axes.set_ylim(-1.15 * most, 1.15 * most)
    axes.set_title(f"{say.shown(metric_words(key))}, %", loc="left", color=palette.text)
    words = "seconds since the run began" if unit == 1 else "minutes since the run began"
    axes.set_xlabel(say(words), color=palette.muted)
    finish(axes, palette)
    return titles


def drift_points(data: ReportData, engine: str, key: str) -> list[tuple[str, float]]:
    """Each block of an engine, and its figure over the geometric mean of the engine's blocks of the same cell."""
    points = []
    for view in data.cells:
        entry = view.engines[engine]
        own = [(block, one[key]) for block, one in zip(entry.blocks, entry.block_figures, strict=True) if key in one]
        if len(own) < 2 or min(value for _, value in own) <= 0:
            continue
        mean = math.exp(sum(math.log(value) for _, value in own) / len(own))
        points += [(block, value / mean) for block, value in own]
    return points


def drifting(data: ReportData) -> bool:
    """Whether there is anything to draw of drift."""
    return any(drift_points(data, engine, key) for engine in data.engines for key in HEADLINE)
