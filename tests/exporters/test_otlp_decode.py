"""Bodies to points."""

import json

import pytest
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from exporters.otlp_decode import Distribution, MalformedError, decode_json, decode_protobuf
from tests.exporters.ksana_pushes import attributes, captured, delta_sum, histogram, interval, number, push


def snake(tree):
    """The same tree with snake_case keys, and whole numbers where strings of digits were."""
    if isinstance(tree, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in key): snake(value) for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [snake(value) for value in tree]
    return int(tree) if isinstance(tree, str) and tree.isdigit() else tree


def test_every_encoding_of_the_captured_pushes_gives_the_same_points():
    total = 0
    for body in captured():
        push = decode_json(body)
        assert decode_json(json.dumps(snake(json.loads(body))).encode()) == push
        assert decode_protobuf(Parse(body, ExportMetricsServiceRequest()).SerializeToString()) == push
        total += len(push.points)
    assert total == 2150


def test_a_histogram_is_read_in_full():
    point = next(point for point in decode_json(captured()[0]).points if point.stream.name == "total_latency_us")
    assert point.stream.attributes == (("instance", "h200"), ("version", "c451219-cut"))
    assert ("service.name", "unknown_service") in point.stream.resource
    assert (point.start_ns, point.time_ns) == (1795352112873559489, 1795352116875217284)
    assert isinstance(point.value, Distribution)
    assert (point.value.count, point.value.sum, point.value.min, point.value.max) == (4, 592191, 120558, 228812)
    assert point.value.buckets == (0,) * 15 + (4,)
    assert point.value.bounds[-1] == 10000


@pytest.mark.parametrize(
    "body", [b"{}", b'{"resourceMetrics":[]}', push(), push({"name": "idle"}), push(delta_sum("x"))]
)
def test_pushes_without_points_are_normal(body):
    assert decode_json(body).points == ()


def test_a_64_bit_integer_keeps_every_digit():
    for value in (9007199254740993, "9007199254740993"):
        body = push(delta_sum("x", {"asInt": value, **interval(1, 2)}))
        assert decode_json(body).points[0].value == 9007199254740993


def test_what_is_not_a_number_is_read_as_such():
    body = push(delta_sum("x", *({"asDouble": value} for value in (float("nan"), "NaN", float("inf"), None))))
    values = [point.value for point in decode_json(body).points]
    assert [str(value) for value in values] == ["nan", "nan", "inf", "None"]


def test_a_point_that_says_it_has_no_value():
    assert decode_json(push(delta_sum("x", {**number(5, 1, 2), "flags": 1}))).points[0].value is None


def test_kinds():
    gauge = {"name": "g", "gauge": {"dataPoints": [number(1.5, 0, 2)]}}
    exponential = {"name": "e", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [
        {"count": 3, "sum": 6.0, "scale": 2, "positive": {"bucketCounts": [1, 2]}, **interval(1, 2)}]}}  # fmt: skip
    got = decode_json(
        push(
            gauge,
            exponential,
            delta_sum("c", number(1, 1, 2)),
            delta_sum("u", number(-1, 1, 2), monotonic=False),
            delta_sum("v", number(7, 1, 2), monotonic=False, temporality=2),
            delta_sum("cumulative", number(1, 1, 2), number(2, 1, 2), temporality=2),
            histogram("h2", {"count": 1, "sum": 1.0}, temporality=2),
            {"name": "s", "summary": {"dataPoints": [{"count": 1}]}},
        )
    )
    kinds = {point.stream.name: point.stream.kind for point in got.points}
    assert kinds == {"g": "gauge", "e": "histogram", "c": "counter", "u": "updown", "v": "gauge"}
    assert got.points[1].value == Distribution(3, 6.0, None, None)
    assert got.unread == {"not_delta": 3, "unsupported": 1}


def test_attributes_of_every_type_are_text():
    values = [{"stringValue": "a"}, {"boolValue": True}, {"intValue": "7"}, {"doubleValue": 0.5},
              {"arrayValue": {"values": [{"intValue": "1"}]}}, {}]  # fmt: skip
    pairs = [{"key": f"k{index}", "value": value} for index, value in enumerate(values)]
    point = decode_json(push(delta_sum("x", {**number(1, 1, 2), "attributes": pairs}))).points[0]
    texts = [text for _, text in point.stream.attributes]
    assert texts[:4] == ["a", "true", "7", "0.5"]
    assert texts[4].startswith("{") and texts[5] == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[1]",
        b"1",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"resourceMetrics": 1}',
        b'{"resource": []}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"resourceMetrics":' + b'[{"x":' * 3 + b"1",
        b'{"resource_metrics":[], "resourceMetrics":[{"resource":{"attributes":[{"key":"\\ud800"}]}}]}',
        push(delta_sum("x", {"asInt": 10**30})),
        push(delta_sum("x", {"asInt": 1.5})),
        push(delta_sum("x", {"asInt": "a", "attributes": attributes(a="b")})),
        push(histogram("x", {"count": -1})),
    ],
)
def test_what_is_no_request_is_explained_in_one_line(body):
    with pytest.raises(MalformedError) as caught:
        decode_json(body)
    assert 0 < len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"\x0a\xff",
        b"\x0a\x05abc",
        # These parse: a field 2 of the request, and below it of each part, none of which has one of that type.
        b"\x12\x01x",
        b"\x0a\x02\x10\x01",
        b"\x0a\x04\x12\x02\x18\x01",
        b"\x0a\x06\x12\x04\x12\x02\x20\x01",
    ],
)
def test_what_is_no_protobuf(body):
    with pytest.raises(MalformedError, match="protobuf"):
        decode_protobuf(body)


def test_a_newer_senders_fields_beside_known_ones_are_passed_over():
    request = Parse(push(delta_sum("x", number(3, 1, 2))), ExportMetricsServiceRequest()).SerializeToString()
    assert decode_protobuf(request + b"\xa2\x06\x03new").points == decode_protobuf(request).points
    body = json.loads(push(delta_sum("x", number(3, 1, 2))))
    assert decode_json(json.dumps({**body, "newer": [1]}).encode()) == decode_protobuf(request)


@given(st.lists(st.tuples(st.integers(2, 15), st.binary(max_size=20)), min_size=1))
def test_fields_that_a_request_does_not_have_make_none(fields):
    """Each is its number with wire type 2, its length and its bytes; a request has field 1 alone."""
    body = b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in fields)
    with pytest.raises(MalformedError, match="none of its fields"):
        decode_protobuf(body)
