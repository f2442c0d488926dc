"""Engines as containers of a Compose project, driven from this machine through the Docker engine's API.

No container gets the Docker socket. Containers are found by the labels that Compose and compose.yaml put on them
(`loadgen.hosts.container_facts`); what is not there is made by `make up`, never here.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from loadgen.engines import get_engine
from loadgen.errors import UserError
from loadgen.hosts.base import Progress, Starting, known_cause, quoted
from loadgen.hosts.container_facts import (
    KIND_LABEL,
    ONE_OFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    ContainerEngine,
    ContainerState,
    container_facts,
    redacted_arguments,
    redacted_environment,
    unix_seconds,
)
from loadgen.hosts.http_probe import http_status

LOCUST = ("locust", "locust-worker")
POLL_S = 0.5
PROGRESS_S = 10.0
STOP_LIMIT_S = 30
"""How long an engine may take to end when Compose sets no `stop_grace_period`; then it is killed."""

# What the Docker engine says when it cannot start a container, and what to do.
START_ADVICE = (
    ("port is already allocated", "something else uses its port: end it, or choose another port in .env"),
    ("address already in use", "something else uses its port: end it, or choose another port in .env"),
    ("could not select device driver", "Docker has no NVIDIA runtime: install the NVIDIA Container Toolkit"),
    ("no such device", "a GPU that it asks for is not here: see its device ids in .env"),
    ("unknown device", "a GPU that it asks for is not here: see its device ids in .env"),
)


class DockerHost:
    """Engines of one Compose project. One serves at a time, as on a single GPU: starting one stops the others."""

    restarts = True

    def __init__(self, client: docker.DockerClient, project: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self.project = project
        self._sleep = sleep
        self._started: dict[str, str] = {}
        """When each engine that we started began to run, to notice that it ended and was started anew since."""
        self._log_from: dict[str, float | None] = {}
        """Where in its log each engine's latest start begins (Unix seconds of the Docker engine's clock)."""

    @classmethod
    def of_project(cls, project: str) -> DockerHost:
        """The host of a project on the Docker engine that DOCKER_HOST or Docker's context names.

        Raises UserError if it does not answer.
        """
        with explained():
            return cls(docker.from_env(), project)

    def engines(self) -> dict[str, ContainerEngine]:
        """The engines that have a container, running or not, in the order of their names.

        Raises UserError where a service's labels are wrong.
        """
        with explained():
            found = [ContainerEngine.of(container.attrs) for container in self._containers()]
        return {engine.name: engine for engine in sorted(found, key=lambda engine: engine.name)}

    def version(self) -> str | None:
        """The Docker engine's version."""
        with explained():
            return str(self._client.version().get("Version") or "") or None

    def start(self, name: str, on_progress: Progress | None = None, *, alone: bool = True) -> None:
        """Stop the other engines, start this one, and wait until it is healthy (see EngineHost.start)."""
        engine = self._engine(name)
        for other in self.running() if alone else ():
            if other != name:
                self.stop(other)
        state = self._state(name)
        if state.alive and (state.status != "running" or state.health == "unhealthy") and not self._answers(engine):
            self.stop(name)  # hung, paused, or ending again and again
            state = self._state(name)
        if not state.alive:
            self._log_from[name] = unix_seconds(state.finished_at)
            self._start_container(name)
        self._wait_until_healthy(engine, on_progress)
        self._started[name] = self._state(name).started_at

    def stop(self, name: str) -> None:
        """Stop an engine and wait until its processes are gone. Nothing happens if it does not run."""
        with explained():
            found = self._containers(name)
            for container in found:
                if ContainerState.of(container.attrs).alive:
                    with contextlib.suppress(NotFound):
                        container.stop(timeout=container.attrs["Config"].get("StopTimeout") or STOP_LIMIT_S)
            if any(ContainerState.of(container.attrs).alive for container in self._containers(name)):
                raise UserError(f"{name} does not stop: see `docker ps`, and end it with `make down`")
        self._started.pop(name, None)

    def stop_all(self) -> None:
        """Stop every engine of the project."""
        for name in self.running():
            self.stop(name)

    def is_up(self, name: str) -> bool:
        """Whether the engine answers now, and is still the process that we started.

        One that ended and that Docker's restart policy started anew has lost all its requests.
        """
        engine = self._engine(name)
        state = self._state(name)
        same = self._started.get(name, state.started_at) == state.started_at
        return state.status == "running" and same and self._answers(engine)

    def running(self) -> list[str]:
        """The engines whose containers have processes now."""
        with explained():
            found = self._containers()
            return sorted(_service(each) for each in found if ContainerState.of(each.attrs).alive)

    def pids(self, name: str) -> list[int]:
        """The first process of the engine's container, where the Docker engine is on this machine."""
        with explained():
            return [pid for container in self._containers(name) for pid in _pids(container)]

    def locust_pids(self) -> list[int]:
        """Likewise of Locust's containers, the master's and the workers'."""
        return [pid for container in self._all() if _service(container) in LOCUST for pid in _pids(container)]

    def stack_pids(self) -> list[int]:
        """Likewise of all containers of the project."""
        return [pid for container in self._all() for pid in _pids(container)]

    def _all(self) -> list[Container]:
        labels = [f"{PROJECT_LABEL}={self.project}", f"{ONE_OFF_LABEL}=False"]
        with explained():
            return self._client.containers.list(ignore_removed=True, filters={"label": labels})

    def describe(self, name: str) -> dict[str, Any]:
        """Image, command line, environment, mounts, limits and GPUs of the container, and its launcher's record."""
        engine = self._engine(name)
        with explained():
            container = self._container(name)
            try:
                image = self._client.images.get(container.attrs["Image"]).attrs
            except ImageNotFound:
                image = None
            facts = {"host": "docker", "kind": engine.kind, "base_url": engine.inside_url}
            facts |= {"state": container.status, **container_facts(container.attrs, image)}
            return facts | self._launch_record(engine, container)

    def how_it_ended(self, name: str) -> str:
        """The end of the engine's last run in words; empty if it is the one that we started and runs."""
        state = self._state(name)
        if state.status == "running" and self._started.get(name, state.started_at) == state.started_at:
            return ""
        return state.how_it_ended()

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines of the engine's log, of its latest start; empty where Docker's log driver keeps none."""
        with explained():
            container = self._container(name)
            started = self._log_from.get(name)
            try:
                text = container.logs(tail=lines, since=started) if started else container.logs(tail=lines)
            except APIError:  # a driver that cannot be read
                return ""
        return "\n".join(bytes(text).decode("utf-8", "replace").splitlines()[-lines:])

    def _containers(self, name: str | None = None) -> list[Container]:
        """The project's engine containers as they are now, of one service or all."""
        labels = [f"{PROJECT_LABEL}={self.project}", f"{ONE_OFF_LABEL}=False", KIND_LABEL]
        if name is not None:
            labels.append(f"{SERVICE_LABEL}={name}")
        return self._client.containers.list(all=True, ignore_removed=True, filters={"label": labels})

    def _container(self, name: str) -> Container:
        """An engine's container as it is now. Raises UserError if it was never made."""
        found = self._containers(name)
        if found:
            return found[0]
        there = ", ".join(sorted(_service(each) for each in self._containers())) or "no engine"
        raise UserError(
            f"{name} has no container in the Compose project {self.project!r}, which has {there}: `make up` makes them"
        )

    def _engine(self, name: str) -> ContainerEngine:
        with explained():
            return ContainerEngine.of(self._container(name).attrs)

    def _state(self, name: str) -> ContainerState:
        with explained():
            return ContainerState.of(self._container(name).attrs)

    def _answers(self, engine: ContainerEngine) -> bool:
        """Whether the engine's own health route answers this machine."""
        return http_status(engine.local_url + get_engine(engine.kind).health_path) == 200

    def _start_container(self, name: str) -> None:
        """Raises UserError with the Docker engine's words and what to do."""
        with explained():
            try:
                self._container(name).start()
            except APIError as error:
                said = str(error.explanation or error).strip()
                advice = next((f": {text}" for mark, text in START_ADVICE if mark in said.lower()), "")
                raise UserError(f"{name} cannot be started{advice}.\nThe Docker engine says: {said}") from None

    def _wait_until_healthy(self, engine: ContainerEngine, on_progress: Progress | None) -> None:
        name = engine.name
        began = said = time.monotonic()
        restarts = self._state(name).restarts
        starting = Starting(name)
        while True:
            state = self._state(name)
            # Docker's own check is asked seldom: its word is not waited for.
            if state.status == "running" and self._answers(engine):
                return
            if not state.alive or state.restarts > restarts:
                raise self._failed(engine, state.how_it_ended())
            if state.health == "unhealthy":
                output = f" says: {state.health_output[:300]}" if state.health_output else " fails"
                raise self._failed(engine, f"its health check{output}")
            now = time.monotonic()
            if now - began > engine.start_limit_s:
                how = f"it did not answer within {engine.start_limit_s:.0f} s"
                if state.health == "healthy":
                    how = f"its container is healthy, but nothing answers at {engine.local_url} on this machine"
                raise self._failed(engine, how)
            if on_progress and now - said >= PROGRESS_S:
                said = now
                on_progress(starting.words(now - began, self.log_tail(name, 1)))
            self._sleep(POLL_S)

    def _failed(self, engine: ContainerEngine, how: str) -> UserError:
        """The error for an engine that did not come up; ends what is left of it, restarts by Docker included."""
        log = self.log_tail(engine.name, 200)
        self.stop(engine.name)
        lines = quoted("\n".join(log.splitlines()[-12:])) or "  | (nothing)"
        return UserError(
            f"{engine.name} did not start{known_cause(log)} ({how}).\nThe last lines of its container's log:\n{lines}"
        )

    def _launch_record(self, engine: ContainerEngine, container: Container) -> dict[str, Any]:
        """What the engine's launcher wrote down.

        Read by a program in the container, since a file in a tmpfs can be seen from there only.
        """
        if engine.launch_record is None:
            return {}
        try:
            status, output = container.exec_run(["cat", engine.launch_record])
            record = json.loads(output) if status == 0 and isinstance(output, bytes) else None
        except (APIError, ValueError):
            record = None
        if not isinstance(record, dict):
            return {"notes": [f"its launcher's record ({engine.launch_record}) cannot be read"]}
        if isinstance(record.get("argv"), list):
            record["argv"] = redacted_arguments([str(each) for each in record["argv"]])
        if isinstance(record.get("environment"), dict):
            record["environment"] = redacted_environment(f"{k}={v}" for k, v in record["environment"].items())
        return record


def _pids(container: Container) -> list[int]:
    """Its first process; that of a Docker engine elsewhere is not this machine's of the same number."""
    pid = int(container.attrs["State"].get("Pid") or 0)
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except OSError:
        return []
    return [pid] if container.id and container.id in groups else []


def _service(container: Container) -> str:
    return str(container.labels[SERVICE_LABEL])


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise UserError in place of the Docker SDK's errors."""
    try:
        yield
    except APIError as error:
        raise UserError(f"the Docker engine refuses: {error.explanation or error}") from None
    except (DockerException, requests.RequestException, OSError) as error:
        raise UserError(
            "the Docker engine does not answer: is it running, may this user use it, and is DOCKER_HOST right? "
            f"({str(error)[:200]})"
        ) from None
