"""Spoilt pushes to a KsanaLLM exporter's receiver: bytes as they come, JSON and protobuf, plain and packed."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.security.mutations import spoil_bytes, spoil_values
from exporters.ksana import Receiver
from exporters.otlp_http import RefusedError, read_push
from exporters.web import Collected

JSON, PROTOBUF = "application/json", "application/x-protobuf"


def good_push() -> dict[str, object]:
    """One that has all that a push may have."""
    times = {"startTimeUnixNano": "1700000000000000000", "timeUnixNano": "1700000001000000000"}
    own = {
        **times,
        "attributes": [{"key": "k", "value": {"stringValue": "v"}}, {"key": "n", "value": {"intValue": "1"}}],
    }
    spread = {"count": "3", "sum": 6.0, "min": 1.0, "max": 3.0}
    metrics = [
        {"name": "a", "unit": "us", "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [own]}},
        {"name": "b", "gauge": {"dataPoints": [{**own, "asDouble": 1.5}, {**times, "asInt": "7"}]}},
        {
            "name": "c_us",
            "histogram": {
                "aggregationTemporality": 1,
                "dataPoints": [{**own, **spread, "bucketCounts": ["1", "2", "0"], "explicitBounds": [1.0, 2.0]}],
            },
        },
        {"name": "d", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [{**times, **spread}]}},
        {"name": "e", "summary": {"dataPoints": [{**times, "count": "1", "sum": 1.0}]}},
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "ksana"}}]}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {"name": "s"}, "metrics": metrics}]}]}


def run(count: int) -> dict[str, object]:
    """Push them, and scrape now and then. Raises whatever is neither taken nor refused."""
    source, good, receiver = random.Random(1), good_push(), Receiver()
    packed = ParseDict(good, ExportMetricsServiceRequest()).SerializeToString()
    text = json.dumps(good).encode()
    registry = CollectorRegistry()
    registry.register(Collected(receiver.collect))
    outcomes: Counter[str] = Counter()
    for number in range(count):
        kind = source.choice((JSON, PROTOBUF))
        if kind == JSON and source.random() < 0.5:
            body = json.dumps(spoil_values(source, good), default=str).encode()
        else:
            body = spoil_bytes(source, text if kind == JSON else packed)
        encoding = source.choice(("", "", "gzip"))
        if encoding:
            body = gzip.compress(body, 1)
            body = spoil_bytes(source, body) if source.random() < 0.3 else body
        try:
            receiver.take(f"e{number % 3}", read_push(body, kind, encoding))
            outcomes["taken"] += 1
        except RefusedError as error:
            receiver.refuse(error)
            outcomes[error.reason] += 1
        if number % 1000 == 0:
            generate_latest(registry)
    return {"outcomes": dict(outcomes), "bytes of a scrape": len(generate_latest(registry))}
