"""What each peer wrote, captured from real runs beside the simulator's truth log of the same run.

2 streams of 3 requests, 4 tokens each. GuideLLM's file is cut to its requests; nothing in them was changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.client.errors import compare
from benchmarks.client.loads import Load
from benchmarks.client.peer import Job
from benchmarks.client.peers import PEERS

DATA = Path(__file__).parents[1] / "data" / "client-benchmark"
WALL_OFFSET_S = 1795352662.674366
"""Of the machine at the capture."""
LOAD = Load("2", 2, 3, tokens=4)
BY_NAME = {peer.name: peer for peer in PEERS}
CAPTURED = sorted(path.name for path in DATA.iterdir())


def truth_of(name: str) -> dict[str, Any]:
    with np.load(DATA / name / "truth.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def slow_truth(truth: dict[str, Any]) -> list[tuple[float, float]]:
    """TTFT and TPOT of each request in s, in order of arrival, found the long way."""
    found = []
    for number in sorted(range(6), key=lambda n: truth["request_t_arrived"][n]):
        writes = [
            (int(truth["event_before"][row]) + int(truth["event_after"][row])) / 2e9
            for row in range(len(truth["event_kind"]))
            if truth["event_request"][row] == number and truth["event_kind"][row] & 2
        ]
        assert len(writes) == 4
        found.append((writes[0] - truth["request_t_arrived"][number] / 1e9, (writes[-1] - writes[0]) / 3))
    return found


@pytest.mark.parametrize("name", CAPTURED)
def test_each_peers_own_figures_join_the_truth(name):
    measured = BY_NAME[name].read(DATA / name, WALL_OFFSET_S)
    assert len(measured) == 6
    truth = truth_of(name)
    errors = compare(measured, truth, LOAD)
    assert len(errors.ttft_ms) == 4  # without each stream's first
    expected = slow_truth(truth)[2:]
    own = sorted(measured, key=lambda one: one.t_send)[2:]
    # Both orders are the same here, and all tools are late, never early.
    assert errors.ttft_ms == pytest.approx(
        [1e3 * (one.ttft_s - true) for one, (true, _) in zip(own, expected, strict=True)]
    )
    assert errors.tpot_ms == pytest.approx(
        [1e3 * (one.tpot_s - true) for one, (_, true) in zip(own, expected, strict=True)]
    )
    assert (errors.ttft_ms > 0).all() and (errors.ttft_ms < 10).all()
    assert (np.abs(errors.tpot_percent) < 10).all()
    assert errors.true_tpot_ms == pytest.approx(10, abs=1)


def test_figures_are_those_that_the_tools_print():
    """Spelled out from the files themselves."""
    result = json.loads((DATA / "vllm" / "result.json").read_text())
    measured = BY_NAME["vllm"].read(DATA / "vllm", 0.0)
    assert [one.ttft_s for one in measured] == result["ttfts"]
    assert 1e3 * np.median([one.tpot_s for one in measured]) == pytest.approx(result["median_tpot_ms"])
    assert [one.request_id for one in measured] == [f"bench-{number}" for number in range(6)]
    assert not set(truth_of("vllm")["request_id"]) - {one.request_id for one in measured}

    requests = json.loads((DATA / "inference-perf" / "per_request_lifecycle_metrics.json").read_text())
    first = BY_NAME["inference-perf"].read(DATA / "inference-perf", 0.0)[0]
    gaps = requests[0]["computed_metrics"]["inter_token_latencies"]
    assert first.tpot_s == pytest.approx(sum(gaps) / 3)

    (line, *_) = (DATA / "openai-sdk" / "records.jsonl").read_text().splitlines()
    assert BY_NAME["openai-sdk"].read(DATA / "openai-sdk", 0.0)[0].request_id == json.loads(line)["id"]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_commands_ask_for_the_load_and_write_into_the_folder(peer, tmp_path):
    job = Job("http://127.0.0.1:9", Load("7", 7, 5, tokens=33), tmp_path, tmp_path / "tokenizer", tmp_path / "prompts")
    words = " ".join(peer.command(Path("/somewhere/python"), job)) + json.dumps(peer.variables(job))
    words += "".join(file.read_text() for file in tmp_path.iterdir())
    assert job.url in words and "7" in words and str(tmp_path) in words
    assert "33" in words or str(job.prompts) in words  # the prompts' file has the lengths too
    assert peer.title and peer.what and peer.packages


def test_names_are_different_and_requirements_pin_versions():
    assert len(BY_NAME) == len(PEERS)
    files = sorted((Path(__file__).parents[2] / "benchmarks" / "client" / "requirements").glob("*.txt"))
    assert files
    for file in files:
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        assert lines and all("==" in line for line in lines), file
