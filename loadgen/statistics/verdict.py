"""From figures to verdicts: the rules, in their order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from loadgen.statistics.interval import Spread
from loadgen.statistics.metrics import Better
from loadgen.statistics.result import Reason, Settings, Verdict

Judgement = tuple[Verdict, Reason]


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict rests on. Ratios are logarithms of b over a."""

    better: Better
    repeats: int
    ratio: Spread | None
    """None where there is no interval."""
    p_value: float
    """Adjusted where the metric is in Holm's family."""
    problem: Reason | None = None
    within_floor: bool = False
    """Whether the whole interval of the difference lies within the client's own error."""
    below_floor: bool = False
    """Whether the difference found is less than the client's own error."""
    trend: float = 0.0
    """Change of the ratio in the course of the run, where beyond chance."""
    order_bias: float = 0.0
    """What a drift, where beyond chance, would show between equal engines in this order of blocks."""


def judge(evidence: Evidence, settings: Settings) -> Judgement:
    """Return the verdict on one comparison, and why.

    `none` comes before `a` and `b`: a difference that is certain but lies within the margin does not matter.
    """
    ratio = evidence.ratio
    if evidence.problem is not None:
        return ("undecided" if evidence.problem == "few_requests" else "invalid"), evidence.problem
    if evidence.repeats < 2 or ratio is None:
        return "undecided", "one_repeat"
    low, high = ratio.interval()
    margin, bias = math.log1p(settings.margin), evidence.order_bias
    if -margin <= low and high <= margin:
        hidden = low - bias < -margin or high - bias > margin
        return ("undecided", "order") if hidden else ("none", "within_margin")
    if evidence.within_floor:
        return "none", "within_floor"
    doubt = _doubt(evidence, ratio, settings.alpha)
    return ("undecided", doubt) if doubt else (winner(ratio.estimate, evidence.better), "difference")


def _doubt(evidence: Evidence, ratio: Spread, alpha: float) -> Reason | None:
    """Why a difference beyond the margin is not called; None where nothing speaks against it."""
    if evidence.p_value > alpha:
        return "multiplicity" if ratio.p_value <= alpha else "too_noisy"
    if evidence.below_floor:
        return "below_floor"
    low, high = ratio.interval()
    unbiased = ratio.estimate - evidence.order_bias
    if low <= evidence.order_bias <= high or unbiased / ratio.estimate <= 0.5:
        return "order"
    return "trend" if abs(evidence.trend) > abs(ratio.estimate) else None


def winner(log_ratio: float, better: Better) -> Verdict:
    """Who is ahead at a log(b / a) that is not 0."""
    return "b" if (log_ratio > 0) == (better == "higher") else "a"


def combine(judgements: Sequence[Judgement]) -> Judgement:
    """Return one verdict over several metrics, given in the order of their weight.

    An engine wins that is ahead in one and behind in none. `none` needs all valid ones to be so.
    """
    valid = [one for one in judgements if one[0] != "invalid"]
    if not valid:
        return judgements[0] if judgements else ("invalid", "not_measured")
    verdicts = {verdict for verdict, _ in valid}
    if {"a", "b"} <= verdicts:
        return "undecided", "mixed"
    for verdict in ("a", "b", "undecided"):
        if verdict in verdicts:
            return next(one for one in valid if one[0] == verdict)
    return valid[0]
