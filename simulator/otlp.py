"""The shape of KsanaLLM's metrics push: OTLP/HTTP JSON with delta temporality, as its commit c451219 sends it.

camelCase keys, 64-bit integers as strings, OpenTelemetry's default bounds for everything, and metrics that had nothing
to report keep their name and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

BOUNDS = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0)
DELTA = 1
SCOPE = {"name": "ksana_inference_metrics", "version": "1.2.0"}
# In the order in which KsanaLLM pushes them; True: a sum, False: a histogram.
METRICS: tuple[tuple[str, bool], ...] = (
    ("total_latency_us", False),
    ("forwarding_time_rate", False),
    ("input_token_len", False),
    ("schedule_time_us", True),
    ("forwarding_time_us", True),
    ("computed_token_num", True),
    ("computed_output_token_num", True),
    ("first_step_time_us", False),
    ("computed_input_token_num", True),
    ("forward_req_total_num", True),
    ("time_to_first_token_us", False),
    ("batch_scheduler_swapped_queue_time_us", False),
    ("batch_scheduler_batch_size_0", False),
    ("batch_scheduler_batch_size", False),
    ("second_step_time_us", False),
    ("forwarding_token_num", True),
    ("batch_scheduler_waiting_queue_time_us", False),
    ("output_token_len", False),
    ("batch_scheduler_transfer_queue_time_us", False),
    ("local_token_throughput", False),
    ("batch_scheduler_time_us", False),
    ("step_tokens_to_schedule", False),
    ("batch_scheduler_running_queue_time_us", False),
    ("batch_scheduler_waiting_size_0", False),
    ("global_token_throughput", False),
    ("batch_scheduler_waiting_size", False),
    ("batch_manager_schedule_us", False),
    ("inter_token_interval_latency_us", False),
    ("num_tokens_to_schedule", False),
    ("recompute_request_num", True),
    ("swapout_request_num", True),
)
UNTIL_SEEN = frozenset({"recompute_request_num", "swapout_request_num"})
"""Not pushed, not even by name, before they first have something to report."""
INDEX = {name: index for index, (name, _) in enumerate(METRICS)}


class Deltas:
    """What was observed since the last push."""

    def __init__(self, instance: str, version: str, start_ns: int) -> None:
        """`start_ns`: wall clock ns; the first interval begins there."""
        self._attributes = [
            {"key": "instance", "value": {"stringValue": instance}},
            {"key": "version", "value": {"stringValue": version}},
        ]
        self._since = start_ns
        self._first = True
        self._values: dict[int, list[float]] = {}
        self._hidden = set(UNTIL_SEEN)

    def observe(self, index: int, value: float) -> None:
        """Add a value to the metric `METRICS[index]`."""
        self._values.setdefault(index, []).append(value)

    def _point(self, now_ns: int) -> dict[str, Any]:
        return {
            "attributes": self._attributes,
            "startTimeUnixNano": str(self._since),
            "timeUnixNano": str(now_ns),
        }

    def _metric(self, index: int, now_ns: int) -> dict[str, Any]:
        name, is_sum = METRICS[index]
        values = self._values.get(index)
        if not values:
            return {"name": name}
        point = self._point(now_ns)
        if is_sum:
            point = {"asInt": str(round(sum(values))), **point}
            data = {"aggregationTemporality": DELTA, "dataPoints": [point], "isMonotonic": True}
            return {"name": name, "sum": data}
        buckets = [0] * (len(BOUNDS) + 1)
        for value in values:
            buckets[bisect_left(BOUNDS, value)] += 1
        point = {
            "attributes": self._attributes,
            "bucketCounts": [str(count) for count in buckets],
            "count": str(len(values)),
            "explicitBounds": list(BOUNDS),
            "max": float(max(values)),
            "min": float(min(values)),
            "startTimeUnixNano": point["startTimeUnixNano"],
            "sum": float(sum(values)),
            "timeUnixNano": point["timeUnixNano"],
        }
        return {"histogram": {"aggregationTemporality": DELTA, "dataPoints": [point]}, "name": name}

    def push(self, now_ns: int) -> dict[str, Any]:
        """Return the body of the push at `now_ns` and start the next interval. The first one carries no metrics."""
        resource = {
            "attributes": [
                {"key": "service.name", "value": {"stringValue": "unknown_service"}},
                {"key": "telemetry.sdk.version", "value": {"stringValue": "1.16.0"}},
                {"key": "telemetry.sdk.name", "value": {"stringValue": "opentelemetry"}},
                {"key": "telemetry.sdk.language", "value": {"stringValue": "cpp"}},
                *self._attributes,
            ]
        }
        body: dict[str, Any] = {"resource": resource}
        if not self._first:
            self._hidden -= {METRICS[index][0] for index in self._values}
            metrics = [self._metric(at, now_ns) for at, (name, _) in enumerate(METRICS) if name not in self._hidden]
            body["scopeMetrics"] = [{"metrics": metrics, "scope": SCOPE}]
            self._values.clear()
        self._first = False
        self._since = now_ns
        return {"resourceMetrics": [body]}
