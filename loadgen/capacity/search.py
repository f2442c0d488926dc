"""Searches the highest load at which an SLO holds: told of one step's outcome at a time, it names the next load.

Pure: no clock, no engine. First the load is doubled (or halved) until a step holds and one fails, undecided ones by the
share that was seen. What comes next depends on what lies between.

Where the misses rise with the load, a curve is fitted over all loads (`loadgen.capacity.curve`), the next steps are
taken where it crosses the allowed share, longer ones once that is roughly known, and the search ends when the
crossing's interval is narrow.

Where there is a cliff (nothing missed at any load that holds, half or more at any that fails) a curve would know no
more than its edges. The bracket is then bisected, by its geometric mean, until it is as narrow as was asked for. From
the bracket outward, undecided loads are given further requests, up to a limit, until one is decided to hold and one to
fail: the ends of the interval. If none is, a lower (or higher) load is tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from loadgen.capacity.curve import Crossing, crossing
from loadgen.capacity.decision import Decision, decide
from loadgen.metrics.slo import needed
from loadgen.statistics.metrics import Floats

FARTHEST = 4.0
"""The ends of the interval are sought within the bracket's divided and multiplied by this."""
HALVINGS = 10
"""A rate is sought down to the first one divided by 2 to this power."""
CLIFF = 0.5
"""Share of the requests that miss beyond a cliff, at least."""
NARROW = 0.12
"""Neither end of a fitted curve's interval may be farther from the estimate, as a share of it."""
NEAR = 0.3
"""Where neither is farther than this, the crossing is known well enough for longer steps."""
MOST_STEPS = 80
"""A search by curve ends then, narrow or not."""
OFFSETS = (0.0, 0.5, -0.5, 0.25, -0.25)
"""Where the next steps lie in the interval: 0 is the estimate, 1 and -1 the ends."""
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
    def known(self) -> list[Floats]:
        """The blocks without what had not ended, which was sent last."""
        if self.refused:
            return [np.full(self.total, math.inf)]
        left, kept = self.open, []
        for block in reversed(self.blocks):
            dropped = min(left, block.size)
            left -= dropped
            kept.append(block[: block.size - dropped])
        return kept[::-1]

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
    """The lower end of the 95% interval; at a cliff the highest load at which the SLO was decided to hold."""
    high: float | None
    """The upper end; at a cliff, or of users, a load at which it fails."""
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
        self._steps = 0
        self._crossing: Crossing | None = None

    @property
    def near(self) -> bool:
        """Whether a curve is fitted by now that tells roughly where the crossing is."""
        return self._crossing is not None and _within(self._crossing, NEAR)

    def tell(self, load: float, outcome: Outcome) -> None:
        """Add a step's outcome. Those at one load add up."""
        self.outcomes[load] = self.outcomes.get(load, Outcome()) + outcome
        self._steps += 1
        self._crossing = fitted(self.outcomes, self._share)

    def next_load(self) -> float | None:
        """The load of the next step; None at the end."""
        if self._crossing is not None:
            return self._near(self._crossing)
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

    def _is_narrow(self, crossing: Crossing) -> bool:
        if self._whole and math.floor(crossing.low) == math.floor(crossing.high):
            return True
        return _within(crossing, NARROW)

    def _near(self, crossing: Crossing) -> float | None:
        """A load at or about the crossing that may have further requests; None at the end."""
        if self._is_narrow(crossing) or self._steps >= MOST_STEPS:
            return None
        turn = self._steps % len(OFFSETS)
        for offset in OFFSETS[turn:] + OFFSETS[:turn]:
            side = crossing.high if offset > 0 else crossing.low
            load = crossing.load * (side / crossing.load) ** abs(offset)
            load = self._rounded(min(load, self._most or math.inf))
            if self._whole:
                load = max(1.0, load)
            known = self.outcomes.get(load, Outcome())
            if known.total < self._patience(load) and not known.refused:
                return load
        return None

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
        return found(self.outcomes, self._crossing, self._share, self._whole, complete=self.next_load() is None)

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


def fitted(outcomes: Mapping[float, Outcome], share: float) -> Crossing | None:
    """Where the curve over all loads crosses; None while there is no load that holds and one that fails, or a cliff."""
    good = [outcome for outcome in outcomes.values() if _good(outcome, share)]
    bad = [outcome for outcome in outcomes.values() if not _good(outcome, share)]
    if not good or not bad:
        return None
    sharp = all(one.refused or one.total - one.met >= CLIFF * one.total for one in bad)
    if sharp and all(one.met == one.total for one in good):
        return None
    return crossing({load: outcome.known for load, outcome in outcomes.items()}, 1 - share)


def found(
    outcomes: Mapping[float, Outcome], curve: Crossing | None, share: float, whole: bool, *, complete: bool
) -> Found:
    """Conclude from the outcomes at each load, and the curve that was fitted to them, if one was.

    Of a curve the estimate is its crossing, rounded down to the most users that it holds; the upper end of an interval
    of users is the first number at which it fails. At a cliff the estimate is the middle of the last bracket
    (geometric), or of whole numbers its lower end, and the interval's ends are loads at which it was decided.
    """
    known = {"loads": len(outcomes), "requests": sum(outcome.total - outcome.open for outcome in outcomes.values())}
    if curve is not None:
        ends = curve.load, curve.low, curve.high
        if whole:
            ends = math.floor(curve.load), math.floor(curve.low), math.floor(curve.high) + 1
        load, low, high = (float(end) or None for end in ends)
        return Found(load=load, low=low, high=high, complete=complete, **known)
    low, high = bracket(outcomes, share)
    load = None if low is None or high is None else low if whole else math.sqrt(low * high)
    decided = {load: outcome.decide(share) for load, outcome in outcomes.items()}
    failed = min((load for load, decision in decided.items() if decision == "fails"), default=None)
    held = [load for load, what in decided.items() if what == "holds" and (failed is None or load < failed)]
    return Found(load=load, low=max(held, default=None), high=failed, complete=complete, **known)


def _within(crossing: Crossing, share: float) -> bool:
    """Whether both ends of the interval are within this share of the estimate."""
    return (1 - share) * crossing.load <= crossing.low and crossing.high <= (1 + share) * crossing.load


def _good(outcome: Outcome, share: float) -> bool:
    decision = outcome.decide(share)
    return decision == "holds" or (decision == "undecided" and outcome.seems_to_hold(share))
