"""Drawing the engines' memory over the run."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadgen.message import mark
from loadgen.metrics.summary import Floats
from loadgen.monitoring.memory import Memory
from loadgen.presentation.style import Palette
from loadgen.presentation.text import number
from loadgen.report.data import ReportData
from loadgen.report.plots import Titles, finish, nothing


def draw_memory(axes: Any, data: ReportData, memory: Memory, palette: Palette, prefix: str) -> Titles:
    """Draw every engine's memory in GiB over the minutes of the run, with its blocks shaded in its colour."""
    titles: Titles = {}
    start = data.manifest.started_at
    latest = max((at for series in memory.series for at, _ in series.samples), default=start)
    seconds = latest - start < 180
    unit = 1.0 if seconds else 60.0
    for index, block in enumerate(data.blocks):
        seat = data.engines.index(block.engine)
        left, right = block.started_at - start, (block.ended_at or latest) - start
        if right > left:
            gid = f"{prefix}-b{index}"
            colour = palette.engines[data.looks[seat]]
            axes.axvspan(left / unit, right / unit, facecolor=colour, alpha=0.13, linewidth=0, gid=gid, zorder=0)
            titles[gid] = f"{block.record_id}: {palette.language(block.status)}"
    for series in memory.series:
        seat = data.engines.index(series.engine)
        gid = f"{prefix}-e{seat}"
        at = np.asarray([(moment - start) / unit for moment, _ in series.samples])
        gib = np.asarray([value / 2**30 for _, value in series.samples])
        peak = int(gib.argmax())
        # A gap in the samples is an engine that was not running: the line must not bridge it.
        gaps = _gaps(at, 20 / unit)
        colour = palette.engines[data.looks[seat]]
        axes.plot(np.insert(at, gaps, np.nan), np.insert(gib, gaps, np.nan), color=colour, linewidth=1.8, gid=gid)
        axes.plot(at[peak], gib[peak], marker=data.marker(seat), markersize=7, color=colour, linestyle="none")
        titles[gid] = palette.language(
            "{engine}: at most {peak} GiB", engine=series.engine, peak=number(float(gib[peak]))
        )
    if not memory.series:
        return nothing(axes, palette)
    axes.set_ylim(0, max(value for s in memory.series for _, value in s.samples) / 2**30 * 1.12 or 1.0)
    ends = [at for series in memory.series for at, _ in series.samples]
    axes.set_xlim(min(0.0, (min(ends) - start) / unit), max((latest - start) / unit, 1e-9))
    axes.set_title(f"{palette.language('Engine memory')}, GiB", loc="left", color=palette.text)
    words = mark("seconds since the run began") if seconds else mark("minutes since the run began")
    axes.set_xlabel(palette.language(words), color=palette.muted)
    finish(axes, palette)
    return titles


def _gaps(at: Floats, least: float) -> Any:
    """Positions before which the samples pause for much longer than usual."""
    steps = np.diff(at)
    return np.flatnonzero(steps > max(5 * float(np.median(steps)), least)) + 1 if steps.size else np.empty(0, int)
