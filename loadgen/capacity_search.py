"""Searches the highest load at which an SLO holds: told of one step's outcome at a time, it names the next load.

Pure: no clock, no engine. First the load is doubled (or halved) until a step holds and one fails, then the bracket is
bisected, by its geometric mean, until it is as narrow as was asked for.

A step is decided by an exact binomial test: the SLO holds at a load if so many requests met it that a true share of
just the percentile would give as many with a probability of at most 2.5%, and fails if so few. An undecided load is
given further requests, up to a limit; then it counts, for the search, by the share that was seen, and the interval of
the result goes past it. The test takes requests as independent; those of one queue are not quite, so the 2.5% are
approximate.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from scipy.special import bdtr, bdtrc

from loadgen.slo import needed

Decision = Literal["holds", "fails", "undecided"]

ERROR_SHARE = 0.025
"""Probability of deciding wrongly, for each side, at a load where the true share is just the percentile."""
HALVINGS = 10
"""A rate is sought down to the first one divided by 2 to this power."""
DIGITS = 4
"""Rates are rounded to so many significant digits: they name cells."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """Requests at one load, and how many of them met the SLO."""

    met: int = 0
    total: int = 0
    open: int = 0
    """Requests among those that had not ended when the step did, and count as met: it fails all the same."""
    rejected: Counter[int] = dataclasses.field(default_factory=Counter)
    """Requests among those that missed because the engine turned them away, by HTTP status."""
    refused: bool = False
    """Whether it turned away so many that it never had this load: the SLO then fails, whatever else is seen."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.met + other.met,
            self.total + other.total,
            self.open + other.open,
            self.rejected + other.rejected,
            self.refused or other.refused,
        )

    @property
    def rejected_percent(self) -> str:
        """How many of those that have ended were turned away, such as `12%`."""
        return f"{100 * self.rejected.total() / (self.total - self.open or 1):.2g}%"

    @property
    def rejected_with(self) -> str:
        """The HTTP statuses of that, such as `429`."""
        return ", ".join(str(status) for status in sorted(self.rejected))

    def decide(self, share: float) -> Decision:
        """Whether the true share that meets the SLO is at least `share`."""
        if self.refused:
            return "fails"
        if self.total and bdtrc(self.met - 1, self.total, share) <= ERROR_SHARE:
            return "holds"
        if self.total and bdtr(self.met, self.total, share) <= ERROR_SHARE:
            return "fails"
        return "undecided"

    def seems_to_hold(self, share: float) -> bool:
        """Whether it holds going by the share that was seen."""
        return self.total > 0 and self.met >= needed(self.total, share)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a search has found, or a search that broke off had found by then."""

    load: float | None
    """The estimate: users, or requests a second. None when it holds at no load, or at all that were tried."""
    low: float | None
    """The highest load at which the SLO was decided to hold."""
    high: float | None
    """The lowest load at which it was decided to fail."""
    loads: int
    """Loads that were tried."""
    requests: int
    """Measured requests of all steps."""
    complete: bool
    """Whether the search came to its end."""


class CapacitySearch:
    """One engine's search for one shape of request."""

    def __init__(
        self,
        *,
        start: float,
        most: float | None,
        precision: float,
        whole: bool,
        share: float,
        patience: Callable[[float], int],
    ) -> None:
        """Begin at `start`.

        Args:
            start: the first load.
            most: the highest load to try; None for no limit.
            precision: the bracket is narrow enough when it is no wider than this share of its lower end.
            whole: whether loads are whole numbers (users).
            share: share of the requests that must meet the SLO.
            patience: how many requests an undecided load is given at most.
        """
        self._start = start
        self._most = most
        self._precision = precision
        self._whole = whole
        self._share = share
        self._patience = patience
        self.outcomes: dict[float, Outcome] = {}

    def tell(self, load: float, outcome: Outcome) -> None:
        """Add a step's outcome. Those at one load add up."""
        self.outcomes[load] = self.outcomes.get(load, Outcome()) + outcome

    def next_load(self) -> float | None:
        """The load of the next step; None at the end."""
        for load, outcome in self.outcomes.items():
            if outcome.decide(self._share) == "undecided" and outcome.total < self._patience(load):
                return load
        low, high = bracket(self.outcomes, self._share)
        if low is None and high is None:
            return self._rounded(self._start)
        if high is None:
            return self._new(2 * (low or self._start))
        if low is None:
            least = 1.0 if self._whole else self._start / 2**HALVINGS
            return None if high <= least else self._new(max(high / 2, least))
        if high - low <= max(self._precision * low, 1 if self._whole else 0):
            return None
        middle = math.sqrt(low * high)
        return self._new(max(middle, low + 1) if self._whole else middle)

    def found(self) -> Found:
        """What is known by now."""
        return found(self.outcomes, self._share, self._whole, complete=self.next_load() is None)

    def _new(self, load: float) -> float | None:
        """A load rounded and within its limits; None when it was tried: rounding must not go in circles."""
        load = self._rounded(load if self._most is None else min(load, self._most))
        return None if load in self.outcomes else load

    def _rounded(self, load: float) -> float:
        return float(math.floor(load)) if self._whole else float(f"{load:.{DIGITS}g}")


def bracket(outcomes: Mapping[float, Outcome], share: float) -> tuple[float | None, float | None]:
    """The highest load that holds and the lowest that fails, undecided ones by what they seem."""
    fails = [load for load, outcome in outcomes.items() if not _good(outcome, share)]
    high = min(fails, default=None)
    holds = [load for load, outcome in outcomes.items() if _good(outcome, share) and (high is None or load < high)]
    return max(holds, default=None), high


def found(outcomes: Mapping[float, Outcome], share: float, whole: bool, *, complete: bool) -> Found:
    """Conclude from the outcomes at each load.

    The estimate is the middle of the last bracket (geometric), or of whole numbers its lower end: the most users at
    which it held. The interval's ends are loads at which it was decided.
    """
    low, high = bracket(outcomes, share)
    load = None if low is None or high is None else low if whole else math.sqrt(low * high)
    decided = {load: outcome.decide(share) for load, outcome in outcomes.items()}
    failed = min((load for load, decision in decided.items() if decision == "fails"), default=None)
    held = [load for load, what in decided.items() if what == "holds" and (failed is None or load < failed)]
    return Found(
        load=load,
        low=max(held, default=None),
        high=failed,
        loads=len(outcomes),
        requests=sum(outcome.total - outcome.open for outcome in outcomes.values()),
        complete=complete,
    )


def _good(outcome: Outcome, share: float) -> bool:
    decision = outcome.decide(share)
    return decision == "holds" or (decision == "undecided" and outcome.seems_to_hold(share))
