"""`report.html`: one file that needs nothing else, not even a network."""

from __future__ import annotations

from pathlib import Path

from loadgen.files import atomic_write
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS
from loadgen.report.charts import charts
from loadgen.report.data import ReportData
from loadgen.report.figures import draw_svgs
from loadgen.report.page import context, environment


def render_html(data: ReportData, language: Language = ENGLISH) -> str:
    """Return the page. All text is escaped; only our own drawings are inserted as they are."""
    page = environment(autoescape=True, language=language).get_template("report.html.j2")
    return page.render(**context(data, language), plots=draw_svgs(charts(data), language), looks=LOOKS)


def write_html(data: ReportData, path: Path, language: Language = ENGLISH) -> None:
    """Write the page. Raises OSError."""
    atomic_write(path, render_html(data, language))
