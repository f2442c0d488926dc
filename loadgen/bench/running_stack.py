"""The stack that runs in this checkout, as a race needs it: engine host, seats, Locust, Prometheus, run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.endpoints.endpoint import tls_context
from loadgen.endpoints.seats import Seat, seats_of
from loadgen.engines import Api
from loadgen.errors import UserError
from loadgen.hosts.base import EngineHost
from loadgen.hosts.external import ExternalHost
from loadgen.hosts.stack_file import DockerStack, SupervisorStack, declare_serving, read_stack
from loadgen.hosts.supervisor import SupervisorHost
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import serving_json

MASTER = "locust-master"
WORKER_LIMIT_S = 30.0


@dataclass(frozen=True)
class RunningStack:
    """What a stack offers to a race."""

    words: str
    """What it is called in messages, such as `this stack (containers, profile cpu)`."""
    host: EngineHost
    seats: dict[str, Seat]
    """All its engines by name, in its own order."""
    locust: LocustClient
    runs_dir: Path
    """The folder on this machine that its Locust writes runs to."""
    prometheus_url: str | None
    grafana_url: str | None
    packages: dict[str, str]
    """Versions of the packages that its Locust runs with."""
    facts: dict[str, Any]
    """For the manifest."""
    checkout: Path
    """Whose stack it is."""


def open_stack(checkout: Path) -> RunningStack:
    """The stack of this checkout, its Locust ready. Raises UserError where it does not run or answer."""
    stack = read_stack(checkout)
    return _containers(stack, checkout) if isinstance(stack, DockerStack) else _processes(stack, checkout)


def _processes(stack: SupervisorStack, checkout: Path) -> RunningStack:
    host = SupervisorHost(stack)
    host.running()  # raises where supervisord is gone
    locust, setup = _locust(stack.urls)
    locust.pids = host.locust_pids
    return RunningStack(
        words="this stack",
        host=host,
        seats={
            name: Seat(name=name, kind=each.kind, base_url=each.base_url, model=each.model, api=cast(Api, each.api))
            for name, each in stack.engines.items()
        },
        locust=locust,
        runs_dir=Path(setup["runs_dir"]),
        prometheus_url=stack.urls.get("prometheus"),
        grafana_url=stack.urls.get("grafana"),
        packages=dict(setup["packages"]),
        facts={"runtime": "processes"},
        checkout=checkout,
    )


def _containers(stack: DockerStack, checkout: Path) -> RunningStack:
    from loadgen.hosts.docker import DockerHost

    host = DockerHost.of_project(stack.project)
    engines = host.engines()
    if not engines:
        raise UserError(f"The Compose project {stack.project!r} has no engine container: `make up` makes them.")
    locust, setup = _locust(stack.urls)
    locust.pids = host.locust_pids
    if setup["runs_dir"] != stack.inside_runs_dir:
        raise UserError(
            f"Locust at {locust.url} writes runs to {setup['runs_dir']}, not to {stack.inside_runs_dir} as this "
            "checkout's stack does: another Locust has its port. `make down`, then `make up`."
        )
    return RunningStack(
        words=f"this stack (containers, profile {stack.profile})",
        host=host,
        seats={
            name: Seat(
                name=name,
                kind=each.kind,
                base_url=each.inside_url,
                local_url=each.local_url,
                model=each.model,
                api=each.api,
            )
            for name, each in engines.items()
        },
        locust=locust,
        runs_dir=stack.runs_dir,
        prometheus_url=stack.urls.get("prometheus"),
        grafana_url=stack.urls.get("grafana"),
        packages=dict(setup["packages"]),
        facts={
            "runtime": "docker",
            "project": stack.project,
            "profile": stack.profile,
            "docker_version": host.version(),
        },
        checkout=checkout,
    )


def _locust(urls: Mapping[str, str]) -> tuple[LocustClient, dict[str, Any]]:
    """The stack's Locust with a worker ready, and what it says of itself."""
    if MASTER not in urls:
        raise UserError(f"The stack runs no Locust master (it has {', '.join(urls)}): `make down`, then `make up`.")
    locust = LocustClient(urls[MASTER])
    try:
        locust.wait_for_workers(1, WORKER_LIMIT_S)
        return locust, locust.setup()
    except LocustGone as error:
        raise UserError(f"{error}. See `make ps` and `make logs S={MASTER}`.") from None


def engines_to_ask(
    given: Sequence[Seat] | None, scenario: Scenario | None, checkout: Path
) -> tuple[list[Seat], EngineHost]:
    """The engines that a command without a race asks, and who starts and stops them.

    Args:
        given: endpoints that already run; None takes the stack's engines, set up as the scenario wants them.
        scenario: whose engines; None for all that the stack has.
        checkout: where the stack's state lies.

    Raises:
        UserError: the stack does not run, or lacks one.
    """
    if given is None and scenario is not None:
        given = seats_of(scenario.endpoints, scenario.engines)
    if given is not None:
        return list(given), host_of(given)
    stack = open_stack(checkout)
    if scenario is None:
        return list(stack.seats.values()), stack.host
    seats, _ = choose_seats(scenario, stack)
    settle_serving(scenario, stack)
    return seats, stack.host


def host_of(seats: Sequence[Seat]) -> ExternalHost:
    """Who asks after endpoints that someone else runs. Raises UserError: a header's variable is not set."""
    access = {seat.name: (seat.headers(), tls_context(seat.needs)) for seat in seats}
    return ExternalHost({seat.name: seat.base_url for seat in seats}, access)


def choose_seats(scenario: Scenario, stack: RunningStack) -> tuple[list[Seat], list[str]]:
    """The stack's engines that a scenario races, in its order, and what a person should know of the choice.

    A scenario that names no engines races all that the stack has. A name is a seat's; else it is the kind of exactly
    one (`vllm` is `vllm-cpu` in a stack that has one vLLM under that name).

    Raises UserError when the stack lacks one.
    """
    if not scenario.engines:
        return list(stack.seats.values()), []
    chosen: list[Seat] = []
    notes: list[str] = []
    for name in scenario.engines:
        alike = [seat for seat in stack.seats.values() if seat.kind == name]
        if name in stack.seats:
            chosen.append(stack.seats[name])
        elif len(alike) == 1:
            chosen.append(alike[0])
            notes.append(f"The scenario's {name} is {alike[0].name} in {stack.words}.")
        else:
            raise UserError(
                f"Scenario {scenario.name!r} races {', '.join(scenario.engines)}, and {stack.words} has "
                f"{', '.join(stack.seats)}. Race endpoints that run somewhere with --engine NAME=URL."
            )
    names = [seat.name for seat in chosen]
    if len(set(names)) != len(names):
        raise UserError(f"Scenario {scenario.name!r} names one engine twice: {', '.join(scenario.engines)}.")
    return chosen, notes


def settle_serving(scenario: Scenario, stack: RunningStack) -> None:
    """See to it that engines are started as the scenario's `serving:` block says; those that run otherwise are stopped.

    Raises UserError where the block cannot be written for the launchers.
    """
    declare_serving(stack.checkout, serving_json(scenario.serving), stack.host)
