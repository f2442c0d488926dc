"""The page: all boards as one file that needs nothing else, not even a network; and Prometheus asked for it."""

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

from loadgen.boards.answers import Outage, ask, find_outages
from loadgen.boards.colours import Colour
from loadgen.boards.figures import blocks_figure, clock, mark_shapes, outage_shapes
from loadgen.boards.marks import Mark, marks_of_range, marks_of_run
from loadgen.boards.model import Board
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span, make_span, moment_text
from loadgen.boards.units import text
from loadgen.boards.views import View, view_of
from loadgen.files import open_regular
from loadgen.monitoring.prometheus import Prometheus, PrometheusError, PrometheusGone, quoted
from loadgen.runs.manifest import Manifest

COVERED = "bakeoff-covered"
"""Name of the page's own note of how much it shows: values times the seconds between them, whatever the step."""
UNKNOWN_INTERVAL_S = 15.0
"""Where a server does not tell its scrape interval: Prometheus' own default is a minute, most set 15 s."""
SPECIAL = re.compile(r"[\\^$*{}\[\]+?.()|]")


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


def build_page(
    boards: Sequence[Board], prometheus: Prometheus, start: float, end: float, *, title: str, manifest: Manifest | None
) -> Page:
    """Ask for everything that the boards show from start to end (seconds since the Unix epoch).

    With a run's manifest, the page is that run's: its blocks are marked, and boards show it alone where they can.
    Failures on the way are told on the page.

    Raises:
        PrometheusGone: Prometheus does not answer at all.
        UserError: the range does not go forward.
    """
    try:
        interval = prometheus.scrape_interval()
    except PrometheusGone:
        raise
    except PrometheusError:
        interval = UNKNOWN_INTERVAL_S
    span = make_span(start, end, interval)
    outages = find_outages(prometheus, span)
    marks = marks_of_run(manifest, span) if manifest else marks_of_range(prometheus, span, outages)
    named = [engine.name for engine in manifest.engines] if manifest else []
    paint = Paint([*named, *sorted({mark.engine for mark in marks})])
    background = [*mark_shapes(marks, span, paint), *outage_shapes(outages, span, paint)]
    # A regular expression inside a PromQL string, of which it gets no second pair of quotation marks.
    chosen = {"run": quoted(SPECIAL.sub(r"\\\g<0>", manifest.run_id))[1:-1]} if manifest else {}

    def shown(board: Board) -> BoardView:
        rows: list[tuple[str, list[View]]] = []
        for row in board.rows:
            answers = [(panel, place, ask(panel, prometheus, span, chosen, outages)) for panel, place in row.placed()]
            rows.append((row.title, [view_of(*each, span, paint, background) for each in answers]))
        return BoardView(board, rows)

    return Page(
        title,
        span,
        prometheus.url,
        [
            f"Prometheus recorded nothing from {clock(begin)} to {clock(min(finish, span.end))}."
            for begin, finish in outages
        ],
        marks,
        outages,
        [shown(board) for board in boards],
        paint,
        prometheus.gone,
    )


MAX_PAGE = 1 << 30


def covered_by(path: Path) -> int:
    """How much an existing page shows; 0 where there is none, or none of ours."""
    try:
        with open_regular(path, MAX_PAGE) as file:
            head = file.read(2000).decode("utf-8", "replace")
    except OSError:
        return 0
    found = re.search(rf'<meta name="{COVERED}" content="(\d+)">', head)
    return int(found[1]) if found else 0


def _json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it ends the element."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(written)  # noqa: S704
