"""Repeats until the verdict is clear: when to look, and at which level, so that looking often is no way to win."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from loadgen.analysis.comparison import comparisons
from loadgen.presentation.headline import headline
from loadgen.runs.folder import RunFolder
from loadgen.statistics.result import Statistics


@dataclasses.dataclass(frozen=True, slots=True)
class Looks:
    """The numbers of repeats at which a run is judged, ascending."""

    repeats: tuple[int, ...]

    @classmethod
    def planned(cls, first: int, most: int) -> Looks:
        """Double the repeats from look to look, up to `most`; whole pairs of turns (A B, B A) where that fits."""
        looks = [first]
        while looks[-1] < most:
            looks.append(min(most, looks[-1] * 2 + looks[-1] * 2 % 2))
        return cls(tuple(looks))

    def alpha(self, alpha: float) -> float:
        """The level of each look, so that false alarms stay at `alpha` over all of them (Bonferroni)."""
        return alpha / max(1, sum(repeats >= 2 for repeats in self.repeats))  # one repeat decides nothing anyway

    def after(self, done: int) -> int | None:
        """The next look's number of repeats; None after the last."""
        return next((repeats for repeats in self.repeats if repeats > done), None)


def judge_pair(folder: RunFolder, a: str, b: str) -> Statistics:
    """Judge what a run has measured so far, as its report will. Raises UserError when it cannot be read."""
    return comparisons(folder.load(), [a, b])[0]


def decider(folder: RunFolder, a: str, b: str, looks: Looks, tell: Callable[[str], None]) -> Callable[[int], int]:
    """What a campaign asks after its repeats: how many more are to be run; 0 ends the run."""

    def further(done: int) -> int:
        statistics = judge_pair(folder, a, b)
        tell(f"After {done} repeat{'' if done == 1 else 's'}: {headline(statistics).text}")
        following = looks.after(done)
        if statistics.verdict == "invalid" or statistics.reason == "mixed":  # more of the same would not change that
            tell("Further repeats would not decide it: none are run.")
            return 0
        return 0 if following is None or statistics.verdict != "undecided" else following - done

    return further
