import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.config import load_config, parse_fault
from simulator.errors import SimulatorError
from tests.simulator.client import CHECKOUT, completion, running


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "batching.bace_ms=5"], "did you mean base_ms"),
        (["--personality", "tgi"], "personality"),
        (["--fault", "explode"], "explode"),
        (["--fault", "spike:after=1"], "needs its length"),
        (["--ttft-jitter", "normal"], "KIND:MS"),
        (["--cpu", "4000"], "cpu 4000"),
        (["--truth", "log.txt"], ".jsonl"),
        (["--truth", "/nowhere/log.npz"], "/nowhere"),
        (["--config", "/nowhere.yaml"], "cannot be read"),
        (["--metrics-export-url", "http://127.0.0.1:1/v1/metrics"], "ksana"),
        (["--set", "batching.base_ms=0", "--set", "batching.prefill_us_per_token=0"], "take time"),
    ],
)
def test_a_bad_option_is_one_line(options: list[str], words: str) -> None:
    done = run("--port", "0", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot be listened on" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_says_above_what_load_it_is_no_oracle() -> None:
    text = " ".join(run("--help").stdout.split())
    assert "256 streams" in text
    assert "invalid: schedule missed" in text


def test_a_config_file_and_options_over_it(tmp_path: Path) -> None:
    path = tmp_path / "sim.yaml"
    path.write_text("timing: batching\nfixed: {ttft_ms: 7}\nfaults: [{kind: reset, after: 3}]\n", encoding="utf-8")
    cfg = load_config(path, [("fixed.tpot_ms", 3), ("timing", "fixed")])
    assert (cfg.timing, cfg.fixed.ttft_ms, cfg.fixed.tpot_ms, cfg.faults[0].after) == ("fixed", 7, 3, 3)
    path.write_text("timings: batching\n", encoding="utf-8")
    with pytest.raises(SimulatorError, match=r"sim\.yaml: timings: unknown key, did you mean timing\?"):
        load_config(path)
    path.write_text("- a\n", encoding="utf-8")
    with pytest.raises(SimulatorError, match="keys and values"):
        load_config(path)


def test_a_fault_is_read_from_text() -> None:
    fault = parse_fault("http:status=429,every=10")
    assert (fault.kind, fault.status, fault.every) == ("http", 429, 10)


@pytest.mark.parametrize("suffix", [".npz", ".jsonl"])
def test_sigterm_writes_the_truth_log(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"truth{suffix}"
    with running("--truth", str(path), "--ttft-ms", "1", "--tpot-ms", "1", "--lag-limit-ms", "600000") as simulator:
        simulator.ask("POST", "/v1/completions", completion(max_tokens=9), X_Request_Id="é".encode().decode("latin-1"))
        status, printed = simulator.stop()
    assert status == 0
    assert "valid: 1 requests, 10 writes" in printed
    if suffix == ".npz":
        with np.load(path) as log:
            assert log["event_tokens"].sum() == 9
            assert (log["event_after"] >= log["event_before"]).all()
            assert log["request_outcome"].tolist() == ["ok"]
            assert json.loads(str(log["summary"]))["verdict"] == "valid"
    else:
        head, request = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert head["summary"]["requests"] == 1
        assert len(request["events"]) == 10
