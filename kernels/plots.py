"""The page's plots from the measurements: TFLOP/s by length, the roofline, bytes through device memory by length."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from kernels import flops
from kernels.cards import card_of
from kernels.measured import Bench, Measured
from kernels.steps import NAMES
from kernels.style import COLOURS, FONTS, LIBRARIES, LOOKS, Look, colour, style_sheet
from kernels.tables import HEADLINE, LENGTHS, MIB, label, paper_shape
from kernels.words import Language

SETTINGS: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bakeoff",
    "text.parse_math": False,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}
INK = {name: f"#0a0b{place:02x}" for place, name in enumerate(COLOURS, 1)}
"""Colours that stand for CSS variables until the SVG is finished."""


def speed(measured: Measured, say: Language) -> str:
    """TFLOP/s by length of every kernel, full and causal; whiskers are the lowest and the highest run."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, causal in zip(panels, (False, True), strict=True):
            axes.set_title(say("causal") if causal else say("not causal"), loc="left", color=INK["text"])
            if measured.bench is None:
                _nothing(axes, say)
                continue
            for kernel in measured.bench.kernels():
                _speed_line(axes, measured.bench, kernel, causal, say)
            _length_axis(axes, measured.bench.lengths(), say)
            axes.set_ylim(0, None)
            _finish(axes)
        if measured.bench is not None:
            panels[0].set_ylabel("TFLOP/s", color=INK["muted"])
            _legend(figure, panels[0])

    return _svg((8.6, 4.4), say("TFLOP/s by length: every step and the libraries"), draw, say)


def _speed_line(axes: Any, bench: Bench, kernel: str, causal: bool, say: Language) -> None:
    found = [(length, got) for length in bench.lengths() if (got := bench.speed(kernel, length, causal)) is not None]
    if not found:
        return
    look = LOOKS.get(kernel, Look(kernel, "muted", "."))
    lengths = [length for length, _ in found]
    middle = [got.median for _, got in found]
    ends = [[got.median - got.low for _, got in found], [got.high - got.median for _, got in found]]
    axes.errorbar(
        lengths,
        middle,
        yerr=ends,
        color=INK[look.colour],
        marker=look.marker,
        markersize=6,
        linewidth=1.5,
        elinewidth=1,
        linestyle=(0, (4, 2)) if look.dashed else "-",
        label=label(kernel, say),
    )


def roofline(measured: Measured, say: Language) -> str:
    """TFLOP/s by FLOPs a byte of device memory, under the roof of the card's data sheet."""

    def draw(figure: Figure) -> None:
        axes: Any = figure.subplots()
        points = _roof_points(measured)
        if not points or measured.bench is None:
            return _nothing(axes, say)
        card = card_of(measured.bench.card)
        low, high = min(x for x, _, _ in points.values()) / 3, max(x for x, _, _ in points.values()) * 3
        if card is not None:
            ridge = card.tflops / card.tbytes_a_s
            xs = [low, ridge, max(high, ridge * 3)]
            axes.plot(xs, [min(card.tflops, x * card.tbytes_a_s) for x in xs], color=INK["text"], linewidth=1.6)
            words = say("{tflops:g} TFLOP/s, {tbytes:g} TB/s", tflops=card.tflops, tbytes=card.tbytes_a_s)
            axes.text(xs[2], card.tflops * 1.12, words, ha="right", color=INK["muted"])
        for kernel, (x, y, look) in points.items():
            axes.plot(
                [x],
                [y],
                color=INK[look.colour],
                marker=look.marker,
                markersize=8,
                linestyle="none",
                label=label(kernel, say),
            )
        for axis, name in ((axes.xaxis, say("FLOPs a byte of device memory, counted")), (axes.yaxis, "TFLOP/s")):
            _log(axis)
            axis.set_label_text(name, color=INK["muted"])
        _finish(axes)
        _legend(figure, axes)
        return None

    title = say("Roofline at length {length:,}, not causal", length=HEADLINE)
    return _svg((7.6, 4.2), title, draw, say)


def _roof_points(measured: Measured) -> dict[str, tuple[float, float, Look]]:
    """FLOPs a counted byte and TFLOP/s of each kernel that has both."""
    found = {}
    for kernel, look in LOOKS.items():
        moved = measured.moved(kernel, HEADLINE)
        got = measured.bench.speed(kernel, HEADLINE, causal=False) if measured.bench else None
        if moved and got is not None:
            found[kernel] = (flops.flops(paper_shape(HEADLINE)) / moved, got.median, look)
    return found


def traffic(measured: Measured, say: Language) -> str:
    """Bytes through device memory of one sequence by length: lines as worked out, markers as counted."""

    def draw(figure: Figure) -> None:
        axes: Any = figure.subplots()
        for words, count, ink in (
            (say("textbook, worked out: O(N²)"), flops.textbook_bytes, "red"),
            (say("least there can be: O(N)"), flops.tiled_bytes, "blue"),
        ):
            axes.plot(
                LENGTHS,
                [_one_sequence(count(paper_shape(n)), n) for n in LENGTHS],
                color=INK[ink],
                linewidth=1.6,
                label=words,
            )
        for kernel in (*NAMES, *LIBRARIES):
            look = LOOKS[kernel]
            found = [(n, _one_sequence(moved, n)) for n in LENGTHS if (moved := measured.moved(kernel, n)) is not None]
            if found:
                axes.plot(
                    *zip(*found, strict=True),
                    color=INK[look.colour],
                    marker=look.marker,
                    markersize=7,
                    linestyle="none",
                    label=say("{kernel}, counted", kernel=label(kernel, say)),
                )
        if not measured.counters:
            axes.plot([], [], linestyle="none", label=say("counted: not measured yet"))
        _length_axis(axes, list(LENGTHS), say)
        _log(axes.yaxis)
        axes.set_ylabel(say("MiB of one sequence"), color=INK["muted"])
        _finish(axes)
        _legend(figure, axes)

    return _svg((7.6, 4.4), say("Bytes through device memory by length, 16 heads of 128"), draw, say)


def _one_sequence(moved: float, length: int) -> float:
    """MiB of one sequence from the bytes of the paper's batch."""
    return moved / paper_shape(length).batch / MIB


PLOTS: dict[str, Callable[[Measured, Language], str]] = {"speed": speed, "roofline": roofline, "traffic": traffic}
"""By the name of their files."""


def _nothing(axes: Any, say: Language) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, say("not measured yet"), ha="center", va="center", color=INK["muted"], transform=axes.transAxes)


def _length_axis(axes: Any, lengths: list[int], say: Language) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{n // 1024}k" if n >= 1024 else f"{n}" for n in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(say("length, tokens"), color=INK["muted"])


def _log(axis: Any) -> None:
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(base=10, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _finish(axes: Any) -> None:
    """Quiet frame, horizontal grid behind the data."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK["muted"])
    axes.grid(axis="y", color=INK["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", color=INK["muted"], labelcolor=INK["muted"], length=0)


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=3,
        frameon=False,
        labelcolor=INK["text"],
        handlelength=2.6,
    )


def _svg(size: tuple[float, float], title: str, draw: Callable[[Figure], None], say: Language) -> str:
    """Draw a figure of a size in inches, and make it an SVG that follows its reader's colours."""
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # browsers have fonts of their own
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        figure.suptitle(title, x=0.012, ha="left", color=INK["text"], fontsize=11.5, fontweight="bold")
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        buffer = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    source = buffer.getvalue()
    source = re.sub(r"<!--.*?-->", "", source[source.index("<svg") :], flags=re.DOTALL)
    source = re.sub(r"<metadata>.*?</metadata>\s*", "", source, flags=re.DOTALL)
    for name, ink in INK.items():
        source = source.replace(ink, colour(name))
    source = re.sub(r"font: (bold |\d+ )?([\d.]+)px [^;\"]+", _font, source)
    source = re.sub(r"\s*font-family: [^;\"]+;?", "", source)
    opening = re.match(r"<svg[^>]*>", source)
    box = re.search(r'viewBox="([^"]+)"', source)
    if opening is None or box is None:
        raise ValueError("matplotlib wrote no SVG")
    width, height = (float(part) for part in box[1].split()[2:])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1]}" '
        f'width="{width * 4 / 3:.0f}" height="{height * 4 / 3:.0f}" role="img" xml:lang="{say.tag}" '
        f'font-family="{FONTS}">\n<title>{escape(title)}</title>\n{style_sheet()}\n'
        f'<rect width="{width:g}" height="{height:g}" rx="8" style="fill:{colour("card")}"/>'
    )
    body = "\n".join(line.rstrip() for line in source[opening.end() :].splitlines() if line.strip())
    return f"{head}\n{body}\n"


def _font(match: re.Match[str]) -> str:
    bold = match[1] and match[1].strip() in ("bold", "700")
    return f"font-size: {match[2]}px" + ("; font-weight: 600" if bold else "")
