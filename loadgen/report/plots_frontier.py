"""Drawing what an engine can give: throughput against latency, and how fast it reads prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loadgen.analysis.prefill import PrefillFit
from loadgen.message import mark
from loadgen.metrics.summary import CellSummary
from loadgen.presentation.style import Palette
from loadgen.presentation.text import interval, load_words, number
from loadgen.report.cells import CellView
from loadgen.report.data import ReportData
from loadgen.report.plots import (
    LOG_FROM_RATIO,
    SECONDS_FROM_MS,
    Titles,
    draw_dot,
    draw_whiskers,
    finish,
    load_id,
    log_axis,
    nothing,
)


@dataclasses.dataclass(frozen=True, slots=True)
class FrontierPlot:
    """Output throughput against one latency."""

    key: str
    title: str
    value: Callable[[CellSummary], float | None]


FRONTIER_PLOTS: tuple[FrontierPlot, ...] = (
    FrontierPlot("ttft_ms.p95", mark("Throughput against TTFT p95"), lambda s: s.ttft_ms.p95),
    FrontierPlot("tpot_ms.mean", mark("Throughput against TPOT mean"), lambda s: s.tpot_ms.mean),
)
THROUGHPUT = "output_tokens_per_s"


def draw_frontier(
    axes: Any, data: ReportData, cells: Sequence[CellView], plot: FrontierPlot, palette: Palette, prefix: str
) -> Titles:
    """Draw each engine's points by load, joined in that order, with both 95% intervals as a thin cross."""
    say, titles = palette.language, Titles()
    found = []
    for seat, engine in enumerate(data.engines):
        for view in cells:
            summary = view.engines[engine].summary
            x = plot.value(summary) if summary else None
            y = summary.output_tokens_per_s if summary else None
            if view.cell is not None and x is not None and y is not None:
                found.append((seat, view, x, y))
    if not found:
        return nothing(axes, palette)
    scale, unit = (1e-3, "s") if max(x for _, _, x, _ in found) >= SECONDS_FROM_MS else (1.0, "ms")
    for seat, engine in enumerate(data.engines):
        own = [(view, x * scale, y) for at, view, x, y in found if at == seat]
        colour = palette.engines[data.looks[seat]]
        axes.plot([x for _, x, _ in own], [y for _, _, y in own], color=colour, linewidth=1.4, zorder=3)
        for view, x, y in own:
            entry, cell = view.engines[engine], view.cell
            if cell is None:
                continue
            across, up = entry.intervals.get(plot.key), entry.intervals.get(THROUGHPUT)
            draw_whiskers(axes, (x, y), None if across is None else [end * scale for end in across], up, colour)
            gid, partial = f"{prefix}-e{seat}-c{load_id(cell.load)}", entry.status == "partial"
            draw_dot(axes, data, palette, seat, (x, y), partial=partial, gid=gid, size=6, edge=1.4)
            axes.annotate(
                f"{cell.load:g}", (x, y), xytext=(5, -9), textcoords="offset points", fontsize=7, color=palette.muted
            )
            titles[gid] = f"{engine}, {say(load_words(cell))}: {number(x)} {unit}, {number(y)} tok/s"
    xs, ys = [x * scale for _, _, x, _ in found], [y for _, _, _, y in found]
    # Room for the intervals too, unless one is so wide that it would hide the rest.
    entries = [view.engines[data.engines[seat]].intervals for seat, view, _, _ in found]
    widest = [each[plot.key][1] * scale for each in entries if plot.key in each]
    right = max([max(xs), *(min(end, 1.6 * max(xs)) for end in widest)])
    top = max([max(ys), *(min(each[THROUGHPUT][1], 1.6 * max(ys)) for each in entries if THROUGHPUT in each)])
    if min(xs) > 0 and max(xs) / min(xs) > LOG_FROM_RATIO / 2:
        log_axis(axes.xaxis, min(xs), max(xs))
        axes.set_xlim(min(xs) / 1.3, right * 1.4)
    else:
        axes.set_xlim(0, right * 1.06 or 1.0)
    axes.set_ylim(0, top * 1.06 or 1.0)
    axes.set_title(f"{say(plot.title)}, tok/s", loc="left", color=palette.text)
    axes.set_xlabel(unit, color=palette.muted)
    finish(axes, palette)
    return titles


def draw_prefill(axes: Any, data: ReportData, palette: Palette, prefix: str) -> Titles:
    """Draw TTFT by prompt length: mean, whiskers from p5 to p95 of the requests, and the fitted line."""
    say, titles = palette.language, Titles()
    if not data.prefill:
        return nothing(axes, palette)
    top = max(float(fit.ttft_ms.max()) for fit in data.prefill)
    scale, unit = (1e-3, "s") if top >= SECONDS_FROM_MS else (1.0, "ms")
    lengths = sorted({float(length) for fit in data.prefill for length in fit.prompt_tokens})
    width = 0.012 * lengths[-1]
    for fit in data.prefill:
        seat = data.engines.index(fit.engine)
        colour = palette.engines[data.looks[seat]]
        shift = (seat - (len(data.engines) - 1) / 2) * width
        for length in np.unique(fit.prompt_tokens):
            waits = fit.ttft_ms[fit.prompt_tokens == length] * scale
            at = length + shift
            axes.plot([at, at], np.percentile(waits, [5, 95]), color=colour, linewidth=1.1, alpha=0.75, zorder=2)
            axes.plot(
                [at],
                [waits.mean()],
                marker=data.marker(seat),
                markersize=6,
                color=colour,
                linestyle="none",
            )
        ends = np.array([0.0, lengths[-1]])
        gid = f"{prefix}-e{seat}"
        axes.plot(ends, (fit.fixed_ms + fit.ms_a_token * ends) * scale, color=colour, linewidth=1.5, gid=gid, zorder=3)
        titles[gid] = f"{fit.engine}: {rate_words(fit)}"
    axes.set_xticks(lengths, [f"{length:,.0f}" for length in lengths])
    axes.set_xlim(0, lengths[-1] * 1.06)
    axes.set_ylim(bottom=0)
    axes.set_title(f"TTFT, {unit}", loc="left", color=palette.text)
    axes.set_xlabel(say("prompt tokens"), color=palette.muted)
    finish(axes, palette)
    return titles


def rate_words(fit: PrefillFit) -> str:
    """An engine's prefill rate with its interval: `4,210 [4,020 – 4,420] tok/s`."""
    if fit.least is not None:
        return f"≥ {number(fit.least)} tok/s"
    if fit.rate is None:
        return "–"
    ends = f" [{interval(fit.ci95)}]" if fit.ci95 else ""
    return f"{number(fit.rate)}{ends} tok/s"
