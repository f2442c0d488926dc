"""From figures to verdicts: the rules, in their order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from loadgen.statistics.interval import Spread
from loadgen.statistics.metrics import Better
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.result import Reason, Settings, Verdict

Judgement = tuple[Verdict, Reason]
ALONE = 0.05
"""Below this p-value the 95% interval that is shown leaves out 1, however strict the level is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict rests on. Ratios are logarithms of b over a."""

    better: Better
    repeats: int
    units: int
    """What the ratio's scatter goes by: the repeats, or the starts of the engines where there are several."""
    ratio: Spread | Mixture | None
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
    event_bias: float = 0.0
    """What the numbers of tokens in an event may show between equal engines."""

    @property
    def biases(self) -> tuple[tuple[Reason, float], ...]:
        """What else may make a ratio, and how large a one."""
        return ("order", self.order_bias), ("tokens_per_event", self.event_bias)


def judge(evidence: Evidence, settings: Settings) -> Judgement:
    """Return the verdict on one comparison, and why.

    `none` comes before `a` and `b`: a difference that is certain but lies within the margin does not matter.
    """
    ratio = evidence.ratio
    if evidence.problem is not None:
        return ("undecided" if evidence.problem == "few_requests" else "invalid"), evidence.problem
    if evidence.units < 2 or ratio is None:
        return "undecided", "one_repeat"
    low, high = ratio.interval()
    margin = math.log1p(settings.margin)
    if -margin <= low and high <= margin:
        hidden = [why for why, bias in evidence.biases if low - bias < -margin or high - bias > margin]
        return ("undecided", hidden[0]) if hidden else ("none", "within_margin")
    if evidence.within_floor:
        return "none", "within_floor"
    doubt = _doubt(evidence, ratio, settings.alpha)
    return ("undecided", doubt) if doubt else (winner(ratio.estimate, evidence.better), "difference")


def _doubt(evidence: Evidence, ratio: Spread | Mixture, alpha: float) -> Reason | None:
    """Why a difference beyond the margin is not called; None where nothing speaks against it."""
    if evidence.p_value > alpha:
        return "multiplicity" if ratio.p_value <= ALONE else "too_noisy"
    if evidence.below_floor:
        return "below_floor"
    low, high = ratio.interval()
    for why, bias in evidence.biases:
        if low <= bias <= high or (ratio.estimate - bias) / ratio.estimate <= 0.5:
            return why
    return "trend" if abs(evidence.trend) > abs(ratio.estimate) else None


def winner(log_ratio: float, better: Better) -> Verdict:
    """Who is ahead at a log(b / a) that is not 0."""
    return "b" if (log_ratio > 0) == (better == "higher") else "a"


def combine(judgements: Sequence[Judgement]) -> Judgement:
    """Return one verdict over several metrics, given in the order of their weight.

    An engine wins that is ahead in one and behind in none. `none` needs all valid ones to be so. Of undecided ones that
    which is beyond chance by itself tells why: "too noisy" would be untrue of it.
    """
    valid = [one for one in judgements if one[0] != "invalid"]
    if not valid:
        return judgements[0] if judgements else ("invalid", "not_measured")
    verdicts = {verdict for verdict, _ in valid}
    if {"a", "b"} <= verdicts:
        return "undecided", "mixed"
    for verdict in ("a", "b", "undecided"):
        if verdict in verdicts:
            found = [one for one in valid if one[0] == verdict]
            return next((one for one in found if one[1] == "multiplicity"), found[0])
    return valid[0]
