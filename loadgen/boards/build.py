"""From boards and a time range to a page, with Prometheus asked on the way."""

from __future__ import annotations

import re
from collections.abc import Sequence

from loadgen.boards.answers import ask, find_outages
from loadgen.boards.figures import clock, mark_shapes, outage_shapes
from loadgen.boards.marks import marks_of_range, marks_of_run
from loadgen.boards.model import Board
from loadgen.boards.page import BoardView, Page
from loadgen.boards.paint import Paint
from loadgen.boards.span import make_span
from loadgen.boards.views import View, view_of
from loadgen.monitoring.prometheus import Prometheus, PrometheusError, PrometheusGone, quoted
from loadgen.runs.manifest import Manifest

UNKNOWN_INTERVAL_S = 15.0
"""Where a server does not tell its scrape interval: Prometheus' own default is a minute, most set 15 s."""
SPECIAL = re.compile(r"[\\^$*{}\[\]+?.()|]")


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
