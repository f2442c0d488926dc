"""The figures of the comparison: differences by cell, frontiers, prefill, drift. SVG and PNG, as in `figures`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from loadgen.message import say
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import PAPER, PLACEHOLDERS, Palette
from loadgen.presentation.text import shape_words
from loadgen.report.cells import CellView
from loadgen.report.data import ReportData
from loadgen.report.figures import Picture, draw_svg, drawing, legend, save, shape_name
from loadgen.report.plots import Titles
from loadgen.report.plots_compare import (
    LABEL_INCHES,
    ROW_INCHES,
    difference_rows,
    draw_differences,
    draw_drift,
    drifting,
)
from loadgen.report.plots_frontier import FRONTIER_PLOTS, draw_frontier, draw_prefill
from loadgen.statistics.metrics import HEADLINE
from loadgen.statistics.result import Statistics
from loadgen.statistics.words import metric_words


@dataclasses.dataclass(frozen=True, slots=True)
class ComparisonDrawings:
    """SVG."""

    differences: list[list[str]]
    """One list a comparison, a panel a headline metric."""
    frontiers: list[tuple[str, list[str]]]
    """By shape: its words, and one panel a latency."""
    prefill: str | None
    drift: list[str]


def svg_comparison(data: ReportData, language: Language = ENGLISH) -> ComparisonDrawings:
    """Draw all of them; what there is nothing to draw of is empty."""
    palette = dataclasses.replace(PLACEHOLDERS, language=language)
    with drawing(language):
        return ComparisonDrawings(
            differences=[_svg_differences(data, found, palette) for found in data.comparisons],
            frontiers=[(shape_words(s), _svg_frontier(data, s, palette)) for s in data.shapes if _several(data, s)],
            prefill=_svg_prefill(data, palette),
            drift=_svg_drift(data, palette),
        )


def _several(data: ReportData, shape: Any) -> bool:
    """Whether a shape has two loads and so a frontier."""
    return len({view.cell.load for view in data.cells_of(shape) if view.cell is not None}) > 1


def _keys(statistics: Statistics) -> list[str]:
    return [key for key in statistics.settings.headline if key in statistics.overall]


def _height(rows: int) -> float:
    return 0.75 + ROW_INCHES * max(rows, 3)


def _svg_differences(data: ReportData, statistics: Statistics, palette: Palette) -> list[str]:
    rows = len(difference_rows(data, statistics))
    panels = []
    for index, key in enumerate(_keys(statistics)):
        prefix = f"diff{data.engines.index(statistics.b)}-{index}"

        def draw(axes: Any, palette: Palette, prefix: str, key: str = key) -> Titles:
            return draw_differences(axes, data, statistics, key, palette, prefix)

        label = palette.language(
            "Difference by cell: {metric}, {a} and {b}",
            metric=metric_words(key),
            a=statistics.a,
            b=statistics.b,
        )
        panels.append(draw_svg((4.0, _height(rows)), prefix, label, draw, palette, left=LABEL_INCHES))
    return panels


def _svg_frontier(data: ReportData, shape: Any, palette: Palette) -> list[str]:
    cells = data.cells_of(shape)
    panels = []
    for index, plot in enumerate(FRONTIER_PLOTS):

        def draw(axes: Any, palette: Palette, prefix: str, plot: Any = plot) -> Titles:
            return draw_frontier(axes, data, cells, plot, palette, prefix)

        label = f"{palette.language(plot.title)}, {palette.language(shape_words(shape))}"
        panels.append(draw_svg((4.0, 2.75), f"{shape_name(shape)}-frontier{index}", label, draw, palette))
    return panels


def _svg_prefill(data: ReportData, palette: Palette) -> str | None:
    if not data.prefill:
        return None

    def draw(axes: Any, palette: Palette, prefix: str) -> Titles:
        return draw_prefill(axes, data, palette, prefix)

    return draw_svg((4.0, 2.75), "prefill", palette.language("TTFT by prompt length"), draw, palette)


def _svg_drift(data: ReportData, palette: Palette) -> list[str]:
    if not drifting(data):
        return []
    panels = []
    for index, key in enumerate(HEADLINE):

        def draw(axes: Any, palette: Palette, prefix: str, key: str = key) -> Titles:
            return draw_drift(axes, data, key, palette, prefix)

        label = palette.language("Blocks over the run: {metric}", metric=metric_words(key))
        panels.append(draw_svg((4.0, 2.4), f"drift{index}", label, draw, palette))
    return panels


def write_comparison_pngs(data: ReportData, folder: Path, language: Language = ENGLISH) -> dict[str, list[Picture]]:
    """Write the PNG files; returns them by section (`difference`, `frontier`, `prefill`, `drift`). Raises OSError."""
    folder.mkdir(exist_ok=True)
    palette = dataclasses.replace(PAPER, language=language)
    with drawing(language):
        differences = [_png_differences(data, found, folder, palette) for found in data.comparisons]
        shapes = [shape for shape in data.shapes if _several(data, shape)]
        frontiers = [_png_frontier(data, shape, data.cells_of(shape), folder, palette) for shape in shapes]
        prefill = [_png_prefill(data, folder, palette)] if data.prefill else []
        drift = [_png_drift(data, folder, palette)] if drifting(data) else []
    return {"difference": differences, "frontier": frontiers, "prefill": prefill, "drift": drift}


def _row(panels: int, height: float) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(3.7 * panels, height), layout="constrained", facecolor=PAPER.background)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _png_differences(data: ReportData, statistics: Statistics, folder: Path, palette: Palette) -> Picture:
    keys = _keys(statistics)
    figure, row = _row(len(keys), _height(len(difference_rows(data, statistics))) + 0.35)
    for axes, key in zip(row, keys, strict=True):
        draw_differences(axes, data, statistics, key, palette, "d")
    for axes in row[1:]:
        axes.set_yticklabels([])
    legend(figure, data)
    seat = data.engines.index(statistics.b)
    caption = say("Difference by cell with 95% intervals, {a} and {b}", a=statistics.a, b=statistics.b)
    return save(figure, folder / f"difference-{seat}.png", caption)


def _png_frontier(data: ReportData, shape: Any, cells: Sequence[CellView], folder: Path, palette: Palette) -> Picture:
    figure, row = _row(len(FRONTIER_PLOTS), 3.3)
    for axes, plot in zip(row, FRONTIER_PLOTS, strict=True):
        draw_frontier(axes, data, cells, plot, palette, "f")
    legend(figure, data)
    caption = say("Throughput against latency, {shape}", shape=shape_words(shape))
    return save(figure, folder / f"frontier-{shape_name(shape)}.png", caption)


def _png_prefill(data: ReportData, folder: Path, palette: Palette) -> Picture:
    figure, row = _row(2, 3.2)
    row[1].set_axis_off()
    draw_prefill(row[0], data, palette, "p")
    legend(figure, data)
    return save(figure, folder / "prefill.png", say("TTFT by prompt length"))


def _png_drift(data: ReportData, folder: Path, palette: Palette) -> Picture:
    figure, row = _row(len(HEADLINE), 2.7)
    for axes, key in zip(row, HEADLINE, strict=True):
        draw_drift(axes, data, key, palette, "t")
    legend(figure, data)
    return save(figure, folder / "drift.png", say("Each block against its engine's mean of the same cell"))
