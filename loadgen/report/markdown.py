"""`report.md`, with its pictures in `report_files/`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

from loadgen.files import atomic_write
from loadgen.message import printable, say
from loadgen.presentation.language import ENGLISH, Language
from loadgen.report.charts import charts
from loadgen.report.data import ReportData
from loadgen.report.figures import png_language, write_pngs
from loadgen.report.page import context, environment

FILES = "report_files"


def write_markdown(data: ReportData, path: Path, language: Language = ENGLISH) -> None:
    """Write the Markdown report beside its pictures. Raises OSError."""
    files = FILES if language is ENGLISH else f"{FILES}.{language.code}"
    told = png_language(language)
    pictures = write_pngs(data, charts(data), path.parent / files, told)
    note = None if told is language else say("Words in the pictures are English: this machine has no font for Chinese.")
    rendered = markdown_environment(files, language).get_template("report.md.j2")
    text = tidy(rendered.render(**context(data, language), pictures=pictures, picture_note=note))
    atomic_write(path, text)


def markdown_environment(files: str, language: Language = ENGLISH) -> jinja2.Environment:
    """Return a template environment for Markdown whose pictures lie in the folder `files` beside it."""
    made = environment(autoescape=False, language=language)
    made.filters.update(
        md=lambda value: escape(language.shown(value)),
        code=lambda value: code(language.shown(value)),
        image=lambda picture: f"![{escape(language.shown(picture.caption))}]({files}/{picture.path.name})",
    )
    return made


def tidy(rendered: str) -> str:
    """Leave one empty line where templates leave several."""
    return re.sub(r"\n{3,}", "\n\n", rendered)


def escape(value: Any) -> str:
    """Make text harmless in Markdown, tables included: no markup, no HTML, no link, one line."""
    line = printable(" ".join(str(value).split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", line)
    # A bare address would become a link: break it with a zero-width joiner that keeps it readable.
    return re.sub(r"(https?|ftp)://", "\\1:\u2060//", line, flags=re.IGNORECASE)


def code(value: Any) -> str:
    """Wrap text as inline code with a fence longer than any run of backticks in it, safe within tables."""
    line = printable(" ".join(str(value).split()))
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")
