"""The page: all boards as one file that needs nothing else, not even a network."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from loadgen.boards.answers import Outage
from loadgen.boards.colours import Colour
from loadgen.boards.figures import blocks_figure
from loadgen.boards.marks import Mark
from loadgen.boards.model import Board
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span, moment_text
from loadgen.boards.units import text
from loadgen.boards.views import View

COVERED = "bakeoff-covered"
"""Name of the page's own note of how much it shows: values times the seconds between them, whatever the step."""


@dataclasses.dataclass(frozen=True)
class BoardView:
    """One board as it is shown: its rows by title, with their panels."""

    board: Board
    rows: list[tuple[str, list[View]]]

    @property
    def views(self) -> list[View]:
        """All its panels, in reading order."""
        return [view for _, views in self.rows for view in views]


@dataclasses.dataclass(frozen=True)
class PageFacts:
    """What stands at the top of the page."""

    title: str
    span: Span
    source: str
    """Prometheus' URL."""
    problems: list[str]
    marks: Sequence[Mark]
    outages: Sequence[Outage]


def covered(boards: Sequence[BoardView], span: Span) -> int:
    """How much a page shows: values times the seconds between them."""
    return round(span.step * sum(view.points for board in boards for view in board.views))


def covered_by(path: Path) -> int:
    """How much an existing page shows; 0 where there is none, or none of ours."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(2000)
    except OSError:
        return 0
    found = re.search(rf'<meta name="{COVERED}" content="(\d+)">', head)
    return int(found[1]) if found else 0


def render(facts: PageFacts, boards: Sequence[BoardView], paint: Paint) -> str:
    """Return the page. Texts are escaped, but for plotly's script, ours, and the HTML made of Markdown."""
    from plotly.offline import get_plotlyjs

    def place(colour: Colour) -> int:
        paint.token(colour)
        return paint.palette.index(colour)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("loadgen.boards", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(place=place, engine=lambda name: place(paint.engine(name)), json=_json)
    views = [view for board in boards for view in board.views]
    body = environment.get_template("boards.html.j2").render(
        title=facts.title,
        range=f"{moment_text(facts.span.start)} to {moment_text(facts.span.end)} UTC",
        step=text(facts.span.step, "s"),
        source=facts.source,
        problems=facts.problems,
        filled=sum(view.reason is None for view in views),
        panels=len(views),
        engines=list(dict.fromkeys(mark.engine for mark in facts.marks)),
        boards=boards,
        blocks=blocks_figure(facts.marks, facts.outages, facts.span, paint) if facts.marks else None,
    )
    return environment.get_template("page.html.j2").render(
        title=facts.title,
        covered_name=COVERED,
        covered=covered(boards, facts.span),
        body=Markup(body),  # noqa: S704 (made above, escaped)
        palette=paint.palette,
        palette_json=_json(paint.palette),
        plotly=Markup(get_plotlyjs()),  # noqa: S704 (the library as it is published)
    )


def _json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it ends the element."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(written)  # noqa: S704
