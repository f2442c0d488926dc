"""What Prometheus answers to a panel's queries, on the page's moments; what it did not answer, in words."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from loadgen.boards.catalogue.queries import filled
from loadgen.boards.model import Panel, Query
from loadgen.boards.span import Span
from loadgen.monitoring.prometheus import Labels, Prometheus, PrometheusError, Series

LEGEND = re.compile(r"\{\{(\w+)\}\}")
Outage = tuple[float, float]
"""A time in which Prometheus took in nothing: after the first moment, before the second one."""
OUTAGE_SCRAPES = 5
"""So many scrapes in a row that did not come, of any target, are an outage."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One series of a panel: a value for each of the span's moments."""

    name: str
    ref: str
    """The letter of its query."""
    labels: Labels
    values: list[float | None]
    """None where there is none: such a moment is a gap."""

    @property
    def present(self) -> list[float]:
        """The values that are there."""
        return [value for value in self.values if value is not None]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One series of an instant query."""

    name: str
    ref: str
    labels: Labels
    value: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """All that came for one panel."""

    lines: tuple[Line, ...] = ()
    samples: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """How many values came."""
        return sum(len(line.present) for line in self.lines) + len(self.samples)

    def newest(self) -> list[Sample]:
        """The last value of each series."""
        lines = [Sample(line.name, line.ref, line.labels, line.present[-1]) for line in self.lines if line.present]
        return [*self.samples, *lines]


def ask(
    panel: Panel, prometheus: Prometheus, span: Span, chosen: Mapping[str, str], outages: Sequence[Outage]
) -> Answer:
    """Ask a panel's queries; `chosen` as in `filled`. Never raises: what failed is among the problems."""
    lines, samples, problems = list[Line](), list[Sample](), list[str]()
    for letter, query in panel.lettered():
        text = filled(query.expr, span.seconds, chosen)
        try:
            if query.instant:
                for series in prometheus.instant(text, span.end):
                    value = series.points[0][1]
                    if not math.isnan(value):
                        samples.append(Sample(legend(query, series.labels), letter, series.labels, value))
                continue
            for series in prometheus.range(text, span.start, span.end, span.step):
                line = Line(legend(query, series.labels), letter, series.labels, _values(series, span, outages))
                if line.present:
                    lines.append(line)
        except PrometheusError as error:
            problems.append(f"Query {letter}: {error}.")
    return Answer(tuple(lines), tuple(samples), tuple(dict.fromkeys(problems)))


def _values(series: Series, span: Span, outages: Sequence[Outage]) -> list[float | None]:
    values: list[float | None] = [None] * span.count
    for at, value in series.points:
        place = span.index(at)
        # Prometheus goes on telling a series' last value for five minutes, if it did not see the series end.
        if place is not None and math.isfinite(value) and not any(start < at < end for start, end in outages):
            values[place] = value
    return values


def legend(query: Query, labels: Labels) -> str:
    """The name of a series, as its query's legend has it."""
    return LEGEND.sub(lambda found: labels.get(found[1], ""), query.legend).strip()


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
