"""When which block of which engine ran: from a run's manifest, or from the client's own metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loadgen.boards.answers import Outage
from loadgen.boards.catalogue.queries import INFO
from loadgen.boards.span import Span
from loadgen.monitoring.prometheus import Prometheus, PrometheusError
from loadgen.runs.manifest import Manifest


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """One block. Times in seconds since the Unix epoch."""

    start: float
    end: float
    engine: str
    cell: str
    block: str
    run: str


def marks_of_run(manifest: Manifest, span: Span) -> list[Mark]:
    """The blocks of a run; one without an end goes to the end of the range."""
    return [
        Mark(
            block.started_at,
            block.ended_at if block.ended_at is not None else span.end,
            block.engine,
            block.cell,
            block.record_id,
            manifest.run_id,
        )
        for block in manifest.blocks
    ]


def marks_of_range(prometheus: Prometheus, span: Span, outages: Sequence[Outage]) -> list[Mark]:
    """The blocks that the client told of in a time range; none where Prometheus does not know."""
    query = f"max by (run_id, block, engine, cell) ({INFO})"
    try:
        found = prometheus.range(query, span.start, span.end, span.step)
    except PrometheusError:
        return []
    marks = []
    for series in found:
        labels = [series.labels.get(key, "") for key in ("engine", "cell", "block", "run_id")]
        times = [at for at, _ in series.points if not any(start < at < end for start, end in outages)]
        begin = last = None
        for at in times:
            if begin is None or last is None:
                begin = at
            elif at - last > 1.5 * span.step:
                marks.append(Mark(begin, last, *labels))
                begin = at
            last = at
        if begin is not None and last is not None:
            marks.append(Mark(begin, last, *labels))
    return sorted(marks, key=lambda mark: (mark.start, mark.engine))
