import dataclasses
from types import SimpleNamespace

import pytest

from loadgen.hosts.container_facts import ContainerState
from stack.containers import watch
from stack.containers.watch import ServiceState, wake_workers


def state(status="running", health=None, *, restarts=0, exit_code=0, output=""):
    return ServiceState(
        "locust",
        "bakeoff-locust-1",
        ContainerState(
            status=status,
            health=health,
            health_output=output,
            exit_code=exit_code,
            oom_killed=False,
            error="",
            restarts=restarts,
            started_at="",
            finished_at="",
        ),
        (),
    )


@pytest.mark.parametrize(
    ("found", "word", "failed"),
    [
        (state(health="healthy"), "healthy", False),
        (state(health="starting"), "starting", False),
        (state(health="unhealthy"), "unhealthy", True),
        (state(), "running", False),
        (state("created"), "created", False),
        (state("exited", exit_code=1), "exited", True),
        (state("restarting", restarts=2), "restarting", True),
        (state(health="starting", restarts=1), "starting", True),
        (state(health="healthy", restarts=1), "healthy", False),
    ],
)
def test_words(found, word, failed):
    assert (found.word, found.failed) == (word, failed)


def test_how_it_failed():
    assert state(health="unhealthy", output="refused").how == "its health check fails: refused"
    assert state("exited", exit_code=3).how == "it ended with exit code 3"
    assert "started it anew" in state(health="starting", restarts=2).how


def test_restarts_of_an_earlier_life_are_nobodys_fault_now():
    now = dataclasses.replace(state(health="starting", restarts=3), restarts_before=3)
    assert not now.failed and now.restarts == 0
    assert dataclasses.replace(now, restarts_before=2).failed


class Engine:
    """A Docker engine with these containers: service and health of each."""

    def __init__(self, *found):
        self.restarted = []
        self.containers = self
        self._found = found

    def list(self, **_):
        return [self._container(number, *each) for number, each in enumerate(self._found)]

    def get(self, name):
        return SimpleNamespace(restart=lambda timeout: self.restarted.append(name))

    def _container(self, number, service, health, restarts=0):
        attrs = {
            "State": {"Status": "running", "Health": {"Status": health}},
            "HostConfig": {},
            "RestartCount": restarts,
        }
        labels = {"com.docker.compose.service": service}
        return SimpleNamespace(id=f"id{number}", name=f"{service}-{number}", labels=labels, attrs=attrs)


def test_workers_that_were_without_a_master_are_started_anew():
    engine = Engine(("locust", "unhealthy"), ("locust-worker", "healthy"), ("locust-worker", "unhealthy"))
    assert wake_workers(engine, "bakeoff") == 1
    assert engine.restarted == ["locust-worker-2"]


def test_only_what_speaks_http_is_shown_as_a_url():
    engine = Engine(("locust", "healthy"))
    engine._container = lambda *_: SimpleNamespace(
        id="id",
        name="c",
        labels={},
        attrs={
            "State": {"Status": "running"},
            "RestartCount": 0,
            "HostConfig": {
                "PortBindings": {
                    "8089/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8089"}],
                    "5557/tcp": [{"HostIp": "192.0.2.1", "HostPort": "5557"}],
                    "9/tcp": None,
                }
            },
        },
    )
    (found,) = watch.service_states(engine, "bakeoff")
    assert found.addresses == ("http://127.0.0.1:8089", "192.0.2.1:5557")


@pytest.mark.parametrize(("restarts", "failed"), [(3, False), (4, True)])
def test_a_worker_that_has_been_replaced_often_comes_up(monkeypatch, tmp_path, restarts, failed):
    """The master was replaced thrice, and each time told its workers to quit."""
    engine = Engine(("locust-worker", "starting", 3))
    seen = []

    def run(command, *, progress, **_):
        engine._found = (("locust-worker", "starting", restarts),)
        seen.append([each.failed for each in watch.service_states(engine, "bakeoff", {"id0": 3})])
        return progress(1.0) is not None

    monkeypatch.setattr(watch, "run_logged", run)
    compose = SimpleNamespace(command=lambda *words: list(words), environment={})
    watch.bring_up(compose, engine, "bakeoff", ["locust-worker"], tmp_path / "log")
    assert seen == [[failed]]
