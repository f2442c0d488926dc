"""vLLM's own scheduler, played once (`python -m benchmarks.schedulers --golden`), and ours on the same loads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.schedulers.load import cases, first_difference, simulated

GOLDEN = json.loads(gzip.decompress((Path(__file__).parents[2] / "data/vllm-0.32.0-scheduler.json.gz").read_bytes()))
SETTINGS = [
    f"{'caching' if ways & 1 else 'plain'}-{'chunks' if ways & 2 else 'whole'}-{'tight' if ways & 4 else 'ample'}"
    for ways in range(8)
]


@pytest.mark.parametrize("number", range(8), ids=SETTINGS)
def test_each_step_is_the_real_schedulers(number):
    assert first_difference(simulated(GOLDEN["loads"][number], "vllm"), GOLDEN["traces"][number]) is None


def test_the_recorded_loads_show_what_they_are_for():
    traces = GOLDEN["traces"]
    assert sum(map(len, traces)) > 500
    assert sum(len(step[2]) for trace in traces[4:] for step in trace) > 5, "preemptions"
    first = [trace[0][0] for trace in traces]
    assert all(first)
    assert cases(range(1), 12) == GOLDEN["loads"], "the loads are those that a comparison would play"


def test_a_difference_is_told():
    trace = GOLDEN["traces"][0]
    other = json.loads(json.dumps(trace))
    other[3][3] += 1
    assert first_difference(other, trace) == f"step 3, blocks: {other[3][3]} here, {trace[3][3]} there"
    assert first_difference(trace[:-1], trace) == f"{len(trace) - 1} steps here, {len(trace)} there"
    assert first_difference(simulated(GOLDEN["loads"][7], "ksana"), GOLDEN["traces"][7]) is not None
