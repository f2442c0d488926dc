"""Further repeats: when a run is judged, and at which level, so that looking often is no way to win."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from loadgen.analysis.comparison import comparisons
from loadgen.errors import UserError
from loadgen.message import joined, say
from loadgen.presentation.headline import headline
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import Manifest
from loadgen.scenario.model import Scenario
from loadgen.statistics.result import Settings, Statistics


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


def check_looks(scenario: Scenario, seats: int, most_repeats: int | None) -> None:
    """Raises UserError where a race cannot go on until it is decided."""
    if most_repeats is None:
        return
    if scenario.find_capacity is not None:
        raise UserError("--until-decided goes with repeats: a search for capacity extends its steps by itself.")
    if seats != 2:
        raise UserError(f"--until-decided needs two engines, and {seats} race.")
    if most_repeats < scenario.repeats:
        raise UserError(f"--until-decided {most_repeats}: the scenario has {scenario.repeats} repeats already.")


def more_repeats(scenario: Scenario, repeats: int) -> dict[str, int]:
    """What of its scenario changes when a run goes on to so many repeats. Raises UserError where it cannot."""
    if scenario.find_capacity is not None:
        raise UserError("--repeats: a search for capacity extends its steps by itself, and has no repeats to add.")
    if repeats <= scenario.repeats:
        raise UserError(
            f"--repeats {repeats}: this run is one of {scenario.repeats}. Give how many it is to have in all."
        )
    return scenario.with_repeats(repeats)


def plan_looks(manifest: Manifest, repeats: int, most: int | None, before: int | None = None) -> None:
    """Plan when a run is judged; that and the level, for all looks together, go into its manifest.

    Args:
        manifest: the run's, with the looks that it has had.
        repeats: it has or gets at least.
        most: repeats it gets at most, until it is decided; None where `repeats` are all.
        before: repeats that it had, where it is extended: that was a look too, whoever planned it.
    """
    looks = set(Looks.planned(repeats, most or repeats).repeats)
    if before is not None:
        looks |= {before, *(look for look in manifest.looks if look < before)}
    planned = Looks(tuple(sorted(looks)))
    manifest.looks = list(planned.repeats)
    manifest.alpha = min(manifest.alpha, planned.alpha(Settings().alpha))
    if before is not None and repeats > before:
        manifest.messages.append(say("Extended from {before} to {after} repeats.", before=before, after=repeats))
    if before is not None and manifest.alpha < Settings().alpha:
        manifest.messages.append(
            say(
                "It is judged after {looks} repeats, each time at a level of {level}.",
                looks=joined("{a}, {b}", map(str, planned.repeats)),
                level=f"{manifest.alpha:.2%}",
            )
        )


def judge_pair(folder: RunFolder, a: str, b: str) -> Statistics:
    """Judge what a run has measured so far, as its report will. Raises UserError when it cannot be read."""
    return comparisons(folder.load(), [a, b])[0]


def decider(folder: RunFolder, a: str, b: str, looks: Looks, tell: Callable[[str], None]) -> Callable[[int], int]:
    """What a campaign asks after its repeats: how many more are to be run; 0 ends the run."""

    def further(done: int) -> int:
        statistics = judge_pair(folder, a, b)
        tell(f"After {done} repeat{'' if done == 1 else 's'}: {headline(statistics).text}")
        following = looks.after(done)
        if statistics.reason == "mixed" or (statistics.verdict == "invalid" and not _any_counts(statistics)):
            tell("Further repeats would not decide it: none are run.")  # more of the same would not change that
            return 0
        return 0 if following is None or statistics.verdict not in ("undecided", "invalid") else following - done

    return further


def _any_counts(statistics: Statistics) -> bool:
    """Whether any block counts, for want of whose counterpart alone nothing can be compared."""
    return any(block.reason is None for cell in statistics.cells for block in cell.left_out)
