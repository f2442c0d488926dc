"""`report.html`: one file that needs nothing else, not even a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from loadgen.report.data import ReportData
from loadgen.report.figures import svg_memory, svg_shapes
from loadgen.report.page import context, environment
from loadgen.report.style import LOOKS


def drawings(data: ReportData) -> list[dict[str, Any]]:
    """The plots of each shape, as the templates take them. Texts in them are escaped: they are drawn by us."""
    return [
        {
            "words": shape.words,
            "loads": [Markup(svg) for svg in shape.loads],  # noqa: S704
            "distributions": [
                (title, [Markup(svg) for svg in panels])  # noqa: S704
                for title, panels in shape.distributions
            ],
        }
        for shape in svg_shapes(data)
    ]


def render_html(data: ReportData) -> str:
    """Return the page. All text is escaped; only our own drawings are inserted as they are."""
    memory = svg_memory(data)
    return (
        environment(autoescape=True)
        .get_template("report.html.j2")
        .render(
            **context(data),
            shapes=drawings(data),
            memory=None if memory is None else Markup(memory),  # noqa: S704
            looks=LOOKS,
        )
    )


def write_html(data: ReportData, path: Path) -> None:
    """Write the page. Raises OSError."""
    path.write_text(render_html(data), encoding="utf-8", errors="replace")
