"""A gate's decisions in words and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadgen.gate.decide import Decision, Outcome, exit_code
from loadgen.presentation.text import DASH, cell_words, number
from loadgen.scenario.threshold import Threshold

MARKS: dict[Outcome, str] = {"held": "✓", "failed": "✗", "undecided": "?"}
ORDER: dict[Outcome, int] = {"failed": 0, "undecided": 1, "held": 2}


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
    return case.engine if case.against is None else f"{case.engine} against {case.against}"


def sentence(decision: Decision) -> str:
    """One decision as a line."""
    case = decision.case
    return (
        f"{decision.outcome}: {case.threshold} at {cell_words(case.cell)}, {subject(decision)}: "
        f"{estimate_words(decision)}; {decision.reason}"
    )


def headline(decisions: Sequence[Decision]) -> str:
    """All decisions as one sentence."""
    if not decisions:
        return "No threshold applies here."
    counts = Counter(decision.outcome for decision in decisions)
    outcome = {0: "The thresholds hold", 3: "A threshold failed", 4: "Undecided"}[exit_code(decisions)]
    parts = [f"{counts[name]} {name}" for name in ORDER if counts[name]]
    return f"{outcome}: of {len(decisions)} thresholds and cells, {', '.join(parts)}."


def gravest_first(decisions: Sequence[Decision]) -> list[Decision]:
    """Failed ones first, then undecided; else in their order."""
    return sorted(decisions, key=lambda decision: ORDER[decision.outcome])
