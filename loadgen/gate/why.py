"""Why a threshold has nothing to be decided by, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadgen.analysis.samples import lost_repeats
from loadgen.message import Message, say
from loadgen.scenario.threshold import Threshold
from loadgen.statistics.metrics import BlockSample

ONE_BLOCK = say("one block cannot tell a difference from chance: run two repeats or more")
OTHER_LENGTHS = say("the engines' answers differ in length, and this figure with them")
NO_RATIO = say("a figure of zero has no ratio")


def why_nothing(problem: str, threshold: Threshold, *sides: Sequence[BlockSample]) -> str:
    """Put a metric's `problem` (a `statistics.result.Reason`) into words.

    Args:
        problem: as the statistics name it.
        threshold: what was to be decided.
        sides: all blocks of each engine that is looked at, those that decide nothing included.
    """
    if problem == "no_valid_pair":
        return no_block_counts(*sides)
    if problem == "tpot_basis":
        return next(block.no_tpot for blocks in sides for block in blocks if block.no_tpot is not None)
    if problem == "not_measured":
        return (
            say("no answer had two tokens or more") if threshold.metric == "tpot" else say("no request has this figure")
        )
    if problem == "few_requests" and threshold.statistic is not None:
        needed = math.ceil(100 / (100 - float(threshold.statistic.removeprefix("p"))))
        return say(
            "fewer requests than {percentile} needs, which are {least}", percentile=threshold.statistic, least=needed
        )
    return NO_RATIO if problem == "not_positive" else problem


def blocks_lost(blocks: Sequence[BlockSample]) -> str | None:
    """Why a share of failures is no more than that of the blocks which ended well; None where all did."""
    lost = lost_repeats(blocks)
    if not lost:
        return None
    every = len({block.repeat for block in blocks})
    return say("{count} of {all} blocks failed, and their requests are not in it", count=len(lost), all=every)


def no_block_counts(*sides: Sequence[BlockSample]) -> str:
    """Why no block, or no pair of blocks, decides anything."""
    if not all(sides):
        return say("no block of this cell was run")
    reasons = [block.invalid for blocks in sides for block in blocks if block.invalid is not None]
    if not reasons:
        return say("no repeat has a block of both engines")
    first = _in_short(reasons[0])
    if len(reasons) == 1:
        return say("no block counts: {why}", why=first)
    return say("no block counts: {why}, and {more} more left out", why=first, more=len(reasons) - 1)


def _in_short(reason: str) -> str:
    """A reason with the first only of what it lists."""
    if not isinstance(reason, Message):
        return reason
    values = {name: _in_short(value) if isinstance(value, str) else value for name, value in reason.values.items()}
    return str(values["a"]) if reason.code == "{a}; {b}" else Message(reason.code, values, reason.many)
