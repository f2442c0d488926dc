"""The report's figures: inline SVG that follows the page's colours, and PNG files for Markdown."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from loadgen.message import mark, say
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS, PAPER, PLACEHOLDERS, VARIABLES, Palette
from loadgen.presentation.text import load_words, shape_words
from loadgen.report.data import ReportData
from loadgen.report.plots import (
    LOAD_PLOTS,
    Titles,
    draw_ecdf,
    draw_load,
    ecdf_limits,
    load_id,
)
from loadgen.report.plots_memory import draw_memory
from loadgen.scenario.model import Cell

SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.parse_math": False,  # names come from outside: a "$" is a "$"
    "svg.fonttype": "none",  # real text: a tenth of the size of outlines, and it can be searched
    "svg.hashsalt": "bakeoff",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}
PNG_DPI = 130
METRICS = (("ttft", mark("Time to first token")), ("tpot", mark("Time per output token")))
CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "SimHei", "Noto Sans CJK JP", "Droid Sans Fallback"),
)
"""Fonts with Chinese characters, the best first. matplotlib sees only one face of a collection: often the Japanese."""

Draw = Callable[[Any, Palette, str], Titles]


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """The plots of one combination of prompt and output tokens, as SVG."""

    name: str
    words: str
    loads: list[str]
    distributions: list[tuple[str, list[str]]]
    """(title, one SVG a cell) for each metric."""


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One PNG file."""

    path: Path
    caption: str


def chinese_font() -> str | None:
    """The font that PNG files can have Chinese in; None where this machine has none."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in CJK_FONTS if name in known), None)


def png_language(language: Language) -> Language:
    """The language of the words in PNG files: English where there is no font for it. SVG takes the reader's fonts."""
    return ENGLISH if language.code == "zh" and chinese_font() is None else language


@contextlib.contextmanager
def drawing(language: Language = ENGLISH) -> Iterator[None]:
    """Our settings; and no warnings about signs that the drawing font lacks, for browsers have fonts of their own."""
    settings = SETTINGS
    if language.code == "zh" and (font := chinese_font()):
        settings = SETTINGS | {"font.family": ["DejaVu Sans", font]}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def svg_shapes(data: ReportData, language: Language = ENGLISH) -> list[Shape]:
    """Draw the load plots and the distributions of every shape."""
    palette = dataclasses.replace(PLACEHOLDERS, language=language)
    with drawing(language):
        return [_svg_shape(data, shape, palette) for shape in data.shapes]


def svg_memory(data: ReportData, language: Language = ENGLISH) -> str | None:
    """Draw memory over time; None when there is none to show."""
    if not data.memory.series:
        return None
    with drawing(language):
        return draw_svg(
            (11.5, 3.0),
            "memory",
            language("Engine memory over the run"),
            lambda axes, palette, prefix: draw_memory(axes, data, data.memory, palette, prefix),
            dataclasses.replace(PLACEHOLDERS, language=language),
        )


def shape_name(shape: Cell) -> str:
    """A shape as a part of ids and of file names."""
    return f"p{shape.prompt_tokens}-o{shape.output_tokens}{shape.extras}"


def _svg_shape(data: ReportData, shape: Cell, palette: Palette) -> Shape:
    cells, told = data.cells_of(shape), palette.language
    words = shape_words(shape)
    name = shape_name(shape)
    loads = []
    for plot in LOAD_PLOTS:

        def draw(axes: Any, palette: Palette, prefix: str, plot: Any = plot) -> Titles:
            return draw_load(axes, data, cells, plot, palette, prefix)

        label = f"{told(plot.title)}, {told(data.load_axis)}, {told(words)}"
        loads.append(draw_svg((4.0, 2.75), f"{name}-{plot.key}", label, draw, palette))
    distributions = []
    for metric, title in METRICS:
        limits = ecdf_limits(cells, metric)
        panels = []
        for view in cells:

            def draw_one(
                axes: Any, palette: Palette, prefix: str, view: Any = view, m: str = metric, ends: Any = limits
            ) -> Titles:
                return draw_ecdf(axes, data, view, m, ends, palette, prefix)

            level = load_id(view.cell.load) if view.cell else "x"
            load = told(load_words(view.cell)) if view.cell else view.id
            label = f"{told('Distribution of latencies')}: {told(title)}, {told(words)}, {load}"
            panels.append(draw_svg((2.9, 1.95), f"{name}-c{level}-{metric}-ecdf", label, draw_one, palette))
        distributions.append((title, panels))
    return Shape(name, words, loads, distributions)


def draw_svg(
    size: tuple[float, float], prefix: str, label: str, draw: Draw, palette: Palette, *, left: float = 0.5
) -> str:
    """Draw one SVG of a size in inches, `left` of it left of the axis; `label` is what screen readers say."""
    figure = Figure(figsize=size)
    figure.patch.set_alpha(0)
    # Fixed margins, in inches: panels of a column line up, and a layout engine would take most of the time.
    width, height = size
    axes = figure.add_axes((left / width, 0.46 / height, 1 - (left + 0.1) / width, 1 - 0.72 / height))
    axes.patch.set_alpha(0)
    titles = draw(axes, palette, prefix)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata=nothing)
    return finish_svg(buffer.getvalue(), prefix, label, titles)


def finish_svg(source: str, prefix: str, label: str, titles: Titles) -> str:
    """Make matplotlib's SVG fit to stand inside a page.

    Its prologue, comments and namespaces go (HTML needs none), ids become unique to the page, colours become CSS
    variables, fonts become the page's, and points get titles that show on hovering.
    """
    source = re.sub(r"<!--.*?-->", "", source[source.index("<svg") :], flags=re.DOTALL)
    source = re.sub(r"<metadata>.*?</metadata>", "", source, flags=re.DOTALL)
    source = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", source).replace("xlink:href", "href")
    source = re.sub(r'\bid="([^"]+)"', lambda m: f'id="{_own(m[1], prefix)}"', source)
    source = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{_own(m[1], prefix)})", source)
    source = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{_own(m[1], prefix)}"', source)
    for colour, variable in VARIABLES.items():
        source = source.replace(colour, variable)
    source = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", source)
    source = re.sub(r"font-family: [^;\"]+;?", "", source)
    for gid, title in titles.items():
        source = source.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{html.escape(title)}</title>', 1)
    box = re.search(r'viewBox="([^"]+)"', source)
    view = box[1] if box else "0 0 100 100"
    opening = f'<svg class="plot" viewBox="{view}" role="img" aria-label="{html.escape(label)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, source, count=1).strip()


def _own(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else f"{prefix}-{name}"


def write_pngs(data: ReportData, folder: Path, language: Language = ENGLISH) -> dict[str, list[Picture]]:
    """Write the PNG files of the Markdown report; returns them by section (`load`, `distribution`, `memory`).

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(exist_ok=True)
    pictures: dict[str, list[Picture]] = {"load": [], "distribution": [], "memory": []}
    palette = dataclasses.replace(PAPER, language=language)
    with drawing(language):
        for shape in data.shapes:
            pictures["load"].append(_png_load(data, shape, folder, palette))
            pictures["distribution"].append(_png_distribution(data, shape, folder, palette))
        if data.memory.series:
            figure = Figure(figsize=(10, 3), layout="constrained", facecolor=PAPER.background)
            draw_memory(figure.add_subplot(), data, data.memory, palette, "m")
            legend(figure, data)
            pictures["memory"].append(save(figure, folder / "memory.png", say("Engine memory over the run")))
    return pictures


def _png_load(data: ReportData, shape: Cell, folder: Path, palette: Palette) -> Picture:
    figure = Figure(figsize=(11, 3.3), layout="constrained", facecolor=PAPER.background)
    for axes, plot in zip(figure.subplots(1, len(LOAD_PLOTS)), LOAD_PLOTS, strict=True):
        draw_load(axes, data, data.cells_of(shape), plot, palette, "l")
    legend(figure, data)
    caption = say("Figures by load, {shape}", shape=shape_words(shape))
    return save(figure, folder / f"load-{shape_name(shape)}.png", caption)


def _png_distribution(data: ReportData, shape: Cell, folder: Path, palette: Palette) -> Picture:
    cells = data.cells_of(shape)
    figure = Figure(figsize=(max(5.5, 2.9 * len(cells)), 4.6), layout="constrained", facecolor=PAPER.background)
    grid = figure.subplots(len(METRICS), len(cells), squeeze=False)
    for row, (metric, title) in zip(grid, METRICS, strict=True):
        limits = ecdf_limits(cells, metric)
        for axes, view in zip(row, cells, strict=True):
            draw_ecdf(axes, data, view, metric, limits, palette, "d")
        row[0].set_ylabel(palette.language(title), color=PAPER.text)
    legend(figure, data)
    caption = say("Distribution of latencies over requests, {shape}", shape=shape_words(shape))
    return save(figure, folder / f"distribution-{shape_name(shape)}.png", caption)


def legend(figure: Figure, data: ReportData) -> None:
    """Name the engines above the plots."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=PAPER.engines[look], marker=LOOKS[look].marker, label=engine[:40])
        for look, engine in zip(data.looks, data.engines, strict=True)
    ]
    # matplotlib leaves labels with a leading underscore out, so they are passed apart.
    labels = [engine[:40] for engine in data.engines]
    figure.legend(handles, labels, loc="outside upper right", ncols=len(handles), frameon=False)


def save(figure: Figure, path: Path, caption: str) -> Picture:
    """Write a PNG file. Raises OSError."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=PNG_DPI, facecolor=PAPER.background, metadata={"Software": None})
    return Picture(path, caption)
