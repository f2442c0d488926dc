"""The figures of a judged metric: by how much who is ahead is faster, brief or with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadgen.message import say
from loadgen.presentation.style import Mark, verdict_mark
from loadgen.statistics.result import Estimate, Judged, Side
from loadgen.statistics.words import percent, share_texts

BRIEF = 10
"""Characters of a brief figure: with its mark and a space it has a dozen."""
FINE, TENTHS, LARGEST = 2.0, 10.0, 999.0
"""Percent: where an interval reaches less far, a share of 10% or more is told to a tenth; a smaller share is; and the
interval is told at all."""


def speed(one: Judged, ratio: float) -> float:
    """Speed of b over that of a, by the ratio of their figures."""
    return ratio if one.better == "higher" else 1 / ratio


def leader(one: Judged) -> Side | None:
    """Who is ahead, decided or not; None without a figure, or where both are alike."""
    if one.verdict in ("a", "b"):
        return "a" if one.verdict == "a" else "b"
    if one.ratio is None or not math.isfinite(one.ratio.estimate) or one.ratio.estimate in (0, 1):
        return None
    return "b" if speed(one, one.ratio.estimate) > 1 else "a"


def lead_mark(one: Judged, a: int, b: int) -> Mark | None:
    """The mark of who is ahead, where that is undecided or does not matter, by the places of the engines' looks.

    None where someone won, and where what is shown is no lead at all.
    """
    ahead = leader(one)
    if ahead is None or one.faster is not None or rounds_to_none(brief(one)):
        return None
    return verdict_mark(ahead, a, b)


def rounds_to_none(figure: str) -> bool:
    """Whether a brief figure is of no difference."""
    return figure.startswith(("0%", "0.0%"))


def ahead_by(one: Judged) -> tuple[float, tuple[float, float] | None]:
    """By which share who is ahead is faster than the other, with its interval: the same base, decided or not."""
    if one.faster is not None:
        return one.faster.estimate, one.faster.ci95
    if one.ratio is None or one.ratio.estimate <= 0:
        return math.nan, None
    sign = 1 if speed(one, one.ratio.estimate) >= 1 else -1
    share = speed(one, one.ratio.estimate) ** sign - 1
    if one.ratio.ci95 is None or min(one.ratio.ci95) <= 0:
        return share, None
    low, high = sorted(speed(one, end) ** sign - 1 for end in one.ratio.ci95)
    return share, (low, high)


def farthest(one: Judged) -> float:
    """How far the interval reaches from the figure, at its farther end; 0 without one."""
    share, ends = ahead_by(one)
    return 0.0 if ends is None else max(ends[1] - share, share - ends[0])


def brief(one: Judged) -> str:
    """A figure of at most ten characters, such as `30% ±3`: by how much who is ahead is faster, and how sure that is.

    It is never negative: who is ahead is told beside it (`leader`), and the other is its base, decided or not. What
    stands after ± reaches to both ends of the 95% interval; where these are not as far, they stand themselves:
    `40% 6–86`, or `6–86%` where that is too long. Empty without a figure.
    """
    share, ends = ahead_by(one)
    if not math.isfinite(share):
        return ""
    halves: tuple[float, ...] = () if ends is None else (100 * (share - ends[0]), 100 * (ends[1] - share))
    most = BRIEF if one.faster else BRIEF - 1  # beside the sign of what is undecided stands who is ahead
    fine = FINE if share >= 0.0995 else TENTHS
    for digits in (1, 0):
        text = f"{100 * share:.{digits}f}%"
        reaches = {max(round(half, digits), 10.0**-digits) for half in halves}  # never ±0
        text += "".join(f" ±{reach:.{digits}f}" for reach in reaches)
        if len(reaches) < 2 and len(text) <= most and max(halves, default=0) < (fine if digits else LARGEST):
            return text
    if ends is None:
        return text
    low, high = (f"{100 * end:.0f}" if 100 * end < LARGEST else ">999" for end in ends)
    text = f"{100 * share:.0f}% {low}–{high}"
    return text if len(text) <= most else f"{low}–{high}%"


def share_words(estimate: Estimate | None, *, named: bool = False) -> str:
    """A share with its interval: `30% [26%, 35%]`, with a digit more where that is narrow or small.

    `named`: it says that this is an interval, and which.
    """
    if estimate is None:
        return ""
    if estimate.ci95 is None:
        return percent(estimate.estimate)
    low, high = estimate.ci95
    digits = 1 if high - low < 0.02 or estimate.estimate < 0.0995 else 0
    middle, low_text, high_text = share_texts(estimate.estimate, estimate.ci95, digits)
    if named:
        return say("{share} [95% interval {low} to {high}]", share=middle, low=low_text, high=high_text)
    return f"{middle} [{low_text}, {high_text}]"


def span_words(shares: Sequence[float]) -> str:
    """From the least to the greatest: `7–56%`."""
    digits = 1 if max(shares) < 0.0995 else 0
    low, high = (f"{100 * share:.{digits}f}" for share in (min(shares), max(shares)))
    return f"{low}%" if low == high else f"{low}–{high}%"
