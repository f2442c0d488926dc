"""Held, failed or undecided: thresholds against intervals, never against points."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from loadgen.errors import OK, THRESHOLD_FAILED, UNDECIDED
from loadgen.gate.quantity import Quantity
from loadgen.message import say
from loadgen.scenario.threshold import Threshold

Outcome = Literal["held", "failed", "undecided"]
ALPHA = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One threshold in one cell."""

    threshold: Threshold
    cell: str
    engine: str
    against: str | None
    """The engine that a difference is taken against; None for a limit."""
    quantity: Quantity


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What became of a case. Figures are in the threshold's unit (ms for `s`)."""

    case: Case
    outcome: Outcome
    estimate: float | None
    ci95: tuple[float, float] | None
    level: float
    """Confidence at which its interval was held against the limit for a failure: more than 95% with many cases."""
    reason: str


def decide(cases: Sequence[Case], alpha: float = ALPHA) -> list[Decision]:
    """Decide all cases of one gate.

    - Failed: the whole interval lies beyond the limit. With m cases the first is held against its interval of
      confidence 1 - alpha / m, the next 1 - alpha / (m - 1), and so on (Holm 1979), so that a gate of many cases that
      all lie just at their limits fails in at most alpha / 2 of the runs.
    - Held: the whole 95% interval lies within the limit, and nothing puts that in doubt. All must hold for the gate
      to hold, so this needs no correction (an intersection-union test: Berger 1982).
    - Undecided: neither, or nothing to decide by.
    """
    judged = [index for index, case in enumerate(cases) if _decidable(case)]
    failed: set[int] = set()
    while True:
        level = 1 - alpha / max(len(judged) - len(failed), 1)
        beyond = {index for index in judged if index not in failed and _beyond(cases[index], level)}
        if not beyond:
            break
        failed |= beyond
    return [_decision(case, index in failed, level, alpha) for index, case in enumerate(cases)]


def exit_code(decisions: Sequence[Decision]) -> int:
    """0 all held, 3 one failed, 4 one is undecided and none failed."""
    outcomes = {decision.outcome for decision in decisions}
    return THRESHOLD_FAILED if "failed" in outcomes else UNDECIDED if "undecided" in outcomes else OK


def _decidable(case: Case) -> bool:
    return case.quantity.problem is None and case.quantity.interval is not None and case.quantity.estimate is not None


def _beyond(case: Case, level: float) -> bool:
    """Whether the whole interval lies beyond the limit."""
    if case.quantity.interval is None:
        return False
    low, high = case.quantity.interval(level)
    return low > case.threshold.limit if case.threshold.above else high < case.threshold.limit


def _within(case: Case, level: float) -> bool:
    """Whether the whole interval lies within the limit."""
    if case.quantity.interval is None:
        return False
    low, high = case.quantity.interval(level)
    return high <= case.threshold.limit if case.threshold.above else low >= case.threshold.limit


def _decision(case: Case, failed: bool, level: float, alpha: float) -> Decision:
    quantity = case.quantity
    ci95 = quantity.interval(1 - alpha) if quantity.interval is not None else None
    outcome: Outcome = "undecided"
    if not _decidable(case):
        reason = quantity.problem or say("no interval: too few requests")
    elif failed and quantity.within_floor:
        reason = say("the difference is less than the load generator's own error")
    elif failed:
        outcome, reason = "failed", say("the whole interval is beyond the limit")
    elif quantity.doubt is not None:
        reason = quantity.doubt
    elif _within(case, 1 - alpha):
        outcome, reason = "held", say("the whole interval is within the limit")
    elif _beyond(case, 1 - alpha):
        reason = say("beyond the limit by itself, but among so many thresholds and cells it may be chance")
    else:
        reason = say("the interval holds the limit: more repeats or requests would tell")
    return Decision(case, outcome, quantity.estimate, ci95, level, reason)
