"""The stack that runs in this checkout, as a race needs it: engine host, seats, Locust, Prometheus, run folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from loadgen.bench.placing import Plan, cards_here, cores_here, plan
from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.endpoints.endpoint import tls_context
from loadgen.endpoints.from_file import seats_of, told_addresses
from loadgen.endpoints.seats import Seat
from loadgen.engines import Api
from loadgen.engines.serving import plain
from loadgen.errors import UserError
from loadgen.hosts.base import EngineHost
from loadgen.hosts.cards import Card, CardsOf
from loadgen.hosts.external import ExternalHost
from loadgen.hosts.placement import declare_places
from loadgen.hosts.stack_file import DockerStack, SupervisorStack, declare_serving, read_stack, write_serving
from loadgen.hosts.supervisor import SupervisorHost
from loadgen.hosts.variants import Setting, VariantHost
from loadgen.message import joined, mark, say
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
    urls: Mapping[str, str]
    """Where its services answer, by name."""
    cards: Mapping[str, CardsOf] = field(default_factory=dict)
    """The cards of its engines, where serving settings decide how many are used."""
    gpus: Sequence[Card] = ()
    """This machine's; empty where that is not known."""
    model_dirs: Mapping[str, str] = field(default_factory=dict)
    """The folders of its engines' models on this machine, where they are known."""


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
            name: Seat(
                name=name,
                kind=each.kind,
                base_url=each.base_url,
                model=each.model,
                api=cast(Api, each.api),
                twin_of=each.twin_of,
            )
            for name, each in stack.engines.items()
        },
        locust=locust,
        runs_dir=Path(setup["runs_dir"]),
        prometheus_url=stack.urls.get("prometheus"),
        grafana_url=stack.urls.get("grafana"),
        packages=dict(setup["packages"]),
        facts={"runtime": "processes", "profile": stack.profile},
        checkout=checkout,
        urls=stack.urls,
        cards={name: each.cards for name, each in stack.engines.items() if each.cards is not None},
        gpus=stack.gpus,
        model_dirs={name: each.model_dir for name, each in stack.engines.items()},
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
        urls=stack.urls,
        cards={
            name: CardsOf(name, each.kind, each.gpus, True, f"BAKEOFF_{name.upper().replace('-', '_')}_GPUS")
            for name, each in engines.items()
            if each.gpus
        },
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
    given: Sequence[Seat] | None,
    scenario: Scenario | None,
    checkout: Path,
    allowed_env: frozenset[str] = frozenset(),
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Seat], EngineHost]:
    """The engines that a command without a race asks, and who starts and stops them.

    Args:
        given: endpoints that already run; None takes the stack's engines, set up as the scenario wants them.
        scenario: whose engines; None for all that the stack has.
        checkout: where the stack's state lies.
        allowed_env: environment variables that the scenario may have sent to endpoints.
        tell: given one line for each address beyond this machine that the scenario names.

    Raises:
        UserError: the stack does not run, or lacks one; or the scenario names a variable that may not be sent.
    """
    if given is None and scenario is not None:
        given = seats_of(scenario.endpoints, scenario.engines, allowed_env)
        for line in told_addresses(given or ()):
            tell(line)
    if given is not None:
        return list(given), host_of(given)
    stack = open_stack(checkout)
    if scenario is None:
        return list(stack.seats.values()), stack.host
    seats, _ = choose_seats(scenario, stack)
    return seats, settle_serving(scenario, stack, seats)


def host_of(seats: Sequence[Seat]) -> ExternalHost:
    """Who asks after endpoints that someone else runs. Raises UserError: a header's variable is not set."""
    access = {seat.name: (seat.headers(), tls_context(seat.needs)) for seat in seats}
    return ExternalHost({seat.name: seat.base_url for seat in seats}, access)


def choose_seats(scenario: Scenario, stack: RunningStack) -> tuple[list[Seat], list[str]]:
    """The stack's engines that a scenario races, in its order, and what a person should know of the choice.

    A scenario that names no engines races all that the stack has, but for twins. A name is a seat's; else it is the
    kind of exactly one (`vllm` is `vllm-cpu` in a stack that has one vLLM under that name). A variant is a seat with a
    name of its own.

    Raises UserError when the stack lacks one, or variants of one engine were to be up at once.
    """
    if not scenario.engines:
        return [seat for seat in stack.seats.values() if seat.twin_of is None], []
    chosen: list[Seat] = []
    notes: list[str] = []
    for name in scenario.engines:
        variant = scenario.variants.get(name)
        wanted = name if variant is None else variant.engine
        alike = [seat for seat in stack.seats.values() if seat.kind == wanted and seat.twin_of is None]
        seat = stack.seats.get(wanted) or (alike[0] if len(alike) == 1 else None)
        if seat is None:
            raise UserError(
                f"Scenario {scenario.name!r} races {', '.join(scenario.stack_engines)}, and {stack.words} has "
                f"{', '.join(stack.seats)}. Race endpoints that run somewhere with --engine NAME=URL."
            )
        if seat.name != wanted:
            notes.append(f"The scenario's {wanted} is {seat.name} in {stack.words}.")
        if variant is not None:
            seat = _own_seat(seat, scenario, stack, chosen)
        if variant is not None and name != seat.name:
            if name in stack.seats:
                raise UserError(f"`engines`: {name} is another engine of {stack.words}: give {wanted} another name.")
            seat = seat.model_copy(update={"name": name, "variant_of": seat.name})
        chosen.append(seat)
    names = [seat.name for seat in chosen]
    if len(set(names)) != len(names):
        raise UserError(f"Scenario {scenario.name!r} names one engine twice: {', '.join(scenario.engines)}.")
    _check_turns(scenario, chosen)
    return chosen, list(dict.fromkeys(notes)) + _told_apart(scenario, chosen)


def _own_seat(seat: Seat, scenario: Scenario, stack: RunningStack, chosen: Sequence[Seat]) -> Seat:
    """The seat of a setting: where engines stay up, and another has it already, a twin of it on other cards."""
    taken = {other.stack_name for other in chosen}
    if scenario.between_blocks == "restart" or seat.name not in taken:
        return seat
    free = (twin for twin in stack.seats.values() if twin.twin_of == seat.name and twin.name not in taken)
    return next(free, seat)


def plan_of(scenario: Scenario, stack: RunningStack, seats: Sequence[Seat]) -> Plan:
    """Where the engines of a stack run together, and their load generators. Raises UserError: too few GPUs."""
    cores, node_of, siblings = cores_here()
    client: set[int] = set()
    for pid in stack.locust.pids():
        with contextlib.suppress(OSError):
            client |= os.sched_getaffinity(pid)
    gpus = stack.facts.get("profile") == "gpu"
    needs = [scenario.cards_of(seat.name, seat.kind) if gpus else 0 for seat in seats]
    return plan(needs, cards_here() if gpus else [], cores, client, node_of=node_of, siblings=siblings)


def _check_turns(scenario: Scenario, seats: Sequence[Seat]) -> None:
    """Raise UserError where one engine were to be up with several settings at once."""
    for engine in {seat.stack_name for seat in seats} if scenario.between_blocks == "keep" else ():
        names = [seat.name for seat in seats if seat.stack_name == engine]
        if len(names) > 1:
            raise UserError(
                f"Scenario {scenario.name!r}: {' and '.join(names)} are settings of one engine, {engine}, which runs "
                "with one at a time: leave out `between_blocks: keep` or `placement`, so that each turn starts it "
                "afresh. On two GPUs or more it has a twin, which races beside it."
            )


def _told_apart(scenario: Scenario, seats: Sequence[Seat]) -> list[str]:
    """What each variant stands for, in words."""
    apart = scenario.settings_apart()
    notes: list[str] = []
    for seat in seats if scenario.variants else ():
        block = scenario.serving_of(seat.name)
        asked = block.asked() if block is not None else {}
        told = [
            f"{name}: {plain(asked[name])}" if name in asked else say("{name}: its own default", name=name)
            for name in apart
        ]
        words = (
            mark("{name} is {engine} with {settings}.") if told else mark("{name} is {engine}, set up as the others.")
        )
        notes.append(say(words, name=seat.name, engine=seat.stack_name, settings=joined("{a}, {b}", told)))
    return notes


def settle_serving(scenario: Scenario, stack: RunningStack, seats: Sequence[Seat]) -> EngineHost:
    """See to it that engines are started as the scenario's `serving:` block says, or each variant as its own.

    Those that run otherwise are stopped. Returns who starts and stops the seats by their names in the race. Raises
    UserError where the block cannot be written for the launchers.
    """
    declare_places(stack.checkout, {}, stack.host)
    if not scenario.variants:
        declare_serving(stack.checkout, serving_json(scenario.serving, resets=scenario.reset_prefix_caches), stack.host)
        return stack.host
    settings = {
        seat.name: Setting(
            seat.stack_name, serving_json(scenario.serving_of(seat.name), resets=scenario.reset_prefix_caches)
        )
        for seat in seats
    }
    return VariantHost(stack.host, settings, partial(write_serving, stack.checkout))
