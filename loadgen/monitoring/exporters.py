"""Exporters that gave Prometheus no metrics for a part of a run."""

from __future__ import annotations

from loadgen.message import Message, say
from loadgen.monitoring.prometheus import Prometheus, PrometheusError

QUERY = 'up{job=~".+-exporter"}'
LEAST_S = 10.0
"""Of silence that is worth a word: a scrape may be late, and an exporter that is replaced is away for a moment."""
MOST_STEPS = 10_000


def silent_exporters(prometheus_url: str | None, start: float, end: float) -> list[Message]:
    """What was silent from start to end (seconds since the Unix epoch), in words; nothing where nobody can be asked."""
    if not prometheus_url or end <= start:
        return []
    step = max(1.0, (end - start) / MOST_STEPS)
    try:
        found = Prometheus(prometheus_url).range(QUERY, start, end, step)
    except PrometheusError:  # what the report lacks for that, it tells by itself
        return []
    messages = []
    for series in sorted(found, key=lambda each: each.labels.get("job", "")):
        silent = [at for at, value in series.points if value == 0]
        if len(silent) * step < LEAST_S:
            continue
        messages.append(
            say(
                "{exporter} gave no metrics for {seconds} s, first {after} s after this stretch of the run began: what "
                "it tells is missing there, on the boards and in the report. Requests were still recorded.",
                exporter=series.labels.get("job", "an exporter"),
                seconds=f"{len(silent) * step:.0f}",
                after=f"{silent[0] - start:.0f}",
            )
        )
    return messages
