"""What Prometheus answers to a panel's queries, on the page's moments; what it did not answer, in words."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from loadgen.boards.dashboard import Panel, Target
from loadgen.boards.macros import MacroError, Value, built_in, interpolate
from loadgen.boards.span import Span
from loadgen.monitoring.prometheus import Labels, Prometheus, PrometheusError, Series, duration_seconds

LEGEND = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")
Outage = tuple[float, float]
"""A time in which Prometheus took in nothing: after the first moment, before the second one."""
OUTAGE_SCRAPES = 5
"""So many scrapes in a row that did not come, of any target, are an outage."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One series of a panel: a value for each of the span's moments."""

    name: str
    ref: str
    labels: Labels
    values: list[float | None]
    """None where there is none: such a moment is a gap."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One series of an instant query."""

    name: str
    ref: str
    labels: Labels
    value: float
    at: float
    """Seconds since the Unix epoch."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """All that came for one panel."""

    lines: tuple[Line, ...] = ()
    samples: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """How many values came."""
        return sum(value is not None for line in self.lines for value in line.values) + len(self.samples)


def ask(
    panel: Panel, prometheus: Prometheus, span: Span, values: Mapping[str, Value], outages: Sequence[Outage]
) -> Answer:
    """Ask a panel's queries. Never raises: what failed is among the problems."""
    lines, samples, problems = list[Line](), list[Sample](), list[str]()
    interval = duration_seconds(panel.interval.removeprefix(">")) if panel.interval else None
    known = {**values, **built_in(span, interval)}
    for target in panel.targets:
        if target.hide or not target.expr:
            continue
        try:
            query = interpolate(target.expr, known)
            if target.instant:
                samples += _instant(target, prometheus, span, query)
            else:
                for series in prometheus.range(query, span.start, span.end, span.step):
                    line = _values(series, span, outages)
                    if any(value is not None for value in line):
                        lines.append(Line(legend(target, series.labels), target.ref, series.labels, line))
        except (PrometheusError, MacroError) as error:
            problems.append(f"Query {target.ref}: {error}.")
    return Answer(tuple(lines), tuple(samples), tuple(dict.fromkeys(problems)))


def _instant(target: Target, prometheus: Prometheus, span: Span, query: str) -> Iterable[Sample]:
    for series in prometheus.instant(query, span.end):
        at, value = series.points[0]
        if not math.isnan(value):
            yield Sample(legend(target, series.labels), target.ref, series.labels, value, at)


def _values(series: Series, span: Span, outages: Sequence[Outage]) -> list[float | None]:
    values: list[float | None] = [None] * span.count
    for at, value in series.points:
        place = span.index(at)
        # Prometheus goes on telling a series' last value for five minutes, if it did not see the series end.
        if place is not None and math.isfinite(value) and not any(start < at < end for start, end in outages):
            values[place] = value
    return values


def legend(target: Target, labels: Labels) -> str:
    """The name of a series: as the query's legend has it, else its metric and labels as PromQL writes them."""
    if target.legend and target.legend != "__auto":
        return LEGEND.sub(lambda found: labels.get(found[1], ""), target.legend).strip()
    pairs = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    metric = labels.get("__name__", "")
    return f"{metric}{{{pairs}}}" if pairs else metric or target.expr


def find_outages(prometheus: Prometheus, span: Span) -> list[Outage]:
    """When Prometheus itself took nothing in: no target's newest sample is younger than five scrapes.

    Empty where it cannot be told, as of a Prometheus that has no `up`.
    """
    try:
        found = prometheus.range("max(timestamp(up))", span.start, span.end, span.step)
    except PrometheusError:
        return []
    newest = {place: value for series in found for at, value in series.points if (place := span.index(at)) is not None}
    outages: list[Outage] = []
    last: float | None = None
    silent = False
    for place in range(min(newest, default=span.count), span.count):
        at = span.start + place * span.step
        if place in newest and at - newest[place] <= OUTAGE_SCRAPES * span.scrape_interval:
            if silent and last is not None:
                outages.append((last, at))
            last, silent = newest[place], False
        else:
            silent = True
    if silent and last is not None:
        outages.append((last, math.inf))
    return outages
