"""Deltas to totals, point by point."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.otlp_cumulative import EXTREMES_S, RESTART_S, Cumulator, Extremes, Outcome, Place
from exporters.otlp_decode import Distribution, Point, Stream


def stream(name="m", kind="counter", resource=(), attributes=()):
    return Stream(tuple(resource), "s 1", name, "", kind, tuple(attributes))


def point(value, start, end, **of):
    return Point(stream(**of), start, end, value)


class Store:
    """A cumulator whose places are the metrics' own names."""

    def __init__(self, room=10):
        self.cumulator = Cumulator(room)

    def add(self, value, start, end, divisor=1.0, now=0.0, family=None, **of):
        each = point(value, start, end, **of)
        place = Place(family or each.stream.name, each.stream.attributes, divisor)
        return self.cumulator.add(place, each, now).value

    def value(self, family="m", labels=()):
        return self.cumulator.families[family].series[labels].value


def test_intervals_that_meet_are_added_and_a_gap_is_too():
    store = Store()
    assert [store.add(3, 10, 20), store.add(4, 20, 30), store.add(5, 35, 40)] == ["added", "added", "gap"]
    assert store.value() == 12


@pytest.mark.parametrize(
    ("start", "end", "outcome"),
    [
        (20, 30, "duplicate"),
        (10, 20, "late"),
        (5, 8, "late"),
        (25, 30, "late"),
        (25, 40, "overlapping"),
        (10, 40, "overlapping"),
        (41, 40, "backwards"),
    ],
)
def test_time_that_was_counted_is_not_counted_again(start, end, outcome):
    store = Store()
    store.add(3, 10, 20)
    store.add(4, 20, 30)
    assert store.add(100, start, end) == outcome
    assert store.value() == 7
    assert store.add(1, 30, 41) == "added", "what was dropped moved nothing"


def test_points_without_times_are_added_up():
    store = Store()
    assert [store.add(1, 0, 0), store.add(1, 0, 0), store.add(2, 0, 5), store.add(2, 0, 5)] == [
        "added",
        "added",
        "added",
        "duplicate",
    ]
    assert store.value() == 4


def test_a_restart_goes_on_from_the_total():
    store = Store()
    store.add(1000, 10, 20)
    assert store.add(5, 100, 110) == "gap"
    assert store.value() == 1005


def test_two_senders_of_one_series_are_added_up_when_they_can_be_told_apart():
    store = Store()
    for end in (10, 20, 30):
        assert store.add(1, end - 10, end, resource=[("pid", "1")]) in ("added", "gap")
        assert store.add(5, end - 7, end + 3, resource=[("pid", "2")]) in ("added", "gap")
    assert store.value() == 18


def test_two_senders_that_cannot_be_told_apart_are_noticed_and_not_counted_twice():
    store = Store()
    seen = [store.add(1, 0, 10), store.add(5, 3, 13), store.add(1, 10, 20), store.add(5, 13, 23), store.add(1, 20, 30)]
    assert seen == ["added", "overlapping", "added", "overlapping", "added"]
    assert store.value() == 3


@pytest.mark.parametrize("wrong", [(10**6, 10**6 + 1), (4, 10**9)], ids=["the future", "a long interval"])
def test_a_time_that_cannot_be_does_not_freeze_a_series(wrong):
    store = Store()
    assert store.add(1, 0, 1, now=0.0) == "added"
    assert store.add(2, *wrong, now=1.0) in ("added", "gap")
    assert store.add(4, 1, 2, now=2.0) == "late"
    assert store.add(8, 200, 201, now=1.0 + RESTART_S) == "restarted"
    assert store.add(16, 201, 202, now=2.0 + RESTART_S) == "added"
    assert store.value() == 1 + 2 + 8 + 16


def test_the_same_push_again_is_a_duplicate_however_late():
    store = Store()
    store.add(1, 0, 1, now=0.0)
    assert store.add(1, 0, 1, now=10 * RESTART_S) == "duplicate"


def test_instances_with_labels_of_their_own_are_series_of_their_own():
    store = Store()
    store.add(1, 0, 10, attributes=[("instance", "a")])
    store.add(5, 0, 10, attributes=[("instance", "b")])
    assert [store.value(labels=((("instance", name)),)) for name in "ab"] == [1, 5]


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (math.nan, "not_finite"),
        (math.inf, "not_finite"),
        (-1, "negative"),
        (None, "no_value"),
        (1.7e308, "not_finite"),
    ],
)
def test_values_that_no_counter_can_take(value, outcome):
    store = Store()
    store.add(1.7e308, 0, 10)
    assert store.add(value, 10, 20) == outcome
    assert store.value() == 1.7e308
    assert store.add(0, 10, 20) == "added", "the interval is still open"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (Distribution(3, 6.0, 1, 3, (1.0, 2.0), (1, 1, 1)), "added"),
        (Distribution(3, 6.0, None, None), "added"),
        (Distribution(3, 6.0, math.nan, 3), "added"),
        (Distribution(3, None, 1, 3), "no_value"),
        (Distribution(3, math.nan, 1, 3), "not_finite"),
        (Distribution(3, -1.0, 1, 3), "negative"),
        (Distribution(4, 6.0, 1, 3, (1.0, 2.0), (1, 1, 1)), "inconsistent"),
        (Distribution(3, 6.0, 1, 3, (1.0, 2.0), (1, 2)), "inconsistent"),
        (Distribution(3, 6.0, 1, 3, (2.0, 1.0), (1, 1, 1)), "inconsistent"),
        (Distribution(3, 6.0, 1, 3, (1.0, math.inf), (1, 1, 1)), "inconsistent"),
        (Distribution(3, 6.0, 1, 3, (math.nan, 1.0), (1, 1, 1)), "inconsistent"),
        (Distribution(3, 6.0, 1, 3, (1.0,), ()), "inconsistent"),
    ],
)
def test_histograms(value, outcome):
    assert Store().add(value, 0, 10, kind="histogram") == outcome


def test_buckets_add_up_until_the_bounds_change():
    store = Store()
    for end, bounds in ((10, (1.0, 2.0)), (20, (1.0, 2.0)), (30, (1.0, 5.0)), (40, (1.0, 2.0))):
        store.add(Distribution(6, 9.0, 0, 3, bounds, (1, 2, 3)), end - 10, end, kind="histogram")
        series = store.cumulator.families["m"].series[()]
        assert series.buckets == ([] if end > 20 else [end // 10 * count for count in (1, 2, 3)])
    assert (series.count, series.value) == (24, 36.0)


def test_too_many_buckets_are_not_kept():
    store = Store()
    for end in (10, 20):
        many = Distribution(65, 9.0, 0, 3, tuple(map(float, range(64))), (1,) * 65)
        assert store.add(many, end - 10, end, kind="histogram") == "added"
    series = store.cumulator.families["m"].series[()]
    assert (series.buckets, series.bounds, series.count) == ([], (), 130)


def test_gauges_and_up_and_down_counters():
    store = Store()
    assert [store.add(value, 0, end, kind="gauge") for value, end in ((5, 10), (3, 20), (9, 15))] == [
        "added",
        "added",
        "late",
    ]
    assert store.value() == 3
    store.add(5, 0, 10, name="u", kind="updown")
    store.add(-7, 10, 20, name="u", kind="updown")
    assert store.value("u") == -2


def test_one_family_has_one_metric_kind_and_unit():
    store = Store()
    store.add(1, 0, 10)
    assert store.add(1, 10, 20, kind="gauge") == "conflict"
    assert store.add(1, 10, 20, divisor=1e3) == "conflict"
    assert store.add(1, 10, 20, name="other", family="m") == "conflict"
    assert store.add(1, 0, 10, name="m_total", kind="gauge") == "conflict"
    assert store.add(1, 10, 20) == "added"
    assert store.value() == 2
    assert list(store.cumulator.families) == ["m"]


def test_room_is_limited_and_known_series_go_on():
    store = Store(room=3)
    made = [store.add(1, 0, 10, attributes=[("i", str(number))]) for number in range(5)]
    assert made == ["added"] * 3 + ["no_room"] * 2
    assert store.add(1, 10, 20, attributes=[("i", "0")]) == "added"
    assert len(store.cumulator) == 3


def test_streams_that_came_and_went_take_no_room_for_ever():
    store = Store(room=3)
    for number in range(50):
        assert store.add(1, 0, 10, resource=[("pid", str(number))]) == "added"
    assert store.value() == 50
    assert len(store.cumulator._seen) == 6


def test_extremes_are_of_the_last_seconds():
    extremes = Extremes()
    assert extremes.read(0) is None
    extremes.add(3, 9, 100)
    extremes.add(1, 5, 101)
    assert extremes.read(101) == (1, 9)
    extremes.add(4, 4, 100 + EXTREMES_S)
    assert extremes.read(100 + EXTREMES_S) == (1, 9)
    assert extremes.read(100 + 2 * EXTREMES_S) == (4, 4)
    assert extremes.read(100 + 3 * EXTREMES_S) is None
    extremes.add(7, 7, 1000)
    assert extremes.read(1000) == (7, 7)


EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(1, 8), st.integers(0, 1000)), max_size=60
)


@given(EVENTS)
def test_every_instant_is_counted_once_at_most(events):
    """Told by sets of instants: a point is taken just where all its instants lie after all that were counted."""
    store, covered, totals = Store(), {}, {}
    for sender, start, length, value in events:
        outcome = store.add(value, start, start + length, attributes=[("i", str(sender))])
        instants = covered.setdefault(sender, set())
        fits = not instants or start > max(instants)
        assert Outcome(outcome).changes_series == fits
        if fits:
            instants |= set(range(start, start + length))
            totals[sender] = totals.get(sender, 0) + value
    for sender, total in totals.items():
        assert store.value(labels=(("i", str(sender)),)) == total


S = 10**9


def churned(store, number, at_s, name="m", instance=None, now=None):
    """A point of an instance that was pushed at `at_s`, by the sender's clock and, unless `now` is given, by ours."""
    owner = (("i", str(number if instance is None else instance)),)
    each = point(1, at_s * S, at_s * S + 1, name=name, attributes=[("i", str(number))])
    return store.cumulator.add(
        Place(name, each.stream.attributes, 1.0, owner), each, at_s if now is None else now
    ).value


@pytest.mark.parametrize("replayed", [False, True])
def test_instances_silent_for_long_make_room_for_new_ones(replayed):
    store = Store(room=3)
    made = [churned(store, number, 200 * number, now=0 if replayed else None) for number in range(1, 50)]
    assert made == ["added"] * 49
    assert len(store.cumulator) == 3 and store.cumulator.forgotten == 46
    assert store.value(labels=(("i", "49"),)) == 1


def test_a_silent_instance_goes_with_all_its_series_and_names():
    store = Store(room=3)
    assert [churned(store, 0, 1, name=name) for name in "ab"] == ["added", "added"]
    assert churned(store, 1, 2, name="c") == "added"
    assert churned(store, 2, 200, name="c") == "no_room"
    assert churned(store, 2, 302, name="c") == "added"
    assert churned(store, 2, 303, name="a_total") == "added", "no family is called a any more"
    assert sorted(store.cumulator.families) == ["a_total", "c"]


def test_of_an_instance_that_talks_only_what_had_no_point_for_an_hour_makes_room():
    store = Store(room=3)
    for number in range(3):
        churned(store, number, 1 + number, instance="one")
    churned(store, 0, 3500, instance="one")
    assert churned(store, 3, 3501, instance="one") == "no_room"
    assert churned(store, 3, 3602, instance="one") == "added"
    assert ("i", "1") not in [label for labels in store.cumulator.families["m"].series for label in labels]
    assert store.value(labels=(("i", "0"),)) == 2, "it had points, and stays"
