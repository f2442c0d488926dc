"""`.bakeoff/stack/stack.json`: what `make up` wrote down of the stack that it started in this checkout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written
from loadgen.hosts.base import EngineHost


@dataclass(frozen=True)
class HostedEngine:
    """One engine of a stack of plain processes."""

    name: str
    kind: str
    base_url: str
    health_url: str
    model: str
    api: str
    log: Path
    launch_record: Path
    start_limit_s: float


@dataclass(frozen=True)
class SupervisorStack:
    """A stack of plain processes under supervisord."""

    socket: Path
    urls: dict[str, str]
    engines: dict[str, HostedEngine]


@dataclass(frozen=True)
class DockerStack:
    """A stack of containers. Its engines are found by their labels (see `loadgen.hosts.docker`)."""

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
        if text != (path.read_text(encoding="utf-8") if path.exists() else ""):
            host.stop_all()
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, text, mode=0o644)
    except OSError as error:
        raise cannot_be_written(path, error) from None


def read_stack(checkout: Path) -> SupervisorStack | DockerStack:
    """The stack of this checkout. Raises UserError if none was started."""
    try:
        data = json.loads(stack_file(checkout).read_text(encoding="utf-8"))
        if data.get("runtime") == "docker":
            return DockerStack(
                project=str(data["project"]),
                profile=str(data["profile"]),
                urls=dict(data["urls"]),
                runs_dir=Path(data["runs_dir"]),
                inside_runs_dir=str(data["inside_runs_dir"]),
            )
        engines = {
            name: HostedEngine(
                name=name,
                kind=facts["kind"],
                base_url=facts["base_url"],
                health_url=facts["health_url"],
                model=facts["model"],
                api=facts["api"],
                log=Path(facts["log"]),
                launch_record=Path(facts["launch_record"]),
                start_limit_s=float(facts["start_limit_s"]),
            )
            for name, facts in data["engines"].items()
        }
        return SupervisorStack(socket=Path(data["socket"]), urls=dict(data["urls"]), engines=engines)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "the stack does not run: start it with `make up`, or name endpoints with --engine NAME=URL"
        ) from None


def read_supervisor_stack(checkout: Path) -> SupervisorStack:
    """The stack of plain processes of this checkout. Raises UserError if none was started, or one of containers."""
    stack = read_stack(checkout)
    if isinstance(stack, DockerStack):
        raise UserError("this checkout's stack runs in containers, not as plain processes: `make down` ends it")
    return stack
