"""The program that marks regions, without its client: whatever fails on the way, Grafana has all in the end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafana.annotator.annotate import Annotator, GivenUp


class Refused(Exception):
    def __init__(self, status_code):
        super().__init__(f"{status_code}\nand more")
        self.status_code = status_code


class Store:
    """Grafana's side; raises `failure` while there is one."""

    def __init__(self):
        self.kept, self.failure = {}, None

    def add_annotation(self, **told):
        if self.failure:
            raise self.failure
        number = len(self.kept) + 1
        self.kept[number] = told
        return {"id": number}

    def partial_update_annotation(self, number, **told):
        if self.failure:
            raise self.failure
        if number not in self.kept:
            raise Refused(404)
        self.kept[number] = told
        return {"message": "Annotation patched"}


class Clock:
    now = 1000

    def __call__(self):
        return self.now


@pytest.fixture
def store():
    return Store()


def annotator_of(store, clock=None):
    warnings = []
    return Annotator(store, warnings.append, clock or Clock()), warnings


def line(key, time, end=None, text="text", tags=("bakeoff",)):
    return json.dumps({"key": key, "time": time, "end": end, "tags": tags, "text": text})


def shown(store):
    return [(told["time_from"], told["time_to"], told["text"]) for told in store.kept.values()]


def test_a_region_is_seen_while_it_lasts_and_grows(store):
    clock = Clock()
    annotator, warnings = annotator_of(store, clock)
    annotator.take(line("a", 900, text="running"))
    annotator.tell()
    assert shown(store) == [(900, 1000, "running")]
    clock.now = 1010
    annotator.tell()
    assert shown(store) == [(900, 1010, "running")]
    annotator.take(line("a", 890, 1005, text="complete"))
    annotator.tell()
    assert shown(store) == [(890, 1005, "complete")]
    clock.now = 2000
    annotator.tell()
    assert shown(store) == [(890, 1005, "complete")]
    assert warnings == []


def test_one_that_is_only_told_of_at_its_end_is_marked_whole(store):
    annotator, _ = annotator_of(store)
    annotator.take(line("a", 900))
    annotator.take(line("a", 900, 950, text="failed"))
    annotator.tell()
    assert shown(store) == [(900, 950, "failed")]


def test_those_that_still_last_end_with_whoever_told_of_them(store):
    annotator, _ = annotator_of(store)
    annotator.take(line("a", 900))
    annotator.take(line("b", 900, 950))
    annotator.end_all()
    annotator.tell()
    assert [end for _, end, _ in shown(store)] == [1000, 950]


def test_a_clock_that_goes_back_makes_no_region_with_a_negative_length(store):
    annotator, _ = annotator_of(store)
    annotator.take(line("a", 5000))
    annotator.tell()
    assert shown(store) == [(5000, 5000, "text")]


@pytest.mark.parametrize("status", [401, 403])
def test_it_gives_up_where_it_is_refused(store, status):
    annotator, warnings = annotator_of(store)
    store.failure = Refused(status)
    annotator.take(line("a", 900))
    with pytest.raises(GivenUp):
        annotator.tell()
    assert warnings == [f"Refused: {status} and more"]


def test_one_that_somebody_removed_is_not_made_again(store):
    annotator, warnings = annotator_of(store)
    annotator.take(line("a", 900))
    annotator.take(line("b", 900))
    annotator.tell()
    del store.kept[1]
    annotator.take(line("a", 900, 950))
    annotator.take(line("b", 900, 951))
    annotator.tell()
    assert shown(store) == [(900, 951, "text")]
    assert len(warnings) == 1


FAILURES = st.sampled_from([None, OSError("refused"), Refused(500), Refused(0), ValueError("no JSON"), KeyError("id")])
STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), FAILURES), max_size=20)


@given(STEPS)
def test_what_failed_is_made_good_and_said_once(steps):
    """Regions that begin and end in any order, told of while Grafana fails and works by turns."""
    store, clock = Store(), Clock()
    annotator, warnings = annotator_of(store, clock)
    expected, lasting, failed = [], {}, False
    for number, (name, ends, failure) in enumerate(steps):
        clock.now += 10
        store.failure = failure
        if name not in lasting:
            lasting[name] = f"{name}{number}"
            annotator.take(line(lasting[name], clock.now, text=lasting[name]))
            expected.append([clock.now, None, lasting[name]])
        if ends:
            key = lasting.pop(name)
            region = next(each for each in expected if each[2] == key)
            region[1] = clock.now + 1
            annotator.take(line(key, region[0], region[1], text=key))
        pending = ends or bool(lasting)
        failed = failed or (failure is not None and pending)
        annotator.tell()
    store.failure = None
    clock.now += 10
    annotator.end_all()
    annotator.tell()
    assert sorted(shown(store)) == sorted((start, end or clock.now, key) for start, end, key in expected)
    assert len(warnings) == int(failed)
