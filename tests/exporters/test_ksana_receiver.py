"""Pushes in, series out, without a socket."""

import gzip
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.ksana import MAX_ENGINES, Receiver
from exporters.otlp_decode import decode_json
from exporters.otlp_http import MAX_BODY, RefusedError, gunzip, read_push
from tests.exporters.ksana_pushes import (
    by_name,
    captured,
    delta_sum,
    histogram,
    interval,
    number,
    outcomes,
    push,
    scrape,
)

JSON = "application/json"


def replayed(bodies, engine="ksana"):
    receiver = Receiver()
    for body in bodies:
        receiver.take(engine, decode_json(body))
    return receiver


def test_the_captured_pushes_have_their_known_totals():
    samples = by_name(scrape(replayed(captured())))
    assert samples["ksana_forward_req_total_num_total"] == 398
    assert samples["ksana_computed_output_token_num_total"] == 46_332
    assert samples["ksana_computed_input_token_num_total"] == 733_627
    assert samples["ksana_time_to_first_token_seconds_count"] == 322
    assert samples["ksana_time_to_first_token_seconds_sum"] == 51.940884
    assert samples["ksana_total_latency_seconds_count"] == 382
    assert samples["ksana_time_to_first_token_seconds_min"] == 0.008003
    assert samples["ksana_time_to_first_token_seconds_max"] == 1.009357
    assert not [name for name in samples if name.endswith("_bucket")], "the default bounds resolve nothing"


def test_each_captured_total_is_the_plain_sum_of_its_deltas():
    sums, counts = {}, {}
    for body in captured():
        for metric in json.loads(body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]:
            for point in metric.get("sum", metric.get("histogram", {})).get("dataPoints", []):
                name = metric["name"]
                sums[name] = sums.get(name, 0) + float(point.get("sum", point.get("asInt", 0)))
                counts[name] = counts.get(name, 0) + int(point.get("count", 0))
    samples = by_name(scrape(replayed(captured())))
    assert len(sums) == 29
    for name, total in sums.items():
        family = "ksana_" + (name.removesuffix("_us") + "_seconds" if name.endswith("_us") else name)
        kind = "_sum" if counts[name] else "_total"
        assert samples[family + kind] == pytest.approx(total / (1e6 if name.endswith("_us") else 1), rel=1e-12)
        assert samples.get(f"{family}_count", 0) == counts[name]


def test_the_same_pushes_again_change_nothing_and_are_counted():
    receiver = replayed(captured())
    before = by_name(scrape(receiver))
    for body in captured():
        receiver.take("ksana", decode_json(body))
    after = scrape(receiver)
    assert by_name(after) == before
    found = outcomes(after)
    assert found["added"] + found["gap"] == 2150
    assert found["late"] + found["duplicate"] == 2150


def test_two_engines_do_not_mix():
    receiver = replayed(captured())
    for body in captured()[:10]:
        receiver.take("sim-ksana", decode_json(body))
    name, samples = "ksana_forward_req_total_num_total", scrape(receiver)
    values = {dict(labels)["engine"]: value for (found, *labels), value in samples.items() if found == name}
    assert values["ksana"] == 398
    assert 0 < values["sim-ksana"] < 398


def distribution(start, end, bounds, buckets):
    return {"count": sum(buckets), "sum": 10.0, "min": 1.0, "max": 9.0, "explicitBounds": bounds,
            "bucketCounts": buckets, **interval(start, end)}  # fmt: skip


def test_chosen_bounds_are_published_in_base_units():
    receiver = replayed([push(histogram("x_us", distribution(1, 2, [1000.0, 2500.0], [3, 4, 0])))])
    samples = {(name, dict(labels).get("le")): value for (name, *labels), value in scrape(receiver).items()}
    assert samples["ksana_x_seconds_bucket", "0.001"] == 3
    assert samples["ksana_x_seconds_bucket", "0.0025"] == 7
    assert samples["ksana_x_seconds_bucket", "+Inf"] == 7


@pytest.mark.parametrize("above", [0, 1, 2])
def test_bounds_below_the_values_are_not_published(above):
    receiver = replayed([push(histogram("x", distribution(1, 2, [10.0], [100 - above, above])))])
    samples = by_name(scrape(receiver))
    assert ("ksana_x_bucket" in samples) is (above <= 1)
    assert (samples["ksana_x_count"], samples["ksana_x_sum"]) == (100, 10)


def test_bounds_that_differ_within_a_family_are_not_published():
    one, two = distribution(1, 2, [10.0], [1, 0]), distribution(1, 2, [20.0], [1, 0])
    two["attributes"] = [{"key": "instance", "value": {"stringValue": "b"}}]
    assert "ksana_x_bucket" not in by_name(scrape(replayed([push(histogram("x", one, two))])))


def test_names_that_would_clash_in_a_scrape():
    gauge = {"name": "x_max", "gauge": {"dataPoints": [number(1.0, 0, 2)]}}
    receiver = replayed(
        [push(histogram("x", distribution(1, 2, [10.0], [1, 0])), gauge, delta_sum("x_sum", number(1, 1, 2)))]
    )
    assert outcomes(scrape(receiver)) == {"added": 1, "conflict": 2}


def test_dropped_points_are_told_to_the_sender():
    body = push(delta_sum("x", number(1, 1, 2), number(float("nan"), 2, 3)), delta_sum("y" * 200, number(1, 1, 2)),
                delta_sum("z", number(1, 1, 2), temporality=2))  # fmt: skip
    dropped, why = Receiver().take("ksana", decode_json(body))
    assert dropped == 3
    assert why == "not_delta: 1, not_finite: 1, unnameable: 1"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (gzip.compress(b"0" * (MAX_BODY + 1), mtime=0), "too_large"),
        (zlib.compress(b"{}"), "gzip"),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip"),
        (b"plain", "gzip"),
        (b"", "gzip"),
        (gzip.compress(b"{}", mtime=0) + b"tail", "gzip"),
        (gzip.compress(b"nonsense", mtime=0), "malformed"),
    ],
)
def test_bad_gzip(body, reason):
    with pytest.raises(RefusedError) as caught:
        read_push(body, JSON, "gzip")
    assert caught.value.reason == reason


def test_gzip_of_several_members_counts_as_one_body():
    assert gunzip(gzip.compress(b"ab") + gzip.compress(b"cd")) == b"abcd"
    with pytest.raises(RefusedError, match="more than 3 bytes"):
        gunzip(gzip.compress(b"ab") + gzip.compress(b"cd"), limit=3)


@pytest.mark.parametrize(
    ("kind", "encoding", "status"), [("text/plain", "", 415), ("", "", 415), (JSON, "br", 415), (JSON, "x", 415)]
)
def test_other_encodings(kind, encoding, status):
    with pytest.raises(RefusedError) as caught:
        read_push(b"{}", kind, encoding)
    assert caught.value.status == status


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
REAL = json.loads(captured()[0])


def paths(tree, so_far=()):
    yield so_far
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from paths(value, (*so_far, key))


PATHS = [path for path in paths(REAL) if path]


def altered(path, value):
    tree = json.loads(captured()[0])
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return json.dumps(tree).encode()


LIKE_PUSHES = st.builds(altered, st.sampled_from(PATHS), LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(
    st.text(max_size=4), LEAVES, max_size=2))  # fmt: skip
ANYTHING = st.tuples(
    LIKE_PUSHES | st.binary(max_size=200) | st.recursive(LEAVES, st.lists).map(lambda tree: json.dumps(tree).encode()),
    st.sampled_from([JSON, "application/x-protobuf"]),
    st.sampled_from(["", "gzip"]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ANYTHING, min_size=1, max_size=12))
def test_no_garbage_crashes_or_changes_what_was_counted(requests):
    """Whatever comes for one engine, another's totals stand, every answer is 400 or a count, every scrape parses."""
    receiver = replayed(captured()[:3])
    before = {key: value for key, value in scrape(receiver).items() if ("engine", "ksana") in key}
    refused = 0
    for body, kind, encoding, packed in requests:
        try:
            got = read_push(gzip.compress(body) if packed and encoding else body, kind, encoding)
        except RefusedError as error:
            receiver.refuse(error)
            assert error.status in (400, 413)
            assert "\n" not in str(error)
            refused += 1
            continue
        points = len(got.points) + got.unread.total()
        dropped, _ = receiver.take("other", got)
        assert 0 <= dropped <= points
    samples = scrape(receiver)
    timed = ("_min", "_max", "_bucket")
    for key, value in before.items():
        if not key[0].endswith(timed):
            assert samples[key] == value, key
    assert (
        sum(value for (name, *_), value in samples.items() if name == "bakeoff_ksana_refused_pushes_total") == refused
    )


SENDS = st.lists(
    st.tuples(st.sampled_from(["next", "again", "skip", "overlap", "nan", "bytes"]), st.integers(0, 10**6))
)


@settings(max_examples=60, deadline=None)
@given(SENDS)
def test_totals_are_those_of_the_pushes_that_were_in_order(sends):
    """A sender with repeats, losses, overlaps, NaN and garbage between; told by what each push was made to be."""
    receiver, now, last, expected, told, refused = Receiver(), 100, b"", 0, {}, 0
    for what, value in sends:
        if what == "bytes":
            with pytest.raises(RefusedError):
                read_push(str(value).encode(), JSON, "")
            refused += 1
            continue
        if what == "again":
            if last:
                receiver.take("ksana", read_push(last, JSON, ""))
                told["duplicate"] = told.get("duplicate", 0) + 1
            continue
        start = {"skip": now + 1, "overlap": now - 0.5}.get(what, now)
        body = push(delta_sum("m", number(float("nan") if what == "nan" else value, start, now + 2)))
        receiver.take("ksana", read_push(body, JSON, ""))
        first = not last
        outcome = {"skip": "gap", "overlap": "overlapping", "nan": "not_finite"}.get(what, "added")
        if first and outcome in ("gap", "overlapping"):
            outcome = "added"
        told[outcome] = told.get(outcome, 0) + 1
        if outcome in ("added", "gap"):
            expected, now, last = expected + value, now + 2, body
    samples = scrape(receiver)
    assert by_name(samples).get("ksana_m_total", 0) == expected
    assert outcomes(samples) == told


@pytest.mark.parametrize("pods", [600, 1200])
def test_instances_that_come_and_go_for_an_hour_do_not_shut_out_new_ones(pods):
    receiver = Receiver()
    for pod in range(pods):
        body = push(delta_sum("req_num", number(1, pod, pod + 1)), **{"service.instance.id": f"pod-{pod}"})
        assert receiver.take("ksana", decode_json(body)) == (0, "")
    body = push(delta_sum("req_num", number(1, 4000, 4001)), **{"service.instance.id": "pod-new"})
    assert receiver.take("ksana", decode_json(body)) == (0, "")
    samples = scrape(receiver)
    assert samples["bakeoff_ksana_series",] == 500
    assert samples["bakeoff_ksana_forgotten_series_total",] == pods + 1 - 500
    assert ("ksana_req_num_total", ("engine", "ksana"), ("service_instance_id", "pod-new")) in samples


def of_two_ranks(pod, at):
    points = [number(1, at, at + 1, rank=rank) for rank in "01"]
    return push(delta_sum("m_num", *points), **{"service.instance.id": pod})


def named_in_its_points(pod, at):
    return push(delta_sum("m_num", number(1, at, at + 1, pod=pod)))


def with_a_histogram(pod, at):
    point = {**interval(at, at + 1), "count": "1", "sum": 2.0, "explicitBounds": [1.0], "bucketCounts": ["0", "1"]}
    return push(histogram("m_num", point), **{"service.instance.id": pod})


@pytest.mark.parametrize("made", [of_two_ranks, named_in_its_points, with_a_histogram])
def test_whatever_makes_instances_new_ones_find_room(made):
    receiver = Receiver(max_series=20)
    for place, pod in enumerate([*(f"pod-{n}" for n in range(50)), "new"]):
        assert receiver.take("ksana", decode_json(made(pod, 250 * place))) == (0, ""), pod
    samples = scrape(receiver)
    assert samples["bakeoff_ksana_series",] <= 20
    assert any("new" in dict(labels).values() for name, *labels in samples if name.startswith("ksana_m_num"))
    assert not [value for outcome, value in outcomes(samples).items() if outcome == "no_room" and value]


def test_instances_that_all_talk_leave_no_room_and_what_is_refused_is_counted():
    receiver = Receiver(max_series=2)
    for pod in range(3):
        body = push(delta_sum("req_num", number(1, pod, pod + 1)), **{"service.instance.id": f"pod-{pod}"})
        receiver.take("ksana", decode_json(body))
    assert scrape(receiver)["bakeoff_ksana_points_total", ("engine", "ksana"), ("outcome", "no_room")] == 1


def test_engines_that_are_silent_for_long_make_room_for_others(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("exporters.ksana.time.time", lambda: now)
    receiver = Receiver()
    for engine in range(MAX_ENGINES):
        receiver.check_engine(f"e{engine}")
        receiver.take(f"e{engine}", decode_json(push()))
    with pytest.raises(RefusedError, match="16 engines push already"):
        receiver.check_engine("new")
    now += 301
    receiver.take("e0", decode_json(push()))
    receiver.check_engine("new")
    assert "e1" not in receiver.engines and "e0" in receiver.engines


def test_two_who_push_as_one_engine_are_told():
    receiver = Receiver()
    for place, body in enumerate(captured()[:4]):
        receiver.take("ksana", decode_json(body), f"10.0.0.{place % 2}")
        receiver.take("other", decode_json(body), "10.0.0.9")
    told = {
        sample.labels["engine"]: sample.value
        for family in receiver.collect()
        for sample in family.samples
        if sample.name == "bakeoff_ksana_senders"
    }
    assert told == {"ksana": 2, "other": 1}
