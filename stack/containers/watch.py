"""What the containers of a project do now, and why one of them failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.models.containers import Container

from loadgen.errors import UserError
from loadgen.files import tail
from loadgen.hosts.base import known_cause, quoted
from loadgen.hosts.container_facts import PROJECT_LABEL, SERVICE_LABEL, ContainerState, gpus_given
from loadgen.hosts.docker import explained
from stack.commands import run_logged
from stack.containers.compose import Compose

SIGN_OF_LIFE_S = 5.0
UP_LIMIT_S = 300
STOP_LIMIT_S = 20
WORKER = "locust-worker"
NO_HTTP = ("5557/tcp",)
"""Ports inside containers that are no web server's: where Locust's workers find their master."""
MAX_RESTARTS = 3
"""A service that ends this often at its start will not come up by waiting."""


@dataclass(frozen=True)
class ServiceState:
    """One container of a service."""

    service: str
    container: str
    state: ContainerState
    addresses: tuple[str, ...]
    """Of this machine, where it can be reached: URLs, and HOST:PORT where what listens speaks no HTTP."""
    id: str = ""
    gpus: tuple[str, ...] = ()
    """The ids of those that it was given."""
    restarts_before: int = 0
    """How often the Docker engine had started it anew when we began to look: that is nobody's fault now."""

    @property
    def restarts(self) -> int:
        """How often it has since."""
        return max(0, self.state.restarts - self.restarts_before)

    @property
    def word(self) -> str:
        """Its state in a word: healthy, starting, running, created, exited, ..."""
        running = self.state.status == "running"
        return (self.state.health or "running") if running else self.state.status

    @property
    def failed(self) -> bool:
        """Whether it will not become healthy by waiting."""
        gone = self.state.status in ("exited", "dead", "restarting") or self.word == "unhealthy"
        return gone or (self.restarts > 0 and self.word != "healthy")

    @property
    def how(self) -> str:
        """What is wrong with it, in words."""
        if self.word == "unhealthy":
            said = self.state.health_output
            return f"its health check fails{f': {said[:200]}' if said else ''}"
        return self.state.how_it_ended()


def service_states(
    client: docker.DockerClient, project: str, before: Mapping[str, int] | None = None
) -> list[ServiceState]:
    """All containers of a project, by service. Raises UserError if the Docker engine does not answer.

    `before` has the restarts that each container had already, by its id.
    """
    with explained():
        label = f"{PROJECT_LABEL}={project}"
        found = client.containers.list(all=True, ignore_removed=True, filters={"label": label})
    states = (dataclasses.replace(one, restarts_before=(before or {}).get(one.id, 0)) for one in map(_read, found))
    return sorted(states, key=lambda each: (each.service, each.container))


def _read(container: Container) -> ServiceState:
    bindings = container.attrs["HostConfig"].get("PortBindings") or {}
    return ServiceState(
        service=str(container.labels.get(SERVICE_LABEL, "")),
        container=str(container.name),
        state=ContainerState.of(container.attrs),
        addresses=tuple(
            f"{'' if inside in NO_HTTP else 'http://'}{one['HostIp']}:{one['HostPort']}"
            for inside, entries in bindings.items()
            for one in entries or ()
        ),
        id=str(container.id),
        gpus=tuple(gpus_given(container.attrs["HostConfig"].get("DeviceRequests") or []).get("device_ids", ())),
    )


def bring_up(compose: Compose, client: docker.DockerClient, project: str, services: Iterable[str], log: Path) -> None:
    """`compose up` these services and wait until all are healthy, with a sign of life every few seconds.

    Raises UserError with the failing service's last log lines.
    """
    names = list(services)
    before = {each.id: each.state.restarts for each in service_states(client, project)}

    def progress(seconds: float) -> str | None:
        states = [each for each in service_states(client, project, before) if each.service in names]
        if any(each.failed and each.restarts >= MAX_RESTARTS for each in states):
            return None
        waiting = [f"{each.service} ({each.word})" for each in states if each.word != "healthy"]
        return f"  {seconds:.0f} s: waiting for {', '.join(waiting) or 'containers to be made'}"

    command = compose.command("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(UP_LIMIT_S), *names)
    if not run_logged(command, log=log, environment=compose.environment, progress=progress, every_s=SIGN_OF_LIFE_S):
        raise _failure(client, project, names, log, before)


def wake_workers(client: docker.DockerClient, project: str) -> int:
    """Start workers anew that are unhealthy, as all are that were without their master. Returns how many there were.

    To be called when the master is up: Compose gives up at once on a container that is unhealthy already.
    """
    sick = [each for each in service_states(client, project) if (each.service, each.word) == (WORKER, "unhealthy")]
    for each in sick:
        with explained():
            client.containers.get(each.container).restart(timeout=STOP_LIMIT_S)
    return len(sick)


def _failure(
    client: docker.DockerClient, project: str, names: list[str], log: Path, before: Mapping[str, int]
) -> UserError:
    """The error for services that did not come up."""
    failed = [each for each in service_states(client, project, before) if each.service in names and each.failed]
    if not failed:
        said = quoted(tail(log, 12))
        return UserError(f"Compose could not start {', '.join(names)}{known_cause(said)}:\n{said}")
    first = failed[0]
    lines = client.containers.get(first.container).logs(tail=12).decode("utf-8", "replace")
    others = [each.service for each in failed[1:] if each.service != first.service]
    more = f"\nAlso failed: {', '.join(dict.fromkeys(others))}." if others else ""
    return UserError(
        f"{first.service} failed{known_cause(lines)} ({first.how}).\nThe last lines of its log:\n"
        f"{quoted(lines) or '  | (nothing)'}{more}\nThe rest was left running: `make ps` shows it, `make down` ends it."
    )
