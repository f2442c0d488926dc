"""The engine host on Docker: what it does and says in every state that a container can be in."""

from __future__ import annotations

import json
import types

import pytest
import requests
from docker.errors import DockerException

from loadgen.errors import UserError
from loadgen.hosts import docker as module
from loadgen.hosts.docker import DockerHost
from tests.loadgen.hosts.fake_docker import FakeContainer, FakeEngine, attributes


@pytest.fixture
def engine(monkeypatch):
    made = FakeEngine("vllm", "ksana")
    made.all.append(FakeContainer(made, attributes("vllm", project="another")))
    web = FakeContainer(made, attributes("grafana"))
    del web.live["Config"]["Labels"]["bakeoff.engine"]
    made.all.append(web)
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def answering(monkeypatch):
    """URLs that answer, and what."""
    answers: dict[str, int] = {"http://127.0.0.1:8101/health": 200}
    monkeypatch.setattr(module, "http_status", answers.get)
    return answers


@pytest.fixture
def host(engine, answering):
    return DockerHost(engine, "bakeoff", sleep=lambda _: None)


def up(container):
    container.run()
    container.healthy()


def nothing(container):
    pass


def test_engines_are_those_of_the_project(host):
    engines = host.engines()
    assert list(engines) == ["ksana", "vllm"]
    found = engines["vllm"]
    assert (found.inside_url, found.local_url) == ("http://vllm:8000", "http://127.0.0.1:8101")
    assert (found.kind, found.model, found.api, found.start_limit_s) == ("vllm", "m", "completions", 20.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bakeoff.port": "web"}, "label bakeoff.port must be the port"),
        ({"bakeoff.api": "telepathy"}, "label bakeoff.api must be"),
        ({"bakeoff.start-limit-s": "soon"}, "label bakeoff.start-limit-s must be seconds"),
        ({"bakeoff.port": "9000"}, "port 9000 must be published on a fixed port"),
    ],
)
def test_a_wrong_label_is_named(host, engine, change, said):
    engine["vllm"].live["Config"]["Labels"] |= change
    with pytest.raises(UserError, match="service vllm in compose") as caught:
        host.engines()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("ip", "url"),
    [("0.0.0.0", "http://127.0.0.1:8101"), ("", "http://127.0.0.1:8101"), ("::1", "http://[::1]:8101")],
)
def test_where_this_machine_reaches_it(host, engine, ip, url):
    engine["vllm"].live["HostConfig"]["PortBindings"] = {"8000/tcp": [{"HostIp": ip, "HostPort": "8101"}]}
    assert host.engines()["vllm"].local_url == url


@pytest.mark.parametrize("port", ["", "0"])
def test_a_port_that_changes_with_each_start_is_refused(host, engine, port):
    engine["vllm"].live["HostConfig"]["PortBindings"] = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
    with pytest.raises(UserError, match="fixed port"):
        host.engines()


def test_start_stops_the_other_and_waits_until_it_answers(host, engine, answering):
    up(engine["ksana"])
    answering["http://127.0.0.1:8101/health"] = 503
    serve = {"http://127.0.0.1:8101/health": 200}
    engine["vllm"].story = [nothing] * 5 + [lambda _: answering.update(serve)]
    began = engine.now
    host.start("vllm")
    assert engine.now - began > 5, "Docker's own check comes seldom: what counts is that the engine answers"
    assert engine["vllm"].calls == ["start"]
    assert engine["ksana"].calls == ["stop within 30"]
    assert host.running() == ["vllm"]
    assert host.is_up("vllm") and not host.is_up("ksana")
    assert not any(each.calls for each in engine.all[2:]), "another project's engine, or a service that is none"
    host.stop("vllm")
    host.stop("vllm")
    assert engine["vllm"].calls == ["start", "stop within 30"]
    assert host.running() == []


def test_an_engine_that_serves_is_left_running(host, engine):
    up(engine["vllm"])
    host.start("vllm")
    assert engine["vllm"].calls == []


def test_compose_says_how_long_a_stop_may_take(host, engine):
    up(engine["vllm"])
    engine["vllm"].live["Config"]["StopTimeout"] = 75
    host.stop_all()
    assert engine["vllm"].calls == ["stop within 75"]


@pytest.mark.parametrize("state", ["paused", "restarting", "unhealthy"])
def test_an_engine_that_hangs_is_started_afresh(host, engine, answering, state):
    container = engine["vllm"]
    container.run()
    if state == "unhealthy":
        container.unhealthy()
    else:
        container.live["State"]["Status"] = state
    answering.clear()

    def recover(container):
        if "start" in container.calls:
            container.healthy()
            answering["http://127.0.0.1:8101/health"] = 200

    container.story = [recover] * 30
    host.start("vllm")
    assert container.calls == ["stop within 30", "start"]


def test_progress_tells_the_last_line_of_the_log(host, engine, answering):
    container = engine["vllm"]
    answering.clear()
    serve = {"http://127.0.0.1:8101/health": 200}
    container.story = [lambda c: c.say("loading shard 3")] + [nothing] * 13 + [lambda _: answering.update(serve)]
    told: list[str] = []
    host.start("vllm", told.append)
    assert told[0].startswith("vllm is starting, ") and told[0].endswith(": loading shard 3")
    assert not any("loading shard" in text for text in told[1:])


@pytest.fixture
def mute(answering):
    """The engine answers nothing yet."""
    answering.clear()


def failure(host, name="vllm"):
    with pytest.raises(UserError) as caught:
        host.start(name)
    return str(caught.value)


def test_an_engine_that_ends_tells_code_and_log(host, engine, mute):
    container = engine["vllm"]
    container.run()
    container.say("of an earlier run")
    engine.now += 1
    container.end(0)
    container.story = [lambda c: c.say("No space left on device"), lambda c: c.end(3)]
    said = failure(host)
    assert said.startswith("vllm did not start: the disk is full (it ended with exit code 3).")
    assert "  | No space left on device" in said
    assert "of an earlier run" not in said


@pytest.mark.parametrize(
    ("code", "oom", "words"),
    [
        (137, True, "for want of memory: OOMKilled, its container's limit is 8 GiB"),
        (137, False, "SIGKILL ended it (exit code 137), as the system does when memory runs out"),
        (139, False, "SIGSEGV ended it (exit code 139)"),
        (255, False, "a signal ended it (exit code 255)"),
    ],
)
def test_how_an_engine_ended(host, engine, mute, code, oom, words):
    engine["vllm"].story = [lambda c: c.end(code, oom=oom)]
    assert words in failure(host)


def test_an_engine_that_its_policy_starts_again_and_again_is_stopped(host, engine, mute):
    container = engine["vllm"]
    container.story = [nothing, nothing, FakeContainer.restart_by_policy]
    assert "the Docker engine started it anew" in failure(host)
    assert container.calls == ["start", "stop within 30"]


def test_an_engine_between_two_starts_tells_its_exit_code(host, engine, mute):
    def fall(container):
        container.restart_by_policy()
        container.live["State"] |= {"Status": "restarting", "ExitCode": 2}

    engine["vllm"].story = [nothing, nothing, fall]
    assert "it ended with exit code 2" in failure(host)


def test_an_unhealthy_engine_tells_what_its_check_says(host, engine, mute):
    engine["vllm"].story = [nothing, nothing, lambda c: c.unhealthy("Traceback\nconnection refused\n")]
    assert "its health check says: connection refused" in failure(host)
    assert host.running() == []


def test_an_engine_that_takes_too_long_is_stopped(host, engine, mute):
    assert "it did not answer within 20 s" in failure(host)
    assert engine["vllm"].calls == ["start", "stop within 30"]


def test_an_engine_that_only_its_network_reaches(host, engine, mute):
    engine["vllm"].story = [FakeContainer.healthy]
    said = failure(host)
    assert "its container is healthy, but nothing answers at http://127.0.0.1:8101 on this machine" in said


@pytest.mark.parametrize(
    ("explanation", "advice"),
    [
        ("Bind for 127.0.0.1:8101 failed: port is already allocated", "something else uses its port"),
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "NVIDIA Container Toolkit"),
        ("the cat is on the keyboard", "cannot be started.\n"),
    ],
)
def test_a_container_that_docker_cannot_start(host, engine, explanation, advice):
    engine["vllm"].refuses = explanation
    said = failure(host)
    assert said.startswith("vllm cannot be started") and advice in said
    assert explanation in said


def test_no_such_container(host):
    said = failure(host, "llamacpp")
    assert "llamacpp has no container in the Compose project 'bakeoff', which has ksana, vllm: `make up`" in said
    host.stop("llamacpp")  # as after a start that failed


@pytest.mark.parametrize("error", [requests.ConnectionError("refused"), DockerException("no socket"), OSError("x")])
def test_the_docker_engine_is_gone(host, engine, error):
    engine.gone = error
    for call in (host.engines, host.running, lambda: host.start("vllm"), lambda: host.is_up("vllm")):
        with pytest.raises(UserError, match="the Docker engine does not answer"):
            call()


def test_an_engine_that_was_started_anew_behind_our_back_is_not_up(host, engine):
    container = engine["vllm"]
    container.story = [FakeContainer.healthy]
    host.start("vllm")
    assert host.is_up("vllm")
    container.restart_by_policy()
    container.healthy()
    assert not host.is_up("vllm"), "its requests are lost, though it answers"
    assert host.how_it_ended("vllm") == "it ended, and the Docker engine started it anew"
    host.start("vllm")
    assert host.is_up("vllm"), "the one that answers now is as good as any"
    assert container.calls == ["start"]


def test_how_it_ended_in_mid_block(host, engine):
    host.start("vllm")
    assert host.how_it_ended("vllm") == ""
    engine["vllm"].end(137, oom=True)
    assert not host.is_up("vllm")
    assert "OOMKilled, its container's limit is 8 GiB" in host.how_it_ended("vllm")


def test_a_busy_health_check_is_no_death(host, engine):
    up(engine["vllm"])
    engine["vllm"].unhealthy("timed out")
    assert host.is_up("vllm"), "the engine itself answers"


def test_what_the_manifest_keeps(host, engine):
    up(engine["vllm"])
    facts = host.describe("vllm")
    assert json.loads(json.dumps(facts)) == facts
    assert "hunter2" not in json.dumps(facts)
    assert (facts["host"], facts["kind"], facts["base_url"]) == ("docker", "vllm", "http://vllm:8000")
    assert facts["image"]["name"] == "example.org/vllm:1.0"
    assert facts["image"]["digests"] == ["example.org/vllm@sha256:" + "ab" * 32]
    container = facts["container"]
    assert container["argv"] == ["/launch", "--model", "m", "--api-key", "[redacted]", "--max-tokens=64"]
    assert container["environment"] == {"HF_TOKEN": "[redacted]", "OMP_NUM_THREADS": "2"}
    assert container["labels"]["bakeoff.api"] == "completions"
    assert [(mount["source"], mount["read_only"]) for mount in container["mounts"]] == [
        ("/models", True),
        ("bakeoff_hub", False),
    ]
    assert facts["limits"]["memory_bytes"] == 8 * 2**30
    assert (facts["limits"]["cpus"], facts["limits"]["cpuset"]) == (1.5, "0-1")
    assert facts["gpus"] == {"device_ids": ["1"], "drivers": ["nvidia"]}


def test_an_image_that_was_removed_hides_nothing_else(host, engine):
    engine.image = None
    facts = host.describe("vllm")
    assert facts["image"]["digests"] == []
    assert facts["container"]["environment"]["PATH"] == "/usr/bin"


def test_the_launchers_record_goes_before_what_the_container_says(engine, host):
    engine["vllm"].live["Config"]["Labels"]["bakeoff.launch-record"] = "/tmp/launch.json"
    record = {"argv": ["vllm", "--api-key=hunter2"], "environment": {"VLLM_TOKEN": "hunter2", "X": "1"}, "seed": 1}
    engine["vllm"].record = json.dumps(record).encode()
    facts = host.describe("vllm")
    assert facts["argv"] == ["vllm", "--api-key=[redacted]"]
    assert facts["environment"] == {"VLLM_TOKEN": "[redacted]", "X": "1"}
    assert facts["seed"] == 1
    assert engine["vllm"].calls == ["cat /tmp/launch.json"]
    engine["vllm"].record = b"not JSON"
    assert "cannot be read" in host.describe("vllm")["notes"][0]


def test_of_project_without_an_engine(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(UserError, match="the Docker engine does not answer"):
        DockerHost.of_project("bakeoff")


def test_a_log_that_cannot_be_read_is_empty(host, engine):
    from docker.errors import APIError

    def refuse(self, **_):
        raise APIError("configured logging driver does not support reading")

    engine["vllm"].logs = types.MethodType(refuse, engine["vllm"])
    assert host.log_tail("vllm") == ""
