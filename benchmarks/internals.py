"""Race the experiments on engines' insides on two simulators, one that schedules as vLLM and one as KsanaLLM.

    python -m benchmarks.internals                              # all that a simulator can show
    python -m benchmarks.internals internals-eviction-circle
    python -m benchmarks.internals --virtual                    # in virtual time: no process, exact, seconds
    python -m benchmarks.internals --vllm .bakeoff/venvs/vllm/bin/python   # a real vLLM on this machine's CPU, alone
    python -m benchmarks.internals --vllm /opt/vllm/bin/python --gpu       # a real vLLM on a GPU, alone

All are set up as the scenario's `serving:` block says. Exit status 1 where a figure is not as predicted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import urllib3

from benchmarks.own_vllm import own_vllm
from benchmarks.simulated import command_line, simulator
from benchmarks.virtual import batching_settings, play
from loadgen.calibration.pinned_process import pinned_process
from loadgen.explain.block_figures import FIGURES
from loadgen.report import report_data
from loadgen.report.experiment import Finding, Outcome
from loadgen.runs.folder import RunFolder
from loadgen.scenario.file import load_scenario, shipped_scenarios
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import Serving

OF_FRONT_ENDS = {"internals-long-answer", "internals-long-answers"}
"""What they are about a simulator does not have."""
PUSH_MS = 200


def engines_of(scenario: Scenario) -> dict[str, str]:
    """The engines that race, and whose scheduler each has."""
    return {name: variant.engine for name, variant in scenario.variants.items()} or {"vllm": "vllm", "ksana": "ksana"}


def in_virtual_time(scenario: Scenario) -> Outcome:
    """Play an experiment on the schedulers themselves."""
    experiment = scenario.experiment
    if experiment is None:
        raise SystemExit(f"{scenario.name} is no experiment")
    engines, cell = engines_of(scenario), scenario.cells()[0]
    played = {name: play(scenario, name, kind, cell) for name, kind in engines.items()}
    first = next(iter(played.values())).records
    findings = []
    for figure, ranges in experiment.decides.items():
        for name, seen in played.items():
            if (expected := ranges.get(name) or ranges.get(engines[name])) is not None:
                low, high = expected
                value = FIGURES[figure](dataclasses.replace(seen, first=first))
                findings.append(Finding(name, figure, low, high, (value,)))
    return Outcome(experiment, tuple(findings))


def raced(scenario: Scenario, runs: Path) -> Outcome:
    """Race an experiment on simulators that are processes; the run is left in `runs`."""
    with contextlib.ExitStack() as stack:
        engines = engines_of(scenario)
        exporter = stack.enter_context(ksana_exporter()) if "ksana" in engines.values() else ""
        words = []
        for name, kind in engines.items():
            keys = batching_settings(kind, scenario.serving_of(name) or Serving())
            options = ["--personality", kind, "--timing", "batching"]
            options += [
                word for key, value in keys.items() for word in ("--set", f"batching.{key}={json.dumps(value)}")
            ]
            if kind == "ksana":
                push = f"{exporter}/{name}/v1/metrics"
                options += ["--metrics-export-url", push, "--metrics-export-interval-ms", str(PUSH_MS)]
            seat = f"{name}={stack.enter_context(simulator(*options, core=None))}"
            words += ["--engine", seat + (f",metrics={exporter}/metrics" if kind == "ksana" else "")]
        return _bench(scenario, words, runs)


def raced_on_vllm(scenario: Scenario, python: Path, runs: Path, *, gpu: bool) -> Outcome:
    """Race what an experiment says of vLLM on real ones of this machine; the run is left in `runs`."""
    with contextlib.ExitStack() as stack:
        words = []
        for name, kind in engines_of(scenario).items():
            if kind == "vllm":
                url = stack.enter_context(own_vllm(python, scenario.serving_of(name) or Serving(), gpu=gpu))
                words += ["--engine", f"{name}={url}"]
        return _bench(scenario, words, runs)


def _bench(scenario: Scenario, words: Sequence[str], runs: Path) -> Outcome:
    """Race the engines that `words` name, and see what came out."""
    command = [sys.executable, "-m", "loadgen", "bench", scenario.name, *words, "--runs-dir", str(runs)]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "folder"
        subprocess.run([*command, "--accept", "degenerate-text", "--tell-folder", str(told)], check=False)
        if not told.is_file():
            raise SystemExit(f"{scenario.name}: the race did not begin; what is wrong stands above")
        return found_in(Path(told.read_text(encoding="utf-8").strip()))


@contextlib.contextmanager
def ksana_exporter() -> Iterator[str]:
    """KsanaLLM's exporter; gives its URL."""
    port = next(filter(_is_free, range(21_000, 21_200)))
    url = f"http://127.0.0.1:{port}"
    with pinned_process([sys.executable, "-m", "exporters.ksana", "--port", str(port), "--log-level", "error"]):
        for _ in range(200):
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if urllib3.request("GET", f"{url}/healthz", retries=False).status == 200:
                    break
            time.sleep(0.05)
        yield url


def _is_free(port: int) -> bool:
    with socket.socket() as tried, contextlib.suppress(OSError):
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(("127.0.0.1", port))
        return True
    return False


def found_in(folder: Path) -> Outcome:
    """What a run shows."""
    outcome = report_data(RunFolder(folder), prometheus_url=None).experiment
    if outcome is None:
        raise SystemExit(f"{folder} is the run of no experiment")
    return outcome


def main() -> int:
    """Race them, print what came out."""
    parser = command_line(__doc__)
    shipped = shipped_scenarios("internals")
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments (default: all that can be simulated)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--virtual", action="store_true", help="play them in virtual time")
    how.add_argument("--vllm", type=Path, metavar="PYTHON", help="race a real vLLM, of this Python's environment")
    parser.add_argument("--gpu", action="store_true", help="the real vLLM runs on a GPU")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs go [runs]")
    given = parser.parse_args()
    if given.gpu and not given.vllm:
        parser.error("--gpu says where the vLLM of --vllm PYTHON runs")
    known = [name for name in shipped if given.vllm or name not in OF_FRONT_ENDS]
    if wrong := [name for name in given.names if name not in known]:
        parser.error(f"not to be shown so: {', '.join(wrong)}; what is: {', '.join(known)}")
    outcomes = {}
    for name in given.names or known:
        scenario = load_scenario(name)
        if given.vllm:
            outcomes[name] = raced_on_vllm(scenario, given.vllm, given.runs_dir, gpu=given.gpu)
        else:
            outcomes[name] = in_virtual_time(scenario) if given.virtual else raced(scenario, given.runs_dir)
        for line in outcomes[name].lines():
            print(line, flush=True)
    return int(any(row.verdict != "as predicted" for outcome in outcomes.values() for row in outcome.findings))


if __name__ == "__main__":
    sys.exit(main())
