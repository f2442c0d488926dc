"""`bakeoff preflight` and `bakeoff bench` as a user calls them: output, files, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.loadgen.bench.races import LIMIT_S, TOP, WENT_WELL, environment
from tests.simulator.client import running

QUICK = ("--ttft-ms", "2", "--tpot-ms", "0.1", "--set", "prefix_caching.tell=true")
OTHER_WEIGHTS = ("--set", "answers.first_word=300")
SCENARIO = {"name": "tiny", "question": "?", "prompt_tokens": [32], "output_tokens": [4], "requests": 4}


def loadgen(*words):
    return subprocess.run(
        [sys.executable, "-m", "loadgen", *words],
        capture_output=True,
        text=True,
        cwd=TOP,
        env=environment(),
        timeout=LIMIT_S,
        check=False,
    )


def seats(**simulators):
    return [f"--engine={name}=http://127.0.0.1:{each.port}" for name, each in simulators.items()]


def scenario_file(folder, **fields):
    file = folder / "tiny.yaml"
    file.write_text(json.dumps({**SCENARIO, "load": {"concurrency": [1]}, **fields}))
    return str(file)


@pytest.fixture(scope="module")
def pair():
    """A simulator, and one of other weights."""
    with running(*QUICK) as a, running(*QUICK, *OTHER_WEIGHTS) as b:
        yield a, b


@pytest.mark.integration
def test_preflight_of_equal_engines(pair, tmp_path):
    file = tmp_path / "findings.json"
    done = loadgen("preflight", *seats(a=pair[0], b=pair[0]), "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text())
    assert (told["engines"], told["blocked"]) == (["a", "b"], False)
    unknown = {check["name"] for check in told["checks"] if check["verdict"] == "unknown"}
    assert unknown == {"logprobs", "seed", "top-p"}, "the simulator gives no log probabilities, and never samples"
    # A busy machine makes a simulator late, and then it does write two events at once.
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert verdicts.pop("clumps") in ("equal", "noted")
    assert set(verdicts.values()) == {"equal", "unknown"}
    assert "could not be told" in done.stdout
    for check in told["checks"]:
        assert check["name"] in done.stdout, "the table has every check"


@pytest.mark.integration
def test_preflight_of_engines_that_differ(pair, tmp_path):
    a, b = pair
    scenario = scenario_file(tmp_path, prompt_tokens=[200_000], serving={"prefix_caching": True})
    done = loadgen("preflight", scenario, *seats(a=a, b=b), "--json", "-")
    assert done.returncode == 5
    blocking = {check["name"] for check in json.loads(done.stdout)["checks"] if check["verdict"] == "blocking"}
    assert blocking == {"context-length", "greedy-text", "prefix-caching"}
    assert "--accept context-length,greedy-text,prefix-caching" in done.stderr
    accepted = loadgen("preflight", *seats(a=a, b=b), "--accept", "greedy-text")
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "accepted" in accepted.stdout


@pytest.mark.integration
def test_bench_stops_before_any_load_unless_it_is_accepted(pair, tmp_path):
    a, b = pair
    runs = tmp_path / "runs"
    command = ["bench", scenario_file(tmp_path), *seats(a=a, b=b), "--runs-dir", str(runs)]
    stopped = loadgen(*command)
    assert stopped.returncode == 5, stopped.stdout + stopped.stderr
    assert "--accept greedy-text" in stopped.stderr
    (first,) = runs.iterdir()  # and no file beside it
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["blocks"] == [] and manifest["status"] == "failed"
    assert {fact["name"] for fact in manifest["parity"] if fact["verdict"] == "blocking"} == {"greedy-text"}

    ran = loadgen(*command, "--accept", "greedy-text")
    assert ran.returncode in WENT_WELL, ran.stdout + ran.stderr
    (second,) = (folder for folder in runs.iterdir() if folder != first)
    report = loadgen("report", str(second))
    assert report.returncode == 0, report.stdout + report.stderr
    (row,) = (line for line in (second / "report.md").read_text().splitlines() if line.startswith("| greedy-text "))
    assert "≠" in row and "accepted by name" in row


@pytest.mark.integration
def test_nobody_can_be_asked(tmp_path):
    done = loadgen("preflight", "--engine", "a=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "Preflight could not ask a" in done.stdout and "No engine could be asked" in done.stderr


@pytest.mark.integration
def test_one_engine_that_does_not_answer_is_no_comparison(pair):
    done = loadgen("preflight", *seats(a=pair[0]), "--engine=b=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "Preflight could not ask b" in done.stdout and "b could not be asked" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["preflight", "--accept", "usage"], "'usage' never stops a race"),
        (["bench", "--accept", "nonsense"], "'nonsense' is no check"),
        (["preflight", "--model", "m"], "--model goes with --engine"),
    ],
)
def test_wrong_usage(words, said):
    done = loadgen(*words)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_help_lists_what_can_be_accepted():
    for command in ("preflight", "bench"):
        text = " ".join(loadgen(command, "--help").stdout.split()).replace("- ", "-")
        assert "greedy-text" in text and "prefix-caching" in text
