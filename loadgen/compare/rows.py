"""The table of differences as text: one row for each metric of each cell."""

from __future__ import annotations

import dataclasses

from loadgen.message import say
from loadgen.presentation.text import DASH, number
from loadgen.report.headline import caveat_text
from loadgen.statistics.metrics import GOODPUT
from loadgen.statistics.result import Comparison, Estimate, Statistics
from loadgen.statistics.words import metric_words, verdict_words

SHOWN = (
    "ttft_ms.p50",
    "ttft_ms.p95",
    "tpot_ms.mean",
    "tpot_ms.p95",
    "output_tokens_per_s",
    "requests_per_s",
    GOODPUT.key,
)
"""Where there is room for a few only."""
VERDICTS = {"none": say("no difference"), "undecided": say("undecided"), "invalid": say("not comparable")}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One metric of one cell."""

    cell: str
    metric: str
    headline: bool
    unit: str
    a: str
    b: str
    difference: str
    change: str
    verdict: str
    """Of a headline metric; of others "", or why the interval decides nothing."""
    words: str
    winner: int | None
    """Seat of who is faster; headline metrics only."""


def rows(statistics: Statistics, *, every: bool = True) -> list[Row]:
    """All rows, cell by cell; without `every` those of `SHOWN` only."""
    return [
        _row(cell.id, comparison, statistics)
        for cell in statistics.cells
        for comparison in cell.metrics.values()
        if every or comparison.metric in SHOWN
    ]


def _row(cell: str, one: Comparison, statistics: Statistics) -> Row:
    return Row(
        cell=cell,
        metric=metric_words(one.metric),
        headline=one.headline,
        unit=one.unit,
        a=_estimate(one.a),
        b=_estimate(one.b),
        difference=_estimate(one.difference, signed=True),
        change=_change(one.ratio),
        verdict=_verdict(one, statistics) if one.headline else caveat_text(one, statistics),
        words=verdict_words(one, statistics) if one.headline else caveat_text(one, statistics),
        winner={"a": 0, "b": 1}.get(one.verdict) if one.headline else None,
    )


def _verdict(one: Comparison, statistics: Statistics) -> str:
    return {"a": statistics.a, "b": statistics.b}.get(one.verdict) or VERDICTS[one.verdict]


def _estimate(value: Estimate | None, *, signed: bool = False) -> str:
    """Such as `12.3 [11.9, 12.7]`."""
    if value is None:
        return DASH
    text = _number(value.estimate, signed)
    if value.ci95 is None:
        return text
    low, high = (_number(bound, signed) for bound in value.ci95)
    return f"{text} [{low}, {high}]"


def _number(value: float, signed: bool) -> str:
    return f"+{number(value)}" if signed and value > 0 else number(value)


def _change(ratio: Estimate | None) -> str:
    """A ratio as a change of B against A: `+5.0% [+4.1%, +5.9%]`."""
    if ratio is None:
        return DASH
    text = f"{100 * (ratio.estimate - 1):+.1f}%"
    if ratio.ci95 is None:
        return text
    low, high = (_percent(bound) for bound in ratio.ci95)
    return f"{text} [{low}, {high}]"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%" if ratio < 1000 else "…"
