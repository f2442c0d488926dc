"""Delta points to cumulative series, by the rules of OpenTelemetry's metrics data model.

https://opentelemetry.io/docs/specs/otel/metrics/data-model/ : "Resets and gaps", "Overlap", "Delta-to-Cumulative". A
sender of deltas leaves out intervals in which nothing happened, so a gap says neither that a point was lost nor that
the sender restarted. The total goes on over it, as a Prometheus counter may, and the gap is counted.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from exporters.otlp_decode import Attributes, Distribution, Kind, Point, Stream

EXTREMES_S = 5.0
SILENT_INSTANCE_S = 300.0
SILENT_SERIES_S = 3600.0
"""Where room is needed, series of an instance that said nothing for so long go, and any that had no point for so long.
By this process's clock or the senders' own: pushes that were held back are replayed in no time."""
RESTART_S = 120.0
"""After so long without a point in order, a stream begins anew with whatever comes."""
MAX_BUCKETS = 64


class Outcome(StrEnum):
    """What became of a point. Only ADDED, GAP and RESTARTED change a series."""

    ADDED = "added"
    GAP = "gap"
    """Added, and no point covers the time before it: an idle sender, one that restarted, or a push that was lost."""
    DUPLICATE = "duplicate"
    """The interval that came last, again."""
    LATE = "late"
    """It ends no later than what was counted already."""
    OVERLAPPING = "overlapping"
    """It covers time that was counted already: two senders with one identity, or a clock that was set back."""
    RESTARTED = "restarted"
    """Added, though by its times it is late: for RESTART_S nothing in order had come, so the sender's clock was set
    back, or an earlier point lay in the future."""
    BACKWARDS = "backwards"
    """It ends before it begins."""
    NO_VALUE = "no_value"
    NOT_FINITE = "not_finite"
    """NaN or infinite, or a sum would be."""
    NEGATIVE = "negative"
    """A counter or a histogram that would fall."""
    INCONSISTENT = "inconsistent"
    """A histogram whose buckets do not add up to its count, or whose bounds do not rise."""
    CONFLICT = "conflict"
    """Another metric has that series' name, or it was of another kind or unit before."""
    NO_ROOM = "no_room"
    """There are as many series as may be, and none has been silent for long."""

    @property
    def changes_series(self) -> bool:
        """Whether the point was taken."""
        return self in (Outcome.ADDED, Outcome.GAP, Outcome.RESTARTED)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream's points go: a series of a family, and by what to divide them to get the family's unit."""

    family: str
    labels: Attributes
    divisor: float
    instance: Attributes = ()
    """Those of the labels that tell whose the series is."""


@dataclass(frozen=True, slots=True)
class Heard:
    """When something last came: s of this process's monotonic clock, and ns by the sender's (0: not told)."""

    now: float
    time_ns: int

    def silent_s(self, other: Heard) -> float:
        """How long before `other`, by whichever clock says more."""
        told = (other.time_ns - self.time_ns) / 1e9 if self.time_ns and other.time_ns else 0.0
        return max(other.now - self.now, told)


@dataclass(slots=True)
class Extremes:
    """Least and greatest value of the last EXTREMES_S to twice that; None where there was none."""

    _old: tuple[float, float] | None = None
    _new: tuple[float, float] | None = None
    _since: float = -math.inf

    def add(self, low: float, high: float, now: float) -> None:
        """Take a point that came at `now` (s of a monotonic clock)."""
        self._turn(now)
        self._new = (min(low, self._new[0]), max(high, self._new[1])) if self._new else (low, high)

    def read(self, now: float) -> tuple[float, float] | None:
        """(least, greatest)."""
        self._turn(now)
        pairs = [pair for pair in (self._old, self._new) if pair]
        return (min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)) if pairs else None

    def _turn(self, now: float) -> None:
        if now - self._since >= EXTREMES_S:
            self._old = self._new if now - self._since < 2 * EXTREMES_S else None
            self._new, self._since = None, now


@dataclass(slots=True)
class Series:
    """A cumulative series, in the sender's unit."""

    labels: Attributes
    instance: Attributes = ()
    heard: Heard = Heard(0.0, 0)
    value: int | float = 0
    """Of a histogram: the sum of its values."""
    count: int = 0
    bounds: tuple[float, ...] = ()
    buckets: list[int] = field(default_factory=list)
    """Empty where points came with different bounds, which cannot be added up, or with more than MAX_BUCKETS."""
    extremes: Extremes = field(default_factory=Extremes)


@dataclass(slots=True)
class Family:
    """The series of one metric."""

    metric: str
    """Its name as the sender has it."""
    kind: Kind
    divisor: float
    series: dict[Attributes, Series] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    """The interval that a stream's last point covered, in ns, and when it came (s of our own clock)."""

    start_ns: int
    time_ns: int
    at: float


class Cumulator:
    """All series, and what was last seen of each stream. Streams that go to one series are added up."""

    def __init__(self, max_series: int) -> None:
        """`max_series` are held, see `_make_room`; of twice as many streams the ones idle longest are forgotten.

        `forgotten`: how many series had to make room.
        """
        self.forgotten = 0
        self._heard: dict[Attributes, Heard] = {}
        self.families: dict[str, Family] = {}
        self._max_series = max_series
        self._series = 0
        self._seen: OrderedDict[tuple[Place, Stream], _Seen] = OrderedDict()
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return self._series

    def add(self, place: Place, point: Point, now: float) -> Outcome:
        """Add a point that came at `now` (s of a monotonic clock); says what became of it."""
        problem = _problem(point)
        if problem:
            return problem
        key = (place, point.stream)
        seen = self._seen.get(key)
        outcome = _align(point, seen, now)
        if not outcome.changes_series:
            return outcome
        heard = Heard(now, point.time_ns)
        found = self._find(place, point.stream, heard)
        if isinstance(found, Outcome):
            return found
        series, is_new = found
        if not _accumulate(series, point, is_new=is_new, now=now):
            return Outcome.NOT_FINITE
        if is_new:
            self._keep(place, point.stream, series)
        series.heard = self._heard[place.instance] = heard
        if point.time_ns:
            self._seen[key] = _Seen(point.start_ns, point.time_ns, now)
            self._seen.move_to_end(key)
            if len(self._seen) > 2 * self._max_series:
                self._seen.popitem(last=False)
        return outcome

    def _find(self, place: Place, stream: Stream, heard: Heard) -> tuple[Series, bool] | Outcome:
        """The series at that place and whether it is new; or why there can be none."""
        family = self.families.get(place.family)
        if family is None:
            if any(name in self._names for name in sample_names(place.family, stream.kind)):
                return Outcome.CONFLICT
        elif (family.metric, family.kind, family.divisor) != (stream.name, stream.kind, place.divisor):
            return Outcome.CONFLICT
        elif place.labels in family.series:
            return family.series[place.labels], False
        if self._series >= self._max_series and not self._make_room(heard):
            return Outcome.NO_ROOM
        return Series(place.labels, place.instance), True

    def _make_room(self, heard: Heard) -> bool:
        """Forget what has been silent longest: all of an instance, else a series; False where nothing has for long."""
        longest = min(self._heard.items(), key=lambda item: item[1].now, default=None)
        if longest is not None and longest[1].silent_s(heard) >= SILENT_INSTANCE_S:
            gone = [each for each in self._each() if each[1].instance == longest[0]]
        else:
            name, series = min(self._each(), key=lambda each: each[1].heard.now)
            gone = [(name, series)] if series.heard.silent_s(heard) >= SILENT_SERIES_S else []
        for name, series in gone:
            family = self.families[name]
            del family.series[series.labels]
            if not family.series:
                del self.families[name]
                self._names = {key: owner for key, owner in self._names.items() if owner != name}
            if not any(each.instance == series.instance for _, each in self._each()):
                self._heard.pop(series.instance, None)
        self._series -= len(gone)
        self.forgotten += len(gone)
        return bool(gone)

    def _each(self) -> Iterator[tuple[str, Series]]:
        """Every series, and the name of its family."""
        return ((name, series) for name, family in self.families.items() for series in family.series.values())

    def _keep(self, place: Place, stream: Stream, series: Series) -> None:
        if place.family not in self.families:
            self.families[place.family] = Family(stream.name, stream.kind, place.divisor)
            self._names.update(dict.fromkeys(sample_names(place.family, stream.kind), place.family))
        self.families[place.family].series[place.labels] = series
        self._series += 1


def sample_names(family: str, kind: Kind) -> Iterator[str]:
    """Every name that a family of that kind may show in a scrape: no two families may share one."""
    suffixes = {"counter": ("total", "created"), "histogram": ("bucket", "sum", "count", "created", "min", "max")}
    yield family
    yield from (f"{family}_{suffix}" for suffix in suffixes.get(kind, ()))


def _problem(point: Point) -> Outcome | None:
    """Why a point cannot be taken, whatever came before it."""
    value = point.value
    if value is None or (isinstance(value, Distribution) and value.sum is None):
        return Outcome.NO_VALUE
    if point.time_ns and point.start_ns > point.time_ns:
        return Outcome.BACKWARDS
    total = value.sum if isinstance(value, Distribution) else value
    if total is None or not math.isfinite(total):
        return Outcome.NOT_FINITE
    if total < 0 and point.stream.kind in ("counter", "histogram"):
        return Outcome.NEGATIVE
    if isinstance(value, Distribution) and not _adds_up(value):
        return Outcome.INCONSISTENT
    return None


def _adds_up(value: Distribution) -> bool:
    if not value.buckets:
        return not value.bounds
    rising = all(low < high for low, high in zip(value.bounds, value.bounds[1:], strict=False))
    finite = all(map(math.isfinite, value.bounds))
    return rising and finite and len(value.buckets) == len(value.bounds) + 1 and sum(value.buckets) == value.count


def _align(point: Point, seen: _Seen | None, now: float) -> Outcome:
    """How a point's interval lies to the last one of its stream."""
    if seen is None or not point.time_ns:
        # Without a time nothing can be told from the order, and the data model adds such points up.
        return Outcome.ADDED
    if (point.start_ns, point.time_ns) == (seen.start_ns, seen.time_ns):
        return Outcome.DUPLICATE
    in_order = point.time_ns > seen.time_ns
    if in_order and (point.stream.kind == "gauge" or not point.start_ns or point.start_ns == seen.time_ns):
        return Outcome.ADDED
    if in_order and point.start_ns > seen.time_ns:
        return Outcome.GAP
    if now - seen.at >= RESTART_S:
        return Outcome.RESTARTED
    return Outcome.OVERLAPPING if in_order else Outcome.LATE


def _accumulate(series: Series, point: Point, *, is_new: bool, now: float) -> bool:
    """Add a point that is in order to its series; False, and nothing is changed, where the sum would not be finite."""
    value = point.value
    if isinstance(value, Distribution):
        total = series.value + (value.sum or 0.0)
        if not math.isfinite(total):
            return False
        series.value = total
        if is_new and len(value.buckets) <= MAX_BUCKETS:
            series.bounds, series.buckets = value.bounds, list(value.buckets)
        elif series.buckets and series.bounds == value.bounds:
            series.buckets = [one + other for one, other in zip(series.buckets, value.buckets, strict=True)]
        else:
            series.bounds, series.buckets = (), []
        series.count += value.count
        if value.count and value.min is not None and value.max is not None and math.isfinite(value.min + value.max):
            series.extremes.add(value.min, value.max, now)
        return True
    assert value is not None  # noqa: S101 - _problem() has seen to it
    total = value if point.stream.kind == "gauge" else series.value + value
    if not _fits(total):
        return False
    series.value = total
    return True


def _fits(number: int | float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False
