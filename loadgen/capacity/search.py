"""Searches the highest load at which an SLO holds: told of one step's outcome at a time, it names the next load.

Pure: no clock, no engine. First the load is doubled (or halved) until a step holds and one fails, then the bracket is
bisected, by its geometric mean, until it is as narrow as was asked for. So far an undecided load counts by the share
that was seen. Then, from the bracket outward, undecided loads are given further requests, up to a limit, until one is
decided to hold and one to fail: the ends of the interval. If none is, a lower (or higher) load is tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from loadgen.capacity.decision import Decision, decide
from loadgen.metrics.slo import needed
from loadgen.statistics.metrics import Floats

FARTHEST = 4.0
"""The ends of the interval are sought within the bracket's divided and multiplied by this."""
HALVINGS = 10
"""A rate is sought down to the first one divided by 2 to this power."""
DIGITS = 4
"""Rates are rounded to so many significant digits: they name cells."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What requests at one load gave."""

    blocks: tuple[Floats, ...] = ()
    """Each block's strains (`loadgen.metrics.slo.strain`), in the order the requests were sent."""
    looks: int = 1
    """How often the load may be decided anew as blocks are added: the looks share the probability of an error."""
    open: int = 0
    """Requests among those that had not ended when the step did, and count as met: it fails all the same."""
    rejected: Counter[int] = dataclasses.field(default_factory=Counter)
    """Requests among those that missed because the engine turned them away, by HTTP status."""
    refused: bool = False
    """Whether it turned away so many that it never had this load: the SLO then fails, whatever else is seen."""
    _decisions: dict[float, Decision] = dataclasses.field(default_factory=dict, init=False, repr=False)
    """By share, once made: a search asks for them again and again."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.blocks + other.blocks,
            max(self.looks, other.looks),
            self.open + other.open,
            self.rejected + other.rejected,
            self.refused or other.refused,
        )

    @property
    def total(self) -> int:
        """Requests."""
        return sum(block.size for block in self.blocks)

    @property
    def met(self) -> int:
        """How many of them met the SLO."""
        return sum(int((block <= 1).sum()) for block in self.blocks)

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
        if share not in self._decisions:
            self._decisions[share] = "fails" if self.refused else decide(self.blocks, share, self.looks)
        return self._decisions[share]

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
        low, high = bracket(self.outcomes, self._share)
        if low is None and high is None:
            return self._rounded(self._start)
        if high is None:
            further = self._new(2 * (low or self._start))
        elif low is None:
            least = 1.0 if self._whole else self._start / 2**HALVINGS
            further = None if high <= least else self._new(max(high / 2, least))
        elif high - low <= max(self._precision * low, 1 if self._whole else 0):
            further = None
        else:
            middle = math.sqrt(low * high)
            further = self._new(max(middle, low + 1) if self._whole else middle)
        return self._end_of_interval(low, high) if further is None else further

    def _end_of_interval(self, low: float | None, high: float | None) -> float | None:
        """The load to go on with, from the bracket down, then up, until one is decided; None at the end."""
        if low is not None:
            below = sorted((load for load in self.outcomes if load <= low), reverse=True)
            found = self._undecided(below, "holds")
            if isinstance(found, float):
                return found
            lower = max(below[-1] / 2, 1.0 if self._whole else 0.0)
            if not found and high is not None and below[-1] > low / FARTHEST and (load := self._new(lower)) is not None:
                return load
        if high is not None:
            above = sorted(load for load in self.outcomes if load >= high)
            found = self._undecided(above, "fails")
            if isinstance(found, float):
                return found
            if not found and low is not None and above[-1] < high * FARTHEST:
                return self._new(2 * above[-1])
        return None

    def _undecided(self, loads: Sequence[float], wanted: Decision) -> float | bool:
        """The first load that may have further requests, unless one before it is decided; else whether one is."""
        for load in loads:
            if self.outcomes[load].decide(self._share) == wanted:
                return True
            if self.outcomes[load].total < self._patience(load) and not self.outcomes[load].refused:
                return load
        return False

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
