"""`report.md`, with its pictures in `report_files/`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

from loadgen.report.data import ReportData
from loadgen.report.figures import Picture, write_pngs
from loadgen.report.page import context, environment

FILES = "report_files"


def write_markdown(data: ReportData, path: Path) -> None:
    """Write the Markdown report beside its pictures. Raises OSError."""
    pictures = write_pngs(data, path.parent / FILES)
    path.write_text(render_markdown(data, pictures), encoding="utf-8", errors="replace")


def render_markdown(data: ReportData, pictures: dict[str, list[Picture]]) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    rendered = markdown_environment(FILES).get_template("report.md.j2").render(**context(data), pictures=pictures)
    return tidy(rendered)


def markdown_environment(files: str) -> jinja2.Environment:
    """Return a template environment for Markdown whose pictures lie in the folder `files` beside it."""
    made = environment(autoescape=False)
    made.filters.update(md=escape, code=code, image=lambda picture: _image(picture, files))
    return made


def tidy(rendered: str) -> str:
    """Leave one empty line where templates leave several."""
    return re.sub(r"\n{3,}", "\n\n", rendered)


def escape(value: Any) -> str:
    """Make text harmless in Markdown, tables included: no markup, no HTML, no link, one line."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", line)
    # A bare address would become a link: break it with a zero-width joiner that keeps it readable.
    return re.sub(r"(https?|ftp)://", "\\1:\u2060//", line, flags=re.IGNORECASE)


def code(value: Any) -> str:
    """Wrap text as inline code with a fence longer than any run of backticks in it, safe within tables."""
    line = " ".join(str(value).split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _image(picture: Picture, files: str) -> str:
    return f"![{picture.caption}]({files}/{picture.path.name})"
