"""A gate's decisions in words and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadgen.gate.decide import Decision, Outcome, exit_code
from loadgen.message import Message, joined, mark, say
from loadgen.presentation.text import DASH, cell_words, number
from loadgen.scenario.threshold import Threshold

MARKS: dict[Outcome, str] = {"held": "✓", "failed": "✗", "undecided": "?"}
ORDER: dict[Outcome, int] = {"failed": 0, "undecided": 1, "held": 2}
OUTCOMES: dict[Outcome, Message] = {"held": say("held"), "failed": say("failed"), "undecided": say("undecided")}
COUNTED: dict[Outcome, str] = {
    "held": mark("{count} held"),
    "failed": mark("{count} failed"),
    "undecided": mark("{count} undecided"),
}
ENDS = {
    0: mark("The thresholds hold: of {count} thresholds and cells, {verdicts}."),
    3: mark("A threshold failed: of {count} thresholds and cells, {verdicts}."),
    4: mark("Undecided: of {count} thresholds and cells, {verdicts}."),
}
"""By exit code."""


def unit_of(threshold: Threshold) -> str:
    """The unit of a decision's figures."""
    return "ms" if threshold.kind == "latency" and threshold.unit != "%" else threshold.unit


def figure(decision: Decision, value: float | None) -> str:
    """A figure without its unit; a difference with its sign."""
    if value is None:
        return DASH
    text = number(value)
    return f"+{text}" if decision.case.threshold.difference and value > 0 else text


def estimate_words(decision: Decision) -> str:
    """The estimate with its 95% interval, such as `+8.10% [+6.21%, +10.0%]`."""
    unit = unit_of(decision.case.threshold)
    unit = unit if unit == "%" else f" {unit}"
    text = f"{figure(decision, decision.estimate)}{unit}" if decision.estimate is not None else DASH
    if decision.ci95 is None:
        return text
    low, high = (figure(decision, bound) for bound in decision.ci95)
    return f"{text} [{low}, {high}]"


def subject(decision: Decision) -> str:
    """Whose figure it is."""
    case = decision.case
    return case.engine if case.against is None else say("{b} against {a}", a=case.against, b=case.engine)


def sentence(decision: Decision) -> Message:
    """One decision as a line."""
    case = decision.case
    return say(
        "{outcome}: {threshold} at {cell}, {subject}: {found}; {reason}",
        outcome=OUTCOMES[decision.outcome],
        threshold=str(case.threshold),
        cell=cell_words(case.cell),
        subject=subject(decision),
        found=estimate_words(decision),
        reason=decision.reason,
    )


def headline(decisions: Sequence[Decision]) -> Message:
    """All decisions as one sentence."""
    if not decisions:
        return say("No threshold applies here.")
    counts = Counter(decision.outcome for decision in decisions)
    verdicts = [say(COUNTED[name], count=counts[name]) for name in ORDER if counts[name]]
    return say(ENDS[exit_code(decisions)], count=len(decisions), verdicts=joined("{a}, {b}", verdicts))


def gravest_first(decisions: Sequence[Decision]) -> list[Decision]:
    """Failed ones first, then undecided; else in their order."""
    return sorted(decisions, key=lambda decision: ORDER[decision.outcome])
