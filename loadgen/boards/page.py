"""The page: all boards as one file that needs nothing else, not even a network."""

from __future__ import annotations

import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class Page:
    """All that a page shows."""

    title: str
    span: Span
    source: str
    """Prometheus' URL."""
    problems: list[str]
    marks: Sequence[Mark]
    outages: Sequence[Outage]
    boards: Sequence[BoardView]
    paint: Paint
    stopped: bool
    """Whether Prometheus stopped answering on the way."""

    @property
    def views(self) -> list[View]:
        """The panels of all boards."""
        return [view for board in self.boards for _, views in board.rows for view in views]

    @property
    def panels(self) -> int:
        """How many there are."""
        return len(self.views)

    @property
    def filled(self) -> int:
        """How many of them have something to show."""
        return sum(view.reason is None for view in self.views)

    @property
    def covered(self) -> int:
        """How much it shows: values times the seconds between them."""
        return round(self.span.step * sum(view.points for view in self.views))

    @functools.cached_property
    def html(self) -> str:
        """The page. Texts are escaped, but for plotly's script, ours, and the HTML made of Markdown."""
        from plotly.offline import get_plotlyjs

        def place(colour: Colour) -> int:
            self.paint.token(colour)
            return self.paint.palette.index(colour)

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("loadgen.boards", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(place=place, engine=lambda name: place(self.paint.engine(name)), json=_json)
        body = environment.get_template("boards.html.j2").render(
            page=self,
            range=f"{moment_text(self.span.start)} to {moment_text(self.span.end)} UTC",
            step=text(self.span.step, "s"),
            engines=list(dict.fromkeys(mark.engine for mark in self.marks)),
            blocks=blocks_figure(self.marks, self.outages, self.span, self.paint) if self.marks else None,
        )
        return environment.get_template("page.html.j2").render(
            page=self,
            covered_name=COVERED,
            body=Markup(body),  # noqa: S704 (made above, escaped)
            palette_json=_json(self.paint.palette),
            plotly=Markup(get_plotlyjs()),  # noqa: S704 (the library as it is published)
        )


def covered_by(path: Path) -> int:
    """How much an existing page shows; 0 where there is none, or none of ours."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(2000)
    except OSError:
        return 0
    found = re.search(rf'<meta name="{COVERED}" content="(\d+)">', head)
    return int(found[1]) if found else 0


def _json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it ends the element."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(written)  # noqa: S704
