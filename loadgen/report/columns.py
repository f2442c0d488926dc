"""The columns of every table of cells: one list, used by HTML, Markdown, the terminal and `summary.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from loadgen.message import mark
from loadgen.metrics.summary import CellSummary
from loadgen.presentation.text import interval, number
from loadgen.statistics.metrics import GOODPUT


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One figure of a cell."""

    key: str
    label: str
    unit: str
    get: Callable[[CellSummary], float | None]
    better: Literal["lower", "higher"] | None
    """Which way is better; None where neither is."""
    wide_only: bool = False
    """Left out where there is little room (a narrow terminal)."""

    scale: float = 1.0
    """Factor from the figure as it is in `summary.json` to the one shown, in `unit`."""

    def text(self, summary: CellSummary | None) -> str:
        """The figure as text; a dash when it was not measured."""
        value = None if summary is None or (all_failed(summary) and self not in SLO_COLUMNS) else self.get(summary)
        return number(None if value is None else value * self.scale)

    def interval_text(self, ends: tuple[float, float] | None) -> str:
        """The figure's interval as text; "" for None."""
        return interval(None if ends is None else (ends[0] * self.scale, ends[1] * self.scale))


def all_failed(summary: CellSummary) -> bool:
    """Whether every measured request failed, so that there is nothing a figure could be of."""
    return 0 < summary.requests <= sum(summary.errors.values())


TTFT_P50 = Column("ttft_ms.p50", mark("TTFT p50"), "ms", lambda s: s.ttft_ms.p50, "lower")
TTFT_P95 = Column("ttft_ms.p95", mark("TTFT p95"), "ms", lambda s: s.ttft_ms.p95, "lower")
TPOT_MEAN = Column("tpot_ms.mean", mark("TPOT mean"), "ms", lambda s: s.tpot_ms.mean, "lower")
TPOT_P95 = Column("tpot_ms.p95", mark("TPOT p95"), "ms", lambda s: s.tpot_ms.p95, "lower")
THROUGHPUT = Column("output_tokens_per_s", mark("output"), "tok/s", lambda s: s.output_tokens_per_s, "higher")

COLUMNS: tuple[Column, ...] = (
    TTFT_P50,
    TTFT_P95,
    Column("ttft_ms.p99", mark("TTFT p99"), "ms", lambda s: s.ttft_ms.p99, "lower", wide_only=True),
    TPOT_MEAN,
    TPOT_P95,
    THROUGHPUT,
    Column("requests_per_s", mark("requests"), "req/s", lambda s: s.requests_per_s, "higher", wide_only=True),
    Column("tokens_per_event", mark("tokens"), mark("per event"), lambda s: s.tokens_per_event, None, wide_only=True),
)
MET_SHARE = Column(
    "slo.met_share",
    mark("SLO met"),
    "%",
    lambda s: s.slo.met_share if s.slo else None,
    "higher",
    wide_only=True,
    scale=100,
)
SLO_COLUMNS: tuple[Column, ...] = (
    Column(GOODPUT.key, mark("goodput"), "req/s", lambda s: s.slo.goodput_per_s if s.slo else None, "higher"),
    MET_SHARE,
)
"""Shown where the scenario has an SLO."""
BATCH_COLUMNS: tuple[Column, ...] = (
    Column(
        "batches.ttft_first_ms.p50",
        mark("first of a batch"),
        "ms",
        lambda s: s.batches.ttft_first_ms.p50 if s.batches else None,
        "lower",
        wide_only=True,
    ),
    Column(
        "batches.ttft_last_ms.p50",
        mark("last of a batch"),
        "ms",
        lambda s: s.batches.ttft_last_ms.p50 if s.batches else None,
        "lower",
    ),
    Column(
        "batches.latency_ms.p50",
        mark("batch latency"),
        "ms",
        lambda s: s.batches.latency_ms.p50 if s.batches else None,
        "lower",
    ),
)
"""Of a batch load: the first tokens of its first and last request, and its last token (medians over the batches)."""
HEADLINE_COLUMNS = (TTFT_P50, TPOT_MEAN, THROUGHPUT)


def quotient(column: Column, base: CellSummary | None, other: CellSummary | None) -> float | None:
    """`other`'s figure divided by `base`'s; None where either was not measured or the base is 0."""
    if base is None or other is None:
        return None
    below, above = column.get(base), column.get(other)
    return None if below is None or above is None or below == 0 else above / below


def ahead(column: Column, value: float | None) -> bool | None:
    """Whether a quotient `other / base` puts `other` ahead; None when it says nothing."""
    if value is None or column.better is None or value == 1:
        return None
    return (value < 1) == (column.better == "lower")
