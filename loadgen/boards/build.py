"""From boards and a time range to a page, with Prometheus asked on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from loadgen.boards.answers import ask, find_outages
from loadgen.boards.dashboard import Board
from loadgen.boards.figures import clock, mark_shapes, outage_shapes
from loadgen.boards.marks import marks_of_range, marks_of_run
from loadgen.boards.page import BoardView, PageFacts, SectionView, covered, render
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span, make_span
from loadgen.boards.variables import resolve
from loadgen.boards.views import view_of
from loadgen.monitoring.prometheus import Prometheus, PrometheusError, PrometheusGone
from loadgen.runs.manifest import Manifest

UNKNOWN_INTERVAL_S = 15.0
"""Where a server does not tell its scrape interval: Prometheus' own default is a minute, most set 15 s."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A finished page."""

    html: str
    covered: int
    """How much it shows: values times the seconds between them."""
    panels: int
    filled: int
    """How many of the panels have something to show."""
    stopped: bool
    """Whether Prometheus stopped answering on the way."""


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
    paint = Paint(boards, [*named, *sorted({mark.engine for mark in marks})])
    background = [*mark_shapes(marks, span, paint), *outage_shapes(outages, span, paint)]
    given = {"run": manifest.run_id} if manifest else {}
    shown = [_board(board, prometheus, span, given, outages, paint, background) for board in boards]
    views = [view for board in shown for view in board.views]
    facts = PageFacts(
        title=title,
        span=span,
        source=prometheus.url,
        problems=[
            f"Prometheus recorded nothing from {clock(begin)} to {clock(min(finish, span.end))}."
            for begin, finish in outages
        ],
        marks=marks,
        outages=outages,
    )
    return Page(
        html=render(facts, shown, paint),
        covered=covered(shown, span),
        panels=len(views),
        filled=sum(view.reason is None for view in views),
        stopped=prometheus.gone,
    )


def _board(
    board: Board,
    prometheus: Prometheus,
    span: Span,
    given: Mapping[str, str],
    outages: Sequence[tuple[float, float]],
    paint: Paint,
    background: Sequence[dict[str, object]],
) -> BoardView:
    values, problems = resolve(board, prometheus, span, given)
    sections = []
    for section in board.sections:
        views = []
        for panel in section.panels:
            answer = ask(panel, prometheus, span, values, outages)
            views.append(view_of(panel, answer, values, span, paint, background))
        sections.append(SectionView(section.title, views))
    return BoardView(board.uid, board.title, board.description, problems, sections)
