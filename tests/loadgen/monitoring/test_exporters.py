"""Exporters that died in a race, as Prometheus tells it."""

from __future__ import annotations

import json

import pytest

from loadgen.monitoring.exporters import silent_exporters
from tests.fake_prometheus import FakePrometheus


@pytest.fixture
def prometheus():
    server = FakePrometheus()
    yield server
    server.stop()


def answer_with(**up: list[int]):
    result = [
        {
            "metric": {"job": job.replace("_", "-")},
            "values": [[1000.0 + at, str(value)] for at, value in enumerate(values)],
        }
        for job, values in up.items()
    ]
    body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
    return lambda query: (200, body)


def test_what_was_silent_is_told_with_when_and_for_how_long(prometheus):
    prometheus.answer = answer_with(
        ksana_exporter=[1] * 60, engine_exporter=[1] * 35 + [0] * 25, gpu_exporter=[1] * 50 + [0] * 9 + [1]
    )
    (told,) = silent_exporters(prometheus.url, 1000.0, 1060.0)
    assert str(told).startswith("engine-exporter gave no metrics for 25 s, first 35 s after this stretch")
    (query,) = prometheus.asked
    assert query["query"] == 'up{job=~".+-exporter"}' and float(query["step"]) == 1.0


def test_nobody_to_ask_is_no_silence(prometheus):
    prometheus.answer = lambda query: (500, b"{}")
    assert silent_exporters(prometheus.url, 1000.0, 1060.0) == []
    assert silent_exporters(None, 1000.0, 1060.0) == []
