"""`report.html`: one file that needs nothing else, not even a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from loadgen.files import atomic_write
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS
from loadgen.report.data import ReportData
from loadgen.report.figures import svg_memory, svg_shapes
from loadgen.report.figures_compare import svg_comparison
from loadgen.report.page import context, environment


def drawings(data: ReportData, language: Language = ENGLISH) -> list[dict[str, Any]]:
    """The plots of each shape, as the templates take them."""
    return [
        {
            "words": shape.words,
            "loads": _markup(shape.loads),
            "distributions": [(title, _markup(panels)) for title, panels in shape.distributions],
        }
        for shape in svg_shapes(data, language)
    ]


def comparison_drawings(data: ReportData, language: Language = ENGLISH) -> dict[str, Any]:
    """The plots of the comparison, as the templates take them."""
    drawn = svg_comparison(data, language)
    return {
        "differences": [_markup(panels) for panels in drawn.differences],
        "frontiers": [(words, _markup(panels)) for words, panels in drawn.frontiers],
        "prefill": None if drawn.prefill is None else _markup([drawn.prefill])[0],
        "drift": _markup(drawn.drift),
    }


def _markup(drawn: list[str]) -> list[Markup]:
    """Drawings to be inserted as they are: we drew them, and escaped the texts in them."""
    return [Markup(svg) for svg in drawn]  # noqa: S704


def render_html(data: ReportData, language: Language = ENGLISH) -> str:
    """Return the page. All text is escaped; only our own drawings are inserted as they are."""
    memory = svg_memory(data, language)
    return (
        environment(autoescape=True, language=language)
        .get_template("report.html.j2")
        .render(
            **context(data),
            shapes=drawings(data, language),
            plots=comparison_drawings(data, language),
            memory=None if memory is None else _markup([memory])[0],
            looks=LOOKS,
        )
    )


def write_html(data: ReportData, path: Path, language: Language = ENGLISH) -> None:
    """Write the page. Raises OSError."""
    atomic_write(path, render_html(data, language))
