"""`.bakeoff/stack/stack.json`: what `make up` wrote down of the stack that it started in this checkout."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written
from loadgen.hosts.base import EngineHost
from loadgen.hosts.cards import Card, CardsOf


class HostedEngine(BaseModel):
    """One engine of a stack of plain processes."""

    name: str
    kind: str
    base_url: str
    health_url: str
    model: str | None = None
    """None: it is asked."""
    api: str | None = None
    log: Path
    launch_record: Path
    start_limit_s: float
    temp: Path | None = None
    """Its temporary files; None in stacks of before each had a folder of its own."""
    port_variable: str = ""
    """The variable of its port."""
    twin_of: str | None = None
    """The engine that it is a second seat of: on other cards, and raced only where it is named."""
    cards: CardsOf | None = None
    """Its GPUs; none on a CPU, and where serving settings are not applied to it."""
    model_dir: str = ""
    """The folder of its model; empty where that is not known."""


class SupervisorStack(BaseModel):
    """A stack of plain processes under supervisord."""

    runtime: str = "processes"
    profile: str = "cpu"
    key: str = ""
    """Changes with what the stack was started with."""
    socket: Path
    urls: dict[str, str]
    engines: dict[str, HostedEngine]
    gpus: list[Card] = []
    """This machine's, as its driver told of them."""
    moved_ports: dict[str, int] = {}
    """Ports that were chosen because those of the settings were taken, by variable."""


class DockerStack(BaseModel):
    """A stack of containers. Its engines are found by their labels (see `loadgen.hosts.docker`)."""

    runtime: str = "docker"
    project: str
    """Compose's project name."""
    profile: str
    urls: dict[str, str]
    """Where this machine reaches the services, by name."""
    runs_dir: Path
    """The folder of runs on this machine."""
    inside_runs_dir: str
    """The same folder, as Locust's containers see it."""


def stack_file(checkout: Path) -> Path:
    """Where a checkout's stack is described."""
    return checkout / ".bakeoff" / "stack" / "stack.json"


def serving_file(checkout: Path) -> Path:
    """Where the launchers of a checkout's engines find the serving settings asked for; containers mount its folder."""
    return stack_file(checkout).parent / "serving" / "serving.json"


def declare_serving(checkout: Path, text: str, host: EngineHost) -> None:
    """Have the engines of a stack started with these settings from now on: those that run with others are stopped.

    Args:
        checkout: whose stack it is.
        text: the serving block as JSON; empty for the engines' defaults.
        host: who stops them.

    Raises:
        UserError: the settings cannot be written down.
    """
    path = serving_file(checkout)
    try:
        changed = text != (path.read_text(encoding="utf-8") if path.exists() else "")
    except OSError as error:
        raise cannot_be_written(path, error) from None
    if changed:
        host.stop_all()
        write_serving(checkout, text)


def write_serving(checkout: Path, text: str) -> None:
    """Have engines that are started from now on use these settings; those that run go on. Raises UserError."""
    path = serving_file(checkout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text, mode=0o644)
    except OSError as error:
        raise cannot_be_written(path, error) from None


def write_stack(checkout: Path, stack: SupervisorStack | DockerStack) -> None:
    """Write down the stack that was started. Raises OSError."""
    atomic_write(stack_file(checkout), stack.model_dump_json(indent=2) + "\n")


def read_stack(checkout: Path) -> SupervisorStack | DockerStack:
    """The stack of this checkout. Raises UserError if none was started."""
    try:
        data = json.loads(stack_file(checkout).read_text(encoding="utf-8"))
        if data.get("runtime") == "docker":
            return DockerStack.model_validate(data)
        engines = {name: {"name": name, **facts} for name, facts in data["engines"].items()}
        return SupervisorStack.model_validate({**data, "engines": engines})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "the stack does not run: start it with `make up`, or name endpoints with --engine NAME=URL"
        ) from None
