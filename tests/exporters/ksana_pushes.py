"""The captured pushes, pushes of our own making, and what a scrape shows."""

import gzip
import json
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

FILE = Path(__file__).resolve().parents[1] / "data" / "ksana-c451219-otlp-pushes.jsonl.gz"
SECOND = 10**9


def captured() -> list[bytes]:
    """78 pushes of a real KsanaLLM, in order."""
    with gzip.open(FILE) as lines:
        return [line.strip() for line in lines]


def attributes(**values):
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def number(value, start, end, **labels):
    """A point in JSON; times in s."""
    field = "asInt" if isinstance(value, int) else "asDouble"
    return {field: value, **interval(start, end), "attributes": attributes(**labels)}


def interval(start, end):
    return {"startTimeUnixNano": str(int(start * SECOND)), "timeUnixNano": str(int(end * SECOND))}


def delta_sum(name, *points, monotonic=True, temporality=1):
    return {
        "name": name,
        "sum": {"aggregationTemporality": temporality, "isMonotonic": monotonic, "dataPoints": list(points)},
    }


def histogram(name, *points, temporality=1):
    return {"name": name, "histogram": {"aggregationTemporality": temporality, "dataPoints": list(points)}}


def push(*metrics, **resource):
    """A request's body in JSON."""
    scoped = [{"scope": {"name": "s"}, "metrics": list(metrics)}]
    group = {"resource": {"attributes": attributes(**resource)}, "scopeMetrics": scoped}
    return json.dumps({"resourceMetrics": [group]}).encode()


def parsed(text):
    """{(sample, (label, value)...): value} of a scrape; no sample may be there twice."""
    found = {}
    for family in parse_text(text):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def by_name(samples):
    """{sample name: value} of `ksana_*` samples; a name that occurs several times is summed up."""
    found = {}
    for (name, *_), value in samples.items():
        if name.startswith("ksana_"):
            found[name] = found.get(name, 0) + value
    return found


def scrape(receiver):
    """What a scrape of a receiver shows; both formats must be well formed."""
    registry = CollectorRegistry()
    registry.register(receiver)
    list(parse_openmetrics(generate_openmetrics(registry).decode()))
    return parsed(generate_latest(registry).decode())


def outcomes(samples):
    """{outcome: points} of a scrape."""
    return {dict(labels)["outcome"]: value for (name, *labels), value in samples.items()
            if name == "bakeoff_ksana_points_total"}  # fmt: skip
