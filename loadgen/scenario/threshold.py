"""Thresholds such as `ttft.p95 > +5%`: read, and refused with the place of the mistake.

    THRESHOLD  = METRIC [ "." STATISTIC ] ( ">" | "<" ) [ "+" | "-" ] NUMBER [ UNIT ]
    METRIC     = "ttft" | "ttft_from_intended" | "tpot" | "e2e" | "output_tokens_per_s" | "requests_per_s" | "errors"
               | "batch_latency" | "batch_ttft_first" | "batch_ttft_median" | "batch_ttft_last"
    STATISTIC  = "mean" | "p" NUMBER            latencies only, and always with one
    UNIT       = "%" | "pp" | "ms" | "s" | "tok/s" | "req/s"

With a sign it is a difference of B against A, without one a limit on the engine itself. It names what must not be: the
comparison says which way is worse. No import beyond the standard library, because scenarios are read with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Literal

Kind = Literal["latency", "rate", "errors"]
OF_BATCHES = ("batch_latency", "batch_ttft_first", "batch_ttft_median", "batch_ttft_last")
"""Of a batch load, over its batches."""
LATENCIES = ("ttft", "ttft_from_intended", "tpot", "e2e", *OF_BATCHES)
RATES = {"output_tokens_per_s": "tok/s", "requests_per_s": "req/s"}
ERRORS = "errors"
METRICS = (*LATENCIES, *RATES, ERRORS)
MS = {"ms": 1.0, "s": 1000.0}
EXAMPLES = "such as 'ttft.p95 > +5%', 'tpot.mean > 40ms', 'output_tokens_per_s < -5%' or 'errors > 1%'"
MOST = 1e12
SHOWN = 200
"""Characters of a threshold that are shown before a mistake in it, and behind."""


class ThresholdError(ValueError):
    """A threshold that cannot be read; its text shows the place with a caret."""

    def __init__(self, text: str, position: int, wanted: str) -> None:
        begin = max(0, position - SHOWN)
        shown = "".join(character if character.isprintable() else " " for character in text[begin : position + SHOWN])
        super().__init__(f"not a threshold ({EXAMPLES}):\n  {shown}\n  {' ' * (position - begin)}^ {wanted[:SHOWN]}")
        self.position = position


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """One threshold. It fails where the figure is `above` (or below) `amount` `unit`s."""

    metric: str
    statistic: str | None
    """`mean`, `p95`, ...; None for rates and errors."""
    above: bool
    difference: bool
    """Whether it is about B against A."""
    amount: float
    unit: str

    @property
    def kind(self) -> Kind:
        """What it is about."""
        return "latency" if self.metric in LATENCIES else "rate" if self.metric in RATES else "errors"

    @property
    def relative(self) -> bool:
        """Whether it is a difference as a share of A."""
        return self.difference and self.unit == "%"

    @property
    def figure(self) -> str:
        """What it looks at, such as `ttft.p95`."""
        return self.metric if self.statistic is None else f"{self.metric}.{self.statistic}"

    @property
    def limit(self) -> float:
        """The amount in ms, percent, percentage points, tokens or requests a second."""
        return self.amount * MS.get(self.unit, 1.0)

    def __str__(self) -> str:
        number = f"{self.amount:+.12g}" if self.difference else f"{self.amount:.12g}"
        if "e" in number:
            number = f"{self.amount:{'+' if self.difference else ''}f}".rstrip("0").rstrip(".")
        space = " " if "/" in self.unit else ""
        return f"{self.figure} {'>' if self.above else '<'} {number}{space}{self.unit}"


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> None:
        found = re.compile(r"[ \t]*").match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, pattern: str) -> str:
        """The text that matches here, possibly empty."""
        found = re.compile(pattern, re.ASCII).match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def error(self, wanted: str, position: int | None = None) -> ThresholdError:
        return ThresholdError(self.text, self.at if position is None else position, wanted)


def parse_threshold(text: str) -> Threshold:
    """Read one threshold. Raises ThresholdError."""
    reader = _Reader(text)
    reader.space()
    metric = _metric(reader)
    statistic = _statistic(reader, metric)
    reader.space()
    comparison = reader.take("[<>]")
    if not comparison:
        raise reader.error("here '>' or '<' must stand")
    reader.space()
    begin = reader.at
    sign = reader.take("[+-]")
    digits = reader.take(r"[0-9]+(\.[0-9]+)?")
    if not digits:
        raise reader.error("here a number must stand, such as 5 or 0.5")
    if float(digits) > MOST:
        raise reader.error("that is more than can be", begin)
    reader.space()
    place = reader.at
    unit = reader.take(r"[^\s]+")
    reader.space()
    if reader.at < len(reader.text):
        raise reader.error("here it must end")
    amount = -float(digits) if sign == "-" else float(digits)
    unit = _unit(reader, metric, unit, bool(sign), begin, place)
    nonsense = _nonsense(metric, comparison == ">", bool(sign), amount, unit)
    if nonsense is not None:
        raise reader.error(nonsense, begin)
    return Threshold(metric, statistic, comparison == ">", bool(sign), amount, unit)


def _nonsense(metric: str, above: bool, difference: bool, amount: float, unit: str) -> str | None:
    """Why a threshold can never fail, or always does; None where it can do both."""
    if metric == ERRORS:
        if difference:
            return "shares of failed requests differ by less than 100pp" if abs(amount) >= 100 else None
        if above and amount >= 100:
            return "no more than 100% of the requests can fail: give a share below 100%"
        return "no less than 0% of the requests can fail" if not above and amount <= 0 else None
    if difference:
        return "no figure can fall by 100% or more" if unit == "%" and amount <= -100 else None
    return f"{metric} is always more than 0" if amount <= 0 else None


def _metric(reader: _Reader) -> str:
    begin = reader.at
    metric = reader.take("[A-Za-z_0-9]+")
    if metric not in METRICS:
        close = difflib.get_close_matches(metric, METRICS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known metrics: {', '.join(METRICS)}"
        raise reader.error(hint, begin)
    return metric


def _statistic(reader: _Reader, metric: str) -> str | None:
    begin = reader.at
    dot = reader.take(r"\.")
    if metric not in LATENCIES:
        if dot:
            raise reader.error(f"{metric} is one figure: leave this out", begin)
        return None
    if not dot:
        raise reader.error(f"which figure of {metric}? Write {metric}.mean or {metric}.p95")
    begin = reader.at
    statistic = reader.take(r"mean|p[0-9]{1,2}(\.[0-9]{1,3})?(?![0-9A-Za-z_.])")
    if not statistic or (statistic != "mean" and float(statistic[1:]) <= 0):
        raise reader.error("here 'mean' or a percentile such as p95 must stand", begin)
    return statistic


def _unit(reader: _Reader, metric: str, unit: str, signed: bool, begin: int, place: int) -> str:
    """Check the unit against the metric; a rate's may be left out."""
    if metric == ERRORS:
        if signed and unit != "pp":
            raise reader.error("a difference of error shares is in percentage points, such as +1pp", place)
        if not signed and unit != "%":
            raise reader.error("a share of failed requests is in percent, such as 1%", place)
        return unit
    if unit == "%":
        if not signed:
            raise reader.error("a percentage is a difference of B against A: give it a sign, such as +5%", begin)
        return unit
    if metric in RATES:
        if unit not in ("", RATES[metric]):
            raise reader.error(f"the unit of {metric} is {RATES[metric]}, or % of A", place)
        return RATES[metric]
    if unit not in MS:
        raise reader.error("here ms, s or % must stand", place)
    return unit
