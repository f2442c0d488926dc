"""Drawing what more GPUs are worth: throughput over that of the fewest, by their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from loadgen.analysis.scaling import Step
from loadgen.message import counted, mark
from loadgen.presentation.style import Palette
from loadgen.presentation.text import ratio, ratio_interval
from loadgen.report.data import ReportData
from loadgen.report.plots import Titles, draw_dot, draw_whiskers, finish, nothing

CLOSEST = 0.075
"""Of the axis' height: labels keep this far from each other."""


def draw_scaling(axes: Any, data: ReportData, base: str, palette: Palette, prefix: str) -> Titles:
    """Draw a line for each cell from the base through its engines with more GPUs; dashed: as many times the tokens."""
    say, titles = palette.language, Titles()
    found = [step for step in data.scaling if step.base == base and step.cell is not None and step.throughput]
    if not found:
        return nothing(axes, palette)
    fewest, most = found[0].base_gpus, max(step.gpus for step in found)
    counts = sorted({fewest, *(step.gpus for step in found)})
    axes.plot(
        *([math.log2(count) for count in counts], [count / fewest for count in counts]),
        **{"color": palette.muted, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1},
    )
    ends: list[tuple[float, str]] = []
    for place, cell in enumerate(view.id for view in data.cells):
        own = sorted((step for step in found if step.cell == cell), key=lambda step: step.gpus)
        if not own:
            continue
        line = [(math.log2(fewest), 1.0), *((math.log2(step.gpus), _times(step)) for step in own)]
        axes.plot([x for x, _ in line], [y for _, y in line], color=palette.muted, linewidth=1.1, zorder=2)
        for step, at in zip(own, line[1:], strict=True):
            seat, interval = data.engines.index(step.engine), step.throughput.ci95 if step.throughput else None
            draw_whiskers(axes, at, None, interval, palette.engines[data.looks[seat]])
            gid = f"{prefix}-e{seat}-{place}"
            draw_dot(axes, data, palette, seat, at, partial=False, gid=gid, size=6.5, edge=1.4)
            gpus = say(counted(step.gpus, "{count} GPU", "{count} GPUs"))
            spread = f" [{ratio_interval(interval)}]" if interval else ""
            titles[gid] = f"{step.engine}, {data.row_label(cell)}: {gpus}, {ratio(at[1])}{spread}"
        ends.append((line[-1][1], data.row_label(cell)))
    first, at = data.engines.index(base), (math.log2(fewest), 1.0)
    draw_dot(axes, data, palette, first, at, partial=False, gid=f"{prefix}-base", size=6.5, edge=1.4)
    top = max([most / fewest, *(step.throughput.ci95[1] for step in found if step.throughput and step.throughput.ci95)])
    axes.set_ylim(0, top * 1.08)
    right = math.log2(most)
    for y, label in _apart(ends, CLOSEST * top * 1.08):
        axes.annotate(
            *(label, (right, y)),
            **{"xytext": (8, 0), "textcoords": "offset points", "fontsize": 7, "va": "center", "color": palette.muted},
        )
    span = right - math.log2(fewest)
    axes.set_xlim(math.log2(fewest) - 0.12 * span, right + 0.35 * span)
    axes.set_xticks([math.log2(count) for count in counts], [str(count) for count in counts])
    axes.set_title(say(mark("Output throughput, over that of the fewest GPUs")), loc="left", color=palette.text)
    axes.set_xlabel("GPUs", color=palette.muted)
    finish(axes, palette)
    return titles


def _times(step: Step) -> float:
    return step.throughput.estimate if step.throughput is not None else math.nan


def _apart(labels: Sequence[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Labels by height, each moved up until it is clear of the one below."""
    placed: list[tuple[float, str]] = []
    for y, label in sorted(labels):
        placed.append((max(y, placed[-1][0] + least) if placed else y, label))
    return placed
