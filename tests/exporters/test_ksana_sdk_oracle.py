"""OpenTelemetry's own SDK measures once and exports twice: by delta to us, and cumulative to its Prometheus reader."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exporters.ksana_pushes import parsed
from tests.exporters.test_ksana_exporter import exporter  # noqa: F401

SENDER = Path(__file__).with_name("sdk_sender.py")


def ours(samples):
    """Our samples by the names of the SDK's Prometheus reader, without `engine`."""
    found = {}
    for (name, *labels), value in samples.items():
        if name.startswith("ksana_") and not name.endswith(("_min", "_max")):
            found[name.removeprefix("ksana_"), *(label for label in labels if label[0] != "engine")] = value
    return found


def theirs(samples):
    """The reader's samples without its own labels; microseconds become seconds."""
    found = {}
    for (name, *labels), value in samples.items():
        kept = [label for label in labels if not label[0].startswith("otel_scope")]
        if name == "target_info" or name.startswith(("python_", "process_")) or name.endswith("_created"):
            continue
        if "_microseconds" in name:
            name = name.replace("_microseconds", "_seconds")
            if name.endswith("_sum"):
                value /= 1e6
            kept = [(key, str(float(text) / 1e6)) if key == "le" else (key, text) for key, text in kept]
        found[name, *kept] = value
    return found


def with_equal_bounds(samples):
    """`le` as numbers: the two libraries write them differently."""
    return {
        (name, *sorted((key, float(text) if key == "le" else text) for key, text in labels)): value
        for (name, *labels), value in samples.items()
    }


@pytest.mark.integration
@pytest.mark.parametrize(("compression", "seed"), [("none", 1), ("gzip", 2)])
def test_both_scrapes_agree(exporter, compression, seed):  # noqa: F811
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_COMPRESSION": compression}
    result = subprocess.run(
        [sys.executable, SENDER, f"http://127.0.0.1:{exporter.port}/v1/metrics", str(seed)],
        env=environment, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    got, expected = with_equal_bounds(ours(exporter.samples())), with_equal_bounds(theirs(parsed(result.stdout)))
    unresolved = [key for key in expected if key[0].startswith("wait") and key[0].endswith("_bucket")]
    assert unresolved, "the SDK's default bounds are in play"
    for key in unresolved:
        del expected[key]
    assert len(expected) == 22
    assert set(got) == set(expected)
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, rel=1e-9), key
