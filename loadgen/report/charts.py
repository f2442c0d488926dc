"""Which figures a report has: by load, distributions, memory, differences, frontiers, cost, prefill, drift."""

from __future__ import annotations

from loadgen.message import mark, say
from loadgen.presentation.text import load_words, shape_words
from loadgen.report.cells import CellView
from loadgen.report.data import ReportData
from loadgen.report.figures import Chart, Panel, bound
from loadgen.report.plots import LOAD_PLOTS, draw_ecdf, draw_load, ecdf_limits, load_id, shape_name
from loadgen.report.plots_compare import (
    LABEL_INCHES,
    ROW_INCHES,
    difference_rows,
    draw_differences,
    draw_drift,
    drifting,
)
from loadgen.report.plots_cost import draw_per_gpu
from loadgen.report.plots_frontier import FRONTIER_PLOTS, draw_frontier, draw_prefill
from loadgen.report.plots_memory import draw_memory
from loadgen.report.plots_scaling import draw_scaling
from loadgen.scenario.model import Cell
from loadgen.statistics.metrics import HEADLINE
from loadgen.statistics.result import Statistics
from loadgen.statistics.words import metric_words

METRICS = (("ttft", mark("Time to first token")), ("tpot", mark("Time per output token")))
PANEL = (4.0, 2.75)
WIDTH = 3.7
"""Inches of a panel of the comparison in a PNG file."""


def charts(data: ReportData, *, memory: bool = True) -> list[Chart]:
    """All charts that there is something to draw of; a comparison of two runs has none of memory."""
    several = [
        shape for shape in data.shapes if len({view.cell.load for view in data.cells_of(shape) if view.cell}) > 1
    ]
    return [
        *(_load(data, shape) for shape in data.shapes),
        *(_distribution(data, shape) for shape in data.shapes),
        *([_memory(data)] if memory and data.memory.series else []),
        *(_differences(data, found) for found in data.comparisons),
        *(_frontier(data, shape) for shape in several),
        *([_scaling(data)] if data.scaling else []),
        *([_per_gpu(data)] if (data.several_gpus or data.costs is not None) and _measured(data) else []),
        *([_prefill(data)] if data.prefill else []),
        *([_drift(data)] if drifting(data) else []),
    ]


def _load(data: ReportData, shape: Cell) -> Chart:
    cells, name, words = data.cells_of(shape), shape_name(shape), shape_words(shape)
    panels = [
        Panel(f"{name}-{plot.key}", (plot.title, data.load_axis, words), bound(draw_load, data, cells, plot))
        for plot in LOAD_PLOTS
    ]
    return Chart(
        section="load",
        file=f"load-{name}",
        caption=say("Figures by load, {shape}", shape=words),
        words=words,
        rows=[("", panels)],
        svg=PANEL,
        png=(11, 3.3),
    )


def _distribution(data: ReportData, shape: Cell) -> Chart:
    cells, name, words = data.cells_of(shape), shape_name(shape), shape_words(shape)
    rows = []
    for metric, title in METRICS:
        limits = ecdf_limits(cells, metric)

        def panel(
            view: CellView, metric: str = metric, title: str = title, limits: tuple[float, float] = limits
        ) -> Panel:
            level = load_id(view.cell.load) if view.cell else "x"
            label = (mark("Distribution of latencies"), title, words, load_words(view.cell) if view.cell else view.id)
            return Panel(f"{name}-c{level}-{metric}-ecdf", label, bound(draw_ecdf, data, view, metric, limits))

        rows.append((title, [panel(view) for view in cells]))
    return Chart(
        section="distribution",
        file=f"distribution-{name}",
        caption=say("Distribution of latencies over requests, {shape}", shape=words),
        words=words,
        rows=rows,
        svg=(2.9, 1.95),
        png=(max(5.5, 2.9 * len(cells)), 4.6),
    )


def _memory(data: ReportData) -> Chart:
    title = say("Engine memory over the run")
    panel = Panel("memory", (title,), bound(draw_memory, data, data.memory))
    return Chart("memory", "memory", title, "", [("", [panel])], svg=(11.5, 3.0), png=(10, 3))


def _differences(data: ReportData, statistics: Statistics) -> Chart:
    seat = data.engines.index(statistics.b)
    names = {"a": statistics.a, "b": statistics.b}
    keys = [key for key in statistics.settings.headline if key in statistics.overall]
    height = 0.75 + ROW_INCHES * max(len(difference_rows(data, statistics)), 3)
    panels = [
        Panel(
            f"diff{seat}-{index}",
            (say("Difference by cell: {metric}, {a} and {b}", metric=metric_words(key), **names),),
            bound(draw_differences, data, statistics, key),
        )
        for index, key in enumerate(keys)
    ]
    return Chart(
        section="difference",
        file=f"difference-{seat}",
        caption=say("Difference by cell with 95% intervals, {a} and {b}", **names),
        words="",
        rows=[("", panels)],
        svg=(4.0, height),
        png=(WIDTH * len(keys), height + 0.35),
        left=LABEL_INCHES,
        shared_labels=True,
    )


def _frontier(data: ReportData, shape: Cell) -> Chart:
    cells, name, words = data.cells_of(shape), shape_name(shape), shape_words(shape)
    panels = [
        Panel(f"{name}-frontier{index}", (plot.title, words), bound(draw_frontier, data, cells, plot))
        for index, plot in enumerate(FRONTIER_PLOTS)
    ]
    return Chart(
        section="frontier",
        file=f"frontier-{name}",
        caption=say("Throughput against latency, {shape}", shape=words),
        words=words,
        rows=[("", panels)],
        svg=PANEL,
        png=(WIDTH * len(panels), 3.3),
    )


def _per_gpu(data: ReportData) -> Chart:
    title = say("Tokens per user against tokens per GPU")
    panel = Panel("per-gpu", (title,), bound(draw_per_gpu, data))
    section, file = "scaling" if data.several_gpus else "cost", "per-gpu" if data.costs is None else "cost"
    svg = PANEL if data.several_gpus else (5.4, 3.3)
    return Chart(section, file, title, title, [("", [panel])], svg=svg, png=(7.4, 4.2))


def _measured(data: ReportData) -> bool:
    return any(entry.summary is not None for view in data.cells for entry in view.engines.values())


def _scaling(data: ReportData) -> Chart:
    """A panel for each engine whose number of GPUs varies."""
    bases = list(dict.fromkeys(step.base for step in data.scaling))
    title = say("What more GPUs are worth")
    panels = [
        Panel(f"scaling{index}", (title, base), bound(draw_scaling, data, base)) for index, base in enumerate(bases)
    ]
    return Chart("scaling", "scaling", title, title, [("", panels)], svg=PANEL, png=(7.4 * len(panels), 4.2))


def _prefill(data: ReportData) -> Chart:
    title = say("TTFT by prompt length")
    panel = Panel("prefill", (title,), bound(draw_prefill, data))
    return Chart("prefill", "prefill", title, "", [("", [panel])], svg=PANEL, png=(2 * WIDTH, 3.2), columns=2)


def _drift(data: ReportData) -> Chart:
    panels = [
        Panel(
            f"drift{index}",
            (say("Blocks over the run: {metric}", metric=metric_words(key)),),
            bound(draw_drift, data, key),
        )
        for index, key in enumerate(HEADLINE)
    ]
    caption = say("Each block against its engine's mean of the same cell")
    return Chart("drift", "drift", caption, "", [("", panels)], svg=(4.0, 2.4), png=(WIDTH * len(panels), 2.7))
