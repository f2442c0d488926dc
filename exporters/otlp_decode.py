"""OTLP metrics requests, as JSON or protobuf, to plain points.

Protocol: https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP). Google's own reader takes the JSON: it knows camelCase
and snake_case keys, 64-bit integers as numbers and as strings, and fields that are newer than it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

Attributes = tuple[tuple[str, str], ...]
Kind = Literal["counter", "updown", "gauge", "histogram"]
"""A monotonic sum of deltas, any other sum of deltas, a value of its own, a distribution in deltas."""

Unread = Literal["not_delta", "unsupported"]
NOT_DELTA: Final = "not_delta"
UNSUPPORTED: Final = "unsupported"
REQUEST_KEYS = frozenset({"resourceMetrics", "resource_metrics"})


class MalformedError(ValueError):
    """A body that is no OTLP metrics request; says why in one line."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Whose points these are: the identity of a metric stream in OpenTelemetry's data model."""

    resource: Attributes
    scope: str
    name: str
    unit: str
    kind: Kind
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram's interval holds. Bucket i counts bounds[i-1] < value <= bounds[i]."""

    count: int
    sum: float | None
    min: float | None
    max: float | None
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """One data point, in the sender's unit; times are ns since 1970, 0 where the sender gives none."""

    stream: Stream
    start_ns: int
    time_ns: int
    value: int | float | Distribution | None
    """None: the sender says that it has no value."""


@dataclass(frozen=True, slots=True)
class Push:
    """What one request carries."""

    points: tuple[Point, ...]
    unread: Counter[str]
    """Points of a sort that is not read, by NOT_DELTA and UNSUPPORTED."""


def decode_json(body: bytes) -> Push:
    """Read a request of content type application/json. Raises MalformedError."""
    try:
        # NaN and Infinity are bare words from some senders, and strings in protobuf's JSON.
        tree = json.loads(body, parse_constant=str)
        if not isinstance(tree, dict):
            raise MalformedError(f"the JSON is a {type(tree).__name__}, not an object")
        if tree and not tree.keys() & REQUEST_KEYS:
            raise MalformedError("the JSON object has no resourceMetrics")
        return read_request(ParseDict(tree, ExportMetricsServiceRequest(), ignore_unknown_fields=True))
    except RecursionError:
        raise MalformedError("the JSON is nested too deeply") from None
    except (ParseError, ValueError, TypeError) as error:
        raise MalformedError(f"not a metrics request in JSON: {_one_line(error)}") from None


def decode_protobuf(body: bytes) -> Push:
    """Read a request of content type application/x-protobuf. Raises MalformedError.

    Other bytes can parse too, as fields that OTLP does not have; a newer sender has such fields only beside known ones.
    """
    try:
        return read_request(ExportMetricsServiceRequest.FromString(body))
    except (DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"not a metrics request in protobuf: {_one_line(error)}") from None


def read_request(request: ExportMetricsServiceRequest) -> Push:
    """Plain points of a request. A metric that has only a name, or a push that has none, is no error.

    Raises MalformedError for a part that has bytes and no field of its own.
    """
    points: list[Point] = []
    unread: Counter[str] = Counter()
    _refuse_strange(request)
    for group in request.resource_metrics:
        _refuse_strange(group)
        resource = _attributes(group.resource.attributes)
        for scoped in group.scope_metrics:
            _refuse_strange(scoped)
            scope = f"{scoped.scope.name} {scoped.scope.version}"
            for metric in scoped.metrics:
                _refuse_strange(metric)
                kind = _kind(metric)
                if kind is None:
                    continue
                if kind == NOT_DELTA or kind == UNSUPPORTED:  # noqa: PLR1714, SIM109 - mypy narrows by these
                    unread[kind] += len(_points(metric))
                else:
                    points += _read_metric(metric, kind, resource, scope)
    return Push(tuple(points), unread)


def _refuse_strange(part: Message) -> None:
    if not part.ListFields() and part.ByteSize():
        raise MalformedError(f"not a metrics request in protobuf: a {part.DESCRIPTOR.name} has none of its fields")


def _kind(metric: Metric) -> Kind | Unread | None:
    """What sort of metric it is; None for one that has a name and nothing else."""
    data = metric.WhichOneof("data")
    if data is None or data == "gauge":
        return data
    if data == "summary":
        return UNSUPPORTED
    temporality = getattr(metric, data).aggregation_temporality
    if data == "sum" and not metric.sum.is_monotonic and temporality == AGGREGATION_TEMPORALITY_CUMULATIVE:
        return "gauge"  # an up-and-down counter's value now, whenever it began
    if temporality != AGGREGATION_TEMPORALITY_DELTA:
        return NOT_DELTA
    if data == "sum":
        return "counter" if metric.sum.is_monotonic else "updown"
    return "histogram"


def _points(metric: Metric) -> Sequence[NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint]:
    found: Sequence[Any] = getattr(metric, metric.WhichOneof("data") or "gauge").data_points
    return found


def _read_metric(metric: Metric, kind: Kind, resource: Attributes, scope: str) -> Iterator[Point]:
    for point in _points(metric):
        stream = Stream(resource, scope, metric.name, metric.unit, kind, _attributes(point.attributes))
        value: int | float | Distribution | None
        if point.flags & DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
            value = None
        elif isinstance(point, NumberDataPoint):
            field = point.WhichOneof("value")
            value = getattr(point, field) if field else None
        else:
            value = _distribution(point)
        yield Point(stream, point.start_time_unix_nano, point.time_unix_nano, value)


def _distribution(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> Distribution:
    # An exponential histogram's buckets are not read; what it sums up is.
    return Distribution(
        count=point.count,
        sum=point.sum if point.HasField("sum") else None,
        min=point.min if point.HasField("min") else None,
        max=point.max if point.HasField("max") else None,
        bounds=tuple(point.explicit_bounds) if isinstance(point, HistogramDataPoint) else (),
        buckets=tuple(point.bucket_counts) if isinstance(point, HistogramDataPoint) else (),
    )


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return tuple(sorted((pair.key, _text(pair.value)) for pair in pairs))


def _text(value: AnyValue) -> str:
    field = value.WhichOneof("value")
    if field is None:
        return ""
    if field == "bool_value":
        return str(value.bool_value).lower()
    if field in ("string_value", "int_value", "double_value"):
        return str(getattr(value, field))
    return json.dumps(MessageToDict(value), sort_keys=True)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
