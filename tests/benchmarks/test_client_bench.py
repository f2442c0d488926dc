"""`make bench-client`'s command as a user runs it, in its small form: Bakeoff alone."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.client.cli import options
from benchmarks.client.peer_environment import PeerEnvironment
from benchmarks.client.results import Store
from loadgen.errors import UserError
from tests.loadgen.bench.races import LIMIT_S, TOP, environment

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the simulator needs Linux")


def start(*arguments: str) -> psutil.Popen:
    command = [sys.executable, "-m", "benchmarks.client", *arguments]
    return psutil.Popen(command, cwd=TOP, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@LINUX
@pytest.mark.integration
def test_every_request_joins_the_truth_and_gives_a_full_row(tmp_path):
    output = tmp_path / "table.md"
    process = start("--self-only", "--results", str(tmp_path / "results"), "--output", str(output))
    out = process.communicate(timeout=LIMIT_S)[0].decode()
    assert process.returncode == 0, out
    paced, blast = Store(tmp_path / "results").load("bakeoff", None).runs
    # 4 streams of 3 requests, each stream's first left out; then whatever went on until all had ended.
    assert (paced.load, blast.load) == ("4", "blast")
    assert paced.requests >= 8 and blast.requests >= 8
    for run in (paced, blast):
        assert run.error is None and run.peak_mb and run.ttft_p50_ms is not None and run.ttft_p99_ms is not None
    assert paced.tpot_p50_percent is not None and paced.tpot_mean_percent is not None and paced.cpu_us_per_event
    assert "Bakeoff" in out and "| Bakeoff" in output.read_text() and "Traceback" not in out
    assert not list((tmp_path / "results" / "work").iterdir())


@LINUX
@pytest.mark.integration
def test_an_interrupt_keeps_what_was_measured_leaves_no_process_and_can_be_resumed(tmp_path):
    arguments = ("--self-only", "--repeats", "2", "--results", str(tmp_path))
    process = start(*arguments)
    store = Store(tmp_path)
    deadline = time.monotonic() + LIMIT_S
    while not store.load("bakeoff", None).runs or len(children := process.children(recursive=True)) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    out = process.communicate(timeout=LIMIT_S)[0].decode()
    assert process.returncode == 130 and "Traceback" not in out and "--resume" in out, out
    assert psutil.wait_procs(children, timeout=120)[1] == []
    kept = store.load("bakeoff", None).runs
    assert kept and all(run.error is None for run in kept)

    process = start(*arguments, "--resume")
    out = process.communicate(timeout=LIMIT_S)[0].decode()
    assert process.returncode == 0, out
    runs = store.load("bakeoff", None).runs
    assert sorted((run.load, run.repeat) for run in runs) == [("4", 0), ("4", 1), ("blast", 0), ("blast", 1)]
    assert kept[0] in runs


def test_a_peer_that_cannot_be_set_up_says_why(monkeypatch, tmp_path):
    module = "benchmarks.client.peer_environment"
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "broken.txt").write_text("bakeoff-no-such-package==0\n")
    monkeypatch.setattr(f"{module}.REQUIREMENTS", requirements)
    monkeypatch.setattr(f"{module}.STATE", tmp_path / "peers")
    monkeypatch.setattr(f"{module}.CHECKOUT", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="Installing broken failed") as caught:
        PeerEnvironment("broken", gigabytes=0.1).ensure()
    assert "bakeoff-no-such-package" in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [["--only", "nobody"], ["--streams", "0"], ["--streams", "many"], ["--repeats", "0"], ["--self-only", "--quick"]],
)
def test_wrong_usage_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        options(arguments)
    assert end.value.code == 2 and "error:" in capsys.readouterr().err
