"""What a race takes from the stack that runs: its form on disk, its seats, and whether it fits the scenario."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path

import pytest

from loadgen.bench import running_stack as module
from loadgen.bench.running_stack import choose_seats, open_stack, settle_serving
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts import docker as docker_host
from loadgen.hosts.stack_file import (
    DockerStack,
    SupervisorStack,
    read_stack,
    serving_file,
    stack_file,
)
from loadgen.hosts.supervisor import SupervisorHost
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import Serving
from tests.loadgen.distributed.web import serve
from tests.loadgen.hosts.fake_docker import FakeEngine

PROCESSES = {
    "key": "k",
    "socket": "/s/sock",
    "urls": {"locust-master": "http://127.0.0.1:8089"},
    "engines": {
        "vllm": {
            "kind": "vllm",
            "base_url": "http://127.0.0.1:8101",
            "health_url": "http://127.0.0.1:8101/health",
            "model": "m",
            "api": "completions",
            "log": "/l",
            "launch_record": "/r",
            "start_limit_s": 600,
        }
    },
}


def containers(url: str = "http://127.0.0.1:8089", **changes):
    stack = {
        "runtime": "docker",
        "project": "bakeoff",
        "profile": "cpu",
        "urls": {"locust-master": url, "prometheus": "http://127.0.0.1:9090"},
        "runs_dir": "/here/runs",
        "inside_runs_dir": "/runs",
        "grafana_password_file": ".env",
    }
    return {**stack, **changes}


def write(checkout: Path, content: object) -> Path:
    path = stack_file(checkout)
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return checkout


def scenario(*engines: str) -> Scenario:
    fields = {"name": "tiny", "question": "?", "prompt_tokens": [8], "output_tokens": [2], "requests": 5}
    return Scenario.model_validate({**fields, "load": {"concurrency": [1]}, "engines": list(engines)})


@pytest.mark.parametrize("runtime", [{}, {"runtime": "embedded"}])
def test_plain_processes(tmp_path, runtime):
    stack = read_stack(write(tmp_path, {**PROCESSES, **runtime}))
    assert isinstance(stack, SupervisorStack)
    assert stack.engines["vllm"].start_limit_s == 600.0


def test_containers(tmp_path):
    stack = read_stack(write(tmp_path, containers()))
    assert isinstance(stack, DockerStack)
    assert (stack.project, stack.profile, stack.runs_dir) == ("bakeoff", "cpu", Path("/here/runs"))
    with pytest.raises(UserError, match="runs in containers"):
        SupervisorHost.of_checkout(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runtime": "docker"}', '{"runtime": "moon"}', '"x"'])
def test_a_broken_file_is_no_stack(tmp_path, content):
    with pytest.raises(UserError, match="start it with `make up`"):
        read_stack(write(tmp_path, content))


def test_no_file_is_no_stack(tmp_path):
    with pytest.raises(UserError, match="start it with `make up`"):
        open_stack(tmp_path)


@pytest.fixture
def engine(monkeypatch):
    """A Docker engine with the containers of profile `cpu`."""
    made = FakeEngine("vllm-cpu", "llamacpp")
    made["llamacpp"].live["Config"]["Labels"]["bakeoff.engine"] = "llamacpp"
    monkeypatch.setattr(docker_host.docker, "from_env", lambda: made)
    return made


@pytest.fixture
def locust():
    """A Locust master whose routes can be changed."""
    routes = {
        "/bakeoff/block": (200, {"workers": 2, "state": "ready"}),
        "/bakeoff/setup": (200, {"runs_dir": "/runs", "engines": [], "packages": {"locust": "2.47.0"}}),
    }
    with serve(routes) as web:
        yield types.SimpleNamespace(url=web.url, routes=routes)


@pytest.fixture
def stack(tmp_path, engine, locust):
    return open_stack(write(tmp_path, containers(locust.url)))


def test_a_stack_of_containers(stack):
    assert {seat.name: (seat.base_url, seat.local_url) for seat in stack.seats.values()} == {
        "llamacpp": ("http://llamacpp:8000", "http://127.0.0.1:8101"),
        "vllm-cpu": ("http://vllm-cpu:8000", "http://127.0.0.1:8101"),
    }
    assert [seat.kind for seat in stack.seats.values()] == ["llamacpp", "vllm"]
    assert stack.runs_dir == Path("/here/runs"), "where this machine has what Locust calls /runs"
    assert stack.prometheus_url == "http://127.0.0.1:9090"
    assert stack.packages == {"locust": "2.47.0"}
    assert stack.facts == {"runtime": "docker", "project": "bakeoff", "profile": "cpu", "docker_version": "28.0"}


def test_a_foreign_locust_at_the_port(tmp_path, engine, locust):
    locust.routes["/bakeoff/setup"] = (200, {"runs_dir": "/elsewhere", "engines": [], "packages": {}})
    with pytest.raises(UserError, match="writes runs to /elsewhere, not to /runs"):
        open_stack(write(tmp_path, containers(locust.url)))


def test_containers_that_are_gone(tmp_path, engine, locust):
    engine.all.clear()
    with pytest.raises(UserError, match="has no engine container: `make up`"):
        open_stack(write(tmp_path, containers(locust.url)))


def test_locust_that_is_gone(tmp_path, engine, monkeypatch):
    with serve({}) as gone:
        pass
    monkeypatch.setattr(module, "WORKER_LIMIT_S", 0.0)
    with pytest.raises(UserError, match=r"does not answer .* `make logs S=locust-master`"):
        open_stack(write(tmp_path, containers(gone.url)))


def test_a_stack_without_locust(tmp_path, engine):
    with pytest.raises(UserError, match="no Locust master"):
        open_stack(write(tmp_path, containers(urls={"prometheus": "x"})))


@pytest.mark.parametrize(
    ("named", "raced", "noted"),
    [
        ((), ["llamacpp", "vllm-cpu"], 0),
        (("vllm-cpu", "llamacpp"), ["vllm-cpu", "llamacpp"], 0),
        (("llamacpp", "vllm"), ["llamacpp", "vllm-cpu"], 1),
        (("vllm",), ["vllm-cpu"], 1),
    ],
)
def test_seats_of_a_scenario(stack, named, raced, noted):
    seats, notes = choose_seats(scenario(*named), stack)
    assert [seat.name for seat in seats] == raced
    assert notes == ["The scenario's vllm is vllm-cpu in this stack (containers, profile cpu)."] * noted


@pytest.mark.parametrize("named", [("vllm", "ksana"), ("ksana",)])
def test_a_scenario_for_other_engines(stack, named):
    with pytest.raises(UserError) as caught:
        choose_seats(scenario(*named), stack)
    assert f"races {', '.join(named)}, and this stack (containers, profile cpu) has llamacpp, vllm-cpu" in str(
        caught.value
    )


def test_a_kind_that_two_engines_share_is_no_name(tmp_path, engine, locust):
    engine["llamacpp"].live["Config"]["Labels"]["bakeoff.engine"] = "vllm"
    stack = open_stack(write(tmp_path, containers(locust.url)))
    with pytest.raises(UserError, match="has llamacpp, vllm-cpu"):
        choose_seats(scenario("vllm"), stack)


def test_one_engine_under_two_names(stack):
    with pytest.raises(UserError, match="one engine twice"):
        choose_seats(scenario("vllm", "vllm-cpu"), stack)


def test_a_second_seat_races_only_where_it_is_named(stack):
    twin = Seat(name="vllm-2", kind="vllm", base_url="http://127.0.0.1:8121", twin_of="vllm-cpu")
    stack = dataclasses.replace(stack, seats={**stack.seats, "vllm-2": twin})
    for named, raced in (
        ((), ["llamacpp", "vllm-cpu"]),
        (("llamacpp", "vllm"), ["llamacpp", "vllm-cpu"]),
        (("vllm", "vllm-2"), ["vllm-cpu", "vllm-2"]),
    ):
        assert [seat.name for seat in choose_seats(scenario(*named), stack)[0]] == raced


def asking(serving):
    """A scenario with a serving block, as far as it matters here."""
    block = None if serving is None else Serving.model_validate(serving)
    return types.SimpleNamespace(name="tiny", serving=block, variants={}, reset_prefix_caches=False)


def test_containers_that_serve_with_other_settings_are_stopped(tmp_path, engine, locust):
    stack = open_stack(write(tmp_path, containers(locust.url)))
    engine["llamacpp"].run()
    running = stack.host.running()
    assert running == ["llamacpp"]
    settle_serving(asking(None), stack, [])
    assert stack.host.running() == running
    assert settle_serving(asking({"dtype": "bfloat16", "seed": None}), stack, []) is stack.host
    assert stack.host.running() == []
    assert json.loads(serving_file(tmp_path).read_text()) == {"dtype": "bfloat16"}


def of_variants(*engines, **more) -> Scenario:
    return Scenario.model_validate({**scenario().model_dump(), "engines": list(engines), **more})


LONG = {"name": "long", "engine": "vllm", "serving": {"max_batch_size": 9}}
SHORT = {"name": "short", "engine": "vllm-cpu"}


def test_settings_of_one_engine_are_seats_of_their_own(stack):
    asked = of_variants("llamacpp", LONG, SHORT, serving={"seed": 3})
    seats, notes = choose_seats(asked, stack)
    assert [(seat.name, seat.variant_of, seat.stack_name) for seat in seats] == [
        ("llamacpp", None, "llamacpp"),
        ("long", "vllm-cpu", "vllm-cpu"),
        ("short", "vllm-cpu", "vllm-cpu"),
    ]
    assert {seat.base_url for seat in seats[1:]} == {"http://vllm-cpu:8000"}
    assert notes == [
        "The scenario's vllm is vllm-cpu in this stack (containers, profile cpu).",
        "llamacpp is llamacpp with max_batch_size: its own default.",
        "long is vllm-cpu with max_batch_size: 9.",
        "short is vllm-cpu with max_batch_size: its own default.",
    ]


def test_equal_settings_of_one_engine_are_told_as_such(stack):
    _, notes = choose_seats(of_variants({"name": "a", "engine": "vllm-cpu"}, SHORT), stack)
    assert notes == ["a is vllm-cpu, set up as the others.", "short is vllm-cpu, set up as the others."]


@pytest.mark.parametrize(
    ("engines", "more", "words"),
    [
        ([LONG, SHORT], {"between_blocks": "keep"}, "long and short are settings of one engine, vllm-cpu.*leave out"),
        (["vllm-cpu", LONG], {"between_blocks": "keep"}, "vllm-cpu and long are settings of one engine"),
        ([{"name": "llamacpp", "engine": "vllm"}], {}, "llamacpp is another engine of this stack.*another name"),
        (["vllm", {"name": "vllm-cpu", "engine": "vllm"}], {}, "one engine twice"),
        ([{"name": "x", "engine": "ksana"}], {}, "races ksana, and this stack .* has llamacpp, vllm-cpu"),
    ],
)
def test_variants_that_cannot_be_raced(stack, engines, more, words):
    with pytest.raises(UserError, match=words):
        choose_seats(of_variants(*engines, **more), stack)


@pytest.mark.parametrize("more", [{"between_blocks": "keep"}, {"placement": "together"}, {"placement": "both"}])
def test_settings_of_one_engine_that_stay_up_take_its_seats(stack, more):
    twin = Seat(name="vllm-2", kind="vllm", base_url="http://127.0.0.1:8121", twin_of="vllm-cpu")
    stack = dataclasses.replace(stack, seats={**stack.seats, "vllm-2": twin})
    seats, _ = choose_seats(of_variants(LONG, SHORT, **more), stack)
    assert [(seat.name, seat.stack_name, seat.base_url) for seat in seats] == [
        ("long", "vllm-cpu", "http://vllm-cpu:8000"),
        ("short", "vllm-2", "http://127.0.0.1:8121"),
    ]
    with pytest.raises(UserError, match="are settings of one engine, vllm-cpu"):
        choose_seats(of_variants(LONG, SHORT, {"name": "third", "engine": "vllm"}, **more), stack)


def test_settings_that_are_started_afresh_share_a_seat_and_its_card(stack):
    twin = Seat(name="vllm-2", kind="vllm", base_url="http://127.0.0.1:8121", twin_of="vllm-cpu")
    stack = dataclasses.replace(stack, seats={**stack.seats, "vllm-2": twin})
    seats, _ = choose_seats(of_variants(LONG, SHORT), stack)
    assert [seat.stack_name for seat in seats] == ["vllm-cpu", "vllm-cpu"]


def test_settings_of_different_engines_may_stay_up_together(stack):
    seats, _ = choose_seats(of_variants("llamacpp", LONG, between_blocks="keep"), stack)
    assert [seat.name for seat in seats] == ["llamacpp", "long"]


def test_a_variant_is_started_with_its_own_block(tmp_path, engine, locust):
    stack = open_stack(write(tmp_path, containers(locust.url)))
    engine["vllm-cpu"].run()
    asked = of_variants(LONG, SHORT, serving={"seed": 3})
    seats, _ = choose_seats(asked, stack)
    host = settle_serving(asked, stack, seats)
    assert host.running() == [] and stack.host.running() == ["vllm-cpu"], "with settings that nobody knows"
    assert not serving_file(tmp_path).exists()
    host.stop("long")
    assert stack.host.running() == []
