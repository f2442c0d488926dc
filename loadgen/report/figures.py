"""The report's figures, each declared once: inline SVG that follows the page's colours, and PNG files for Markdown."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from loadgen.files import atomic_write, make_folder
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS, PAPER, PLACEHOLDERS, VARIABLES, Palette
from loadgen.report.data import ReportData
from loadgen.report.plots import Titles

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
CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "SimHei", "Noto Sans CJK JP", "Droid Sans Fallback"),
)
"""Fonts with Chinese characters, the best first. matplotlib sees only one face of a collection: often the Japanese."""

SECTIONS = ("load", "distribution", "memory", "difference", "frontier", "scaling", "cost", "prefill", "drift")
Size = tuple[float, float]
Draw = Callable[[Any, Palette, str], Titles]


def bound(draw: Callable[..., Titles], *arguments: Any) -> Draw:
    """A function of `plots` with all but what each way of drawing gives it."""
    return lambda axes, palette, prefix: draw(axes, *arguments, palette, prefix)


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One plot."""

    name: str
    """What its elements' ids begin with on a page."""
    label: Sequence[str]
    """What screen readers say."""
    draw: Draw


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """Plots that belong together: rows of panels, each with a title or ""."""

    section: str
    file: str
    """Name of the PNG file, without its ending."""
    caption: str
    words: str
    """What sets it apart from others of its section."""
    rows: Sequence[tuple[str, Sequence[Panel]]]
    svg: Size
    """Of one panel, in inches."""
    png: Size
    """Of all panels."""
    left: float = 0.5
    """Inches left of a panel's axis."""
    shared_labels: bool = False
    """Whether only the first panel of a PNG file has labels on its axis."""
    columns: int = 1
    """At least so many places for panels in a PNG file."""


TICK_INCHES = 0.12
"""Between an axis and the labels of its ticks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One PNG file."""

    path: Path
    caption: str


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """One chart as SVG."""

    words: str
    rows: list[tuple[str, list[Markup]]]

    @property
    def panels(self) -> list[Markup]:
        """All of them."""
        return [panel for _, panels in self.rows for panel in panels]


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


def draw_svgs(charts: Sequence[Chart], language: Language = ENGLISH) -> dict[str, list[Drawn]]:
    """Draw every chart for a page, by section."""
    palette = dataclasses.replace(PLACEHOLDERS, language=language)
    found: dict[str, list[Drawn]] = {section: [] for section in SECTIONS}
    with drawing(language):
        for chart in charts:
            # We drew them, and escaped the texts in them, so they may stand in a page as they are.
            rows = [(title, [Markup(draw_svg(chart, panel, palette)) for panel in row]) for title, row in chart.rows]  # noqa: S704
            found[chart.section].append(Drawn(chart.words, rows))
    return found


def draw_svg(chart: Chart, panel: Panel, palette: Palette) -> str:
    """Draw one panel."""
    figure = Figure(figsize=chart.svg)
    figure.patch.set_alpha(0)
    # Fixed margins, in inches: panels of a column line up, and a layout engine would take most of the time.
    width, height = chart.svg
    axes = figure.add_axes((chart.left / width, 0.46 / height, 1 - (chart.left + 0.1) / width, 1 - 0.72 / height))
    axes.patch.set_alpha(0)
    titles = panel.draw(axes, palette, panel.name)
    left, right = margins(axes, chart.left, width)
    axes.set_position((left / width, 0.46 / height, 1 - (left + right) / width, 1 - 0.72 / height))
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata=nothing)
    label = ", ".join(palette.language(text) for text in panel.label)
    return finish_svg(buffer.getvalue(), panel.name, label, titles)


def margins(axes: Any, left: float, width: float) -> tuple[float, float]:
    """Inches on both sides of an axis that no tick's label is cut in: `left` and 0.1 where these do.

    `width` is that of the whole panel, in inches.
    """
    rows = [_inches(label) for label in axes.get_yticklabels() if label.get_visible()]
    left, right = max([left, *(wide + TICK_INCHES for wide in rows)]), 0.1
    inner = width - left - right
    low, high = sorted(axes.get_xlim())
    for label in axes.get_xticklabels():
        at = label.get_position()[0]
        if low <= at <= high:
            place = axes.transAxes.inverted().transform(axes.transData.transform((at, 0)))[0]
            right = max(right, _inches(label) / 2 - (1 - place) * inner)
            left = max(left, _inches(label) / 2 - place * inner)
    return left, min(right, 0.25 * width)


def _inches(label: Any) -> float:
    """About how wide a text is: browsers have fonts of their own."""
    return sum(1.0 if ord(sign) > 0x2E80 else 0.62 for sign in label.get_text()) * float(label.get_fontsize()) / 72


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


def write_pngs(
    data: ReportData, charts: Sequence[Chart], folder: Path, language: Language = ENGLISH
) -> dict[str, list[Picture]]:
    """Write the PNG files of the Markdown report; returns them by section. Raises OSError."""
    make_folder(folder)
    palette = dataclasses.replace(PAPER, language=language)
    found: dict[str, list[Picture]] = {section: [] for section in SECTIONS}
    with drawing(language):
        for chart in charts:
            figure = _png(chart, palette)
            _legend(figure, data)
            found[chart.section].append(save(figure, folder / f"{chart.file}.png", chart.caption))
    return found


def _png(chart: Chart, palette: Palette) -> Figure:
    figure = Figure(figsize=chart.png, layout="constrained", facecolor=palette.background)
    columns = max(chart.columns, *(len(panels) for _, panels in chart.rows))
    grid = figure.subplots(len(chart.rows), columns, squeeze=False)
    for places, (title, panels) in zip(grid, chart.rows, strict=True):
        for axes, panel in zip(places, panels, strict=False):
            panel.draw(axes, palette, panel.name)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        if title:
            places[0].set_ylabel(palette.language(title), color=palette.text)
        if chart.shared_labels:
            for axes in places[1:]:
                axes.set_yticklabels([])
    return figure


def _legend(figure: Figure, data: ReportData) -> None:
    """Name the engines above the plots."""
    handles = [Line2D([], [], color=PAPER.engines[look], marker=LOOKS[look].marker) for look in data.looks]
    # matplotlib leaves labels with a leading underscore out, so they are passed apart.
    labels = [engine[:40] for engine in data.engines]
    figure.legend(handles, labels, loc="outside upper right", ncols=len(handles), frameon=False)


def save(figure: Figure, path: Path, caption: str) -> Picture:
    """Write a PNG file. Raises OSError."""
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=PNG_DPI, facecolor=PAPER.background, metadata={"Software": None})
    atomic_write(path, drawn.getvalue())
    return Picture(path, caption)
