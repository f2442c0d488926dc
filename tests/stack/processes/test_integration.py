"""The real stack in a checkout of its own: llama.cpp, Locust, the exporter and Prometheus under supervisord.

The engine's environment and the model are this checkout's, linked, so that they are set up once (`make test` does).
"""

import http.client
import json
import os
import signal
import socket
import time

import psutil
import pytest

from loadgen.bench.block_driver import BlockDriver
from loadgen.bench.running_stack import choose_seats, open_stack, settle_serving
from loadgen.errors import UserError
from loadgen.runs.manifest import BlockFacts
from loadgen.runs.record_file import read_records
from loadgen.scenario.model import Scenario
from loadgen.settings import Paths
from stack.processes import strays
from tests.loadgen.test_settings import settings_of as given_settings
from tests.stack.processes.checkout import HERE, Checkout
from tests.stack.set_up import has_llamacpp

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_llamacpp(HERE), reason="run `python -m stack setup --engine llamacpp` first"),
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    found = Checkout(tmp_path_factory.mktemp("checkout"))
    state = found.state
    (state / "venvs").mkdir(parents=True)
    (state / "venvs" / "llamacpp").symlink_to(Paths(HERE).venv("llamacpp"))
    (state / "models").symlink_to(Paths(HERE).models)
    if (Paths(HERE).state / "debian").exists():
        (state / "debian").symlink_to(Paths(HERE).state / "debian")
    yield found
    found.end()


@pytest.fixture(scope="module")
def stack(checkout):
    result = checkout.run("up", "--engine", "llamacpp")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "llamacpp: healthy" in result.stdout
    return checkout


def ask(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        return json.loads(response.read())
    finally:
        connection.close()


def wait_for(condition, limit_s=300.0):
    limit = time.monotonic() + limit_s
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {limit_s:g} s")


def test_the_engine_serves_the_model(stack):
    port = stack.ports["LLAMACPP"]
    body = {"prompt": [2, 818, 5279, 529, 7001, 563], "max_tokens": 12, "temperature": 0}
    answer = ask(port, "/v1/completions", body)
    assert answer["usage"]["prompt_tokens"] == 6
    assert answer["usage"]["completion_tokens"] == 12
    assert "France" in answer["choices"][0]["text"]
    tokens = ask(port, "/tokenize", {"content": "Hello world", "add_special": True})["tokens"]
    assert tokens == [2, 9259, 1902]


def test_the_host_describes_the_engine(stack):
    host = stack.host()
    assert host.running() == ["llamacpp"]
    assert host.is_up("llamacpp")
    facts = host.describe("llamacpp")
    assert psutil.pid_exists(facts["pid"])
    assert facts["packages"]["xllamacpp"]
    assert len(facts["model_sha256"]) == 64
    assert facts["settings"]["n_ctx"] == facts["context_tokens"] * facts["parallel_sequences"]
    assert host.log_tail("llamacpp", 3)
    with pytest.raises(UserError, match="unknown engine nobody: there are llamacpp"):
        host.start("nobody")


def test_up_twice_changes_nothing(stack):
    before = stack.host().describe("llamacpp")["pid"]
    assert stack.run("up", "--engine", "llamacpp").returncode == 0
    assert stack.host().describe("llamacpp")["pid"] == before


def test_ps_and_logs(stack):
    listing = stack.run("ps")
    assert listing.returncode == 0
    rows = {line.split()[0]: line.split() for line in listing.stdout.splitlines()[1:] if line.strip()}
    assert rows["llamacpp"][1] == "ready"
    assert rows["locust-master"][1] == "ready"
    assert f"http://127.0.0.1:{stack.ports['LLAMACPP']}" in rows["llamacpp"]
    log = stack.run("logs", "llamacpp", "--no-follow", "-n", "2000")
    assert "serving gemma-3-270m" in log.stdout
    unknown = stack.run("logs", "nobody")
    assert unknown.returncode == 2
    assert "there are" in unknown.stderr and "llamacpp" in unknown.stderr


def test_two_settings_of_one_engine_take_turns_under_their_own_names(stack):
    engines = [{"name": f"b{size}", "engine": "llamacpp", "serving": {"max_batch_size": size}} for size in (1, 2)]
    fields = {"name": "ab", "question": "?", "prompt_tokens": [16], "output_tokens": [2], "requests": 2}
    scenario = Scenario.model_validate({**fields, "load": {"concurrency": [1]}, "engines": engines})
    there = open_stack(stack.folder)
    seats, notes = choose_seats(scenario, there)
    assert notes == ["b1 is llamacpp with max_batch_size: 1.", "b2 is llamacpp with max_batch_size: 2."]
    host = settle_serving(scenario, there, seats)
    (there.runs_dir / "ab").mkdir(parents=True)
    driver = BlockDriver(scenario, "ab", host, there.locust, print, seats={seat.name: seat for seat in seats})
    for block in scenario.blocks([seat.name for seat in seats]):
        host.start(block.engine)
        assert host.running() == [block.engine] and host.is_up(block.engine)
        launched = host.describe(block.engine)
        assert (launched["seat"], launched["settings"]["n_parallel"]) == ("llamacpp", int(block.engine[1]))
        facts = BlockFacts.begun(block.id, block.engine, block.cell, warmup_requests=1, measured_requests=2)
        driver.attempt(block, facts, lambda _: None)
    records, _ = read_records(there.runs_dir / "ab" / "requests.jsonl")
    assert {(record.engine, record.block) for record in records if record.ok} == {
        (name, f"{name}.p0016-o0002-c001.r1") for name in ("b1", "b2")
    }
    host.stop_all()
    assert stack.host().running() == []
    stack.host().start("llamacpp")


def test_other_settings_are_not_mixed_in(stack):
    stack.environment["BAKEOFF_WORKERS"] = "2"
    try:
        result = stack.run("up", "--engine", "none")
    finally:
        del stack.environment["BAKEOFF_WORKERS"]
    assert result.returncode == 2
    assert "run `make down` first" in result.stderr


def test_a_killed_worker_comes_back_and_a_killed_engine_does_not(stack):
    host = stack.host()
    worker = host.state_of("locust-worker-1")["pid"]
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: host.state_of("locust-worker-1")["pid"] not in (0, worker))
    engine = host.describe("llamacpp")["pid"]
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: host.running() == [])
    time.sleep(1)
    assert host.running() == [] and not host.is_up("llamacpp")
    assert "a signal ended it" in host.how_it_ended("llamacpp")
    host.start("llamacpp")
    assert host.is_up("llamacpp") and host.how_it_ended("llamacpp") == ""


def test_an_engine_that_dies_at_start_says_why(stack):
    host = stack.host()
    host.stop("llamacpp")
    assert strays.port_is_free(stack.ports["LLAMACPP"])
    model = stack.state / "models"
    target = model.readlink()
    model.unlink()
    model.mkdir()
    try:
        with pytest.raises(
            UserError, match=r"llamacpp did not start: a file is missing \(it ended with exit status 1\)"
        ):
            host.start("llamacpp")
    finally:
        model.rmdir()
        model.symlink_to(target)


def test_a_foreign_server_on_the_engines_port_is_named(stack):
    host = stack.host()
    host.stop_all()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", stack.ports["LLAMACPP"]))
        other.listen()
        with pytest.raises(UserError, match=r"something else listens at .*BAKEOFF_LLAMACPP_PORT"):
            host.start("llamacpp")


def test_down_after_supervisord_was_killed_leaves_nothing(stack):
    stack.host().start("llamacpp")
    os.kill(int((stack.state / "stack" / "supervisord.pid").read_text()), signal.SIGKILL)
    wait_for(lambda: stack.run("ps").returncode == 1)
    assert len(strays.ours(stack.state)) >= 3
    result = stack.run("down")
    assert result.returncode == 0, result.stderr
    assert strays.ours(stack.state) == []
    assert all(strays.port_is_free(port) for port in stack.ports.values())
    again = stack.run("down")
    assert again.returncode == 0 and "nothing was running" in again.stdout


def test_a_port_in_use_is_named_with_its_holder_and_variable(stack):
    settings = given_settings(stack.folder, stack.environment)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", settings.locust_port))
        other.listen()
        result = stack.run("up", "--engine", "none")
    assert result.returncode == 2
    assert f"{settings.locust_port} for locust-master" in result.stderr
    assert f"process {os.getpid()} " in result.stderr
    assert "BAKEOFF_LOCUST_PORT" in result.stderr
    assert strays.ours(stack.state) == []
