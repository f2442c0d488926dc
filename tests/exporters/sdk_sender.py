"""Measure with OpenTelemetry's SDK; push deltas to a URL (argument 1), print the Prometheus reader's scrape."""

import random
import sys

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from prometheus_client import REGISTRY, generate_latest

url, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
delta = dict.fromkeys((Counter, Histogram, UpDownCounter), AggregationTemporality.DELTA)
pushing = PeriodicExportingMetricReader(
    OTLPMetricExporter(endpoint=url, preferred_temporality=delta), export_interval_millis=3_600_000
)
chosen = ExplicitBucketHistogramAggregation(boundaries=[1000.0, 5000.0, 20000.0, 1e6])
provider = MeterProvider(
    [pushing, PrometheusMetricReader()], Resource({}), views=[View(instrument_name="latency", aggregation=chosen)]
)
meter = provider.get_meter("oracle")
tokens, active = meter.create_counter("tokens"), meter.create_up_down_counter("active")
latency, wait = meter.create_histogram("latency", unit="us"), meter.create_histogram("wait", unit="us")
for _ in range(12):
    for _ in range(random.choice((0, 0, 5, 200))):
        labels = {"instance": random.choice("ab"), "version": "1"}
        tokens.add(random.randrange(1000), labels)
        active.add(random.randrange(-3, 4), labels)
        latency.record(random.uniform(0, 1e5), labels)
        wait.record(random.lognormvariate(9, 2), labels)
    assert pushing.force_flush()
print(generate_latest(REGISTRY).decode())
provider.shutdown()
