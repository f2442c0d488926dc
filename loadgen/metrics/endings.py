"""How answers ended: by finish reason, and by kind of failure. Pure; `run` and the report say it in the same words."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from loadgen.message import joined, mark, say
from loadgen.metrics.summary import CellSummary

TRIVIAL = 0.01
"""A share of the answers, or a difference between two shares, that is not worth a word."""
KNOWN = {"length": mark("length {share}"), "stop": mark("stop {share}")}
"""Finish reasons that have words of their own in other languages."""
MOST_TOLD = 5
"""Kinds that are named; a server may invent one for each answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endings:
    """How the measured requests of an engine ended; a failed one may have a finish reason too."""

    requests: int
    finish_reasons: dict[str, int]
    """Requests by finish reason, the most frequent first."""
    failed: dict[str, int]
    """Failed requests by error kind, likewise."""

    @classmethod
    def of(cls, summaries: Iterable[CellSummary | None]) -> Endings:
        """Add up the endings of cells or blocks; None is one in which nothing was measured."""
        reasons: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        requests = 0
        for summary in summaries:
            if summary is not None:
                requests += summary.requests
                reasons.update(summary.finish_reasons)
                failed.update(summary.errors)
        return cls(requests, dict(reasons.most_common()), dict(failed.most_common()))

    @property
    def mixed(self) -> bool:
        """Whether answers ended in different ways, beyond a trivial share."""
        total = sum(self.finish_reasons.values())
        return total - max(self.finish_reasons.values(), default=0) > TRIVIAL * total

    def differs(self, other: Endings) -> bool:
        """Whether a finish reason or a kind of failure has another share here, beyond a trivial difference.

        False where either holds no request.
        """
        if not self.requests or not other.requests:
            return False
        pairs = (self.finish_reasons, other.finish_reasons), (self.failed, other.failed)
        return any(
            abs(own.get(kind, 0) / self.requests - others.get(kind, 0) / other.requests) > TRIVIAL
            for own, others in pairs
            for kind in {*own, *others}
        )

    @property
    def reasons_text(self) -> str:
        """`length 100%`, or `length 18 (90%), stop 2 (10%)`; empty where no answer told a finish reason."""
        return _shares(self.finish_reasons, sum(self.finish_reasons.values()))

    @property
    def failed_text(self) -> str:
        """The same of the failed requests, as shares of all; empty where none failed."""
        return _shares(self.failed, self.requests)


def _shares(counts: Mapping[str, int], total: int) -> str:
    told = list(counts.items())[:MOST_TOLD]
    rest = sum(counts.values()) - sum(count for _, count in told)
    if rest:
        told.append(("…", rest))
    if len(told) == 1 and told[0][1] == total:
        return _told(told[0][0], "100%")
    return joined("{a}, {b}", [_told(kind, f"{count:,d} ({_percent(count, total)})") for kind, count in told])


def _told(kind: str, share: str) -> str:
    return say(KNOWN[kind], share=share) if kind in KNOWN else f"{kind} {share}"


def _percent(count: int, total: int) -> str:
    """Never 0% of something, nor 100% of less than all."""
    share = 100 * count / total
    if 0.1 <= share <= 99.9:
        return f"{share:.0f}%" if 9.5 <= share <= 98.5 else f"{share:.1f}%"
    return "< 0.1%" if share < 1 else "100%" if count == total else "> 99.9%"
