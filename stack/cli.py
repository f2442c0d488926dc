"""`python -m stack`: choose between containers and plain processes, say which and why, and hand over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Annotated

import typer

from loadgen.hosts.stack_file import stack_file
from loadgen.settings import find_checkout, load_settings, load_settings_leniently, misspelt
from stack.choice import Choice, Found, choose
from stack.commands import run_command, say

app = typer.Typer(
    help="The stack, as containers where Docker answers, else as plain processes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# What `make logs` shows by default, and the engine that `make up` starts in the embedded stack.
FIRST_LOG = "locust-master"
EMBEDDED_ENGINE = "llamacpp"

Runtime = Annotated[str, typer.Option(help="docker or embedded; default: what this machine has.")]
Profile = Annotated[str, typer.Option(help="Containers: gpu, cpu or sim; default: what this machine has.")]


def look_around() -> Found:
    """What this machine has; takes some seconds at most."""
    from stack.containers.compose import find_compose
    from stack.containers.docker_engine import DockerEngine, engine_address, find_engine, has_nvidia_driver

    engine = find_engine(engine_address())
    if not isinstance(engine, DockerEngine):
        return Found(no_docker=f"no Docker engine: {engine}")
    compose = find_compose()
    if isinstance(compose, str):
        return Found(no_docker=f"no Docker Compose: {compose}")
    return Found(no_docker="", gpu_driver=has_nvidia_driver(), gpu_runtime=engine.gpu_runtime)


def running_runtime() -> str:
    """The runtime of the stack that this checkout has up, by stack.json; empty if none."""
    try:
        facts = json.loads(stack_file(find_checkout()).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(facts.get("runtime", "embedded")) if isinstance(facts, dict) else ""


def running_profile() -> str:
    """The profile of the containers that are up; empty if none are."""
    if running_runtime() != "docker":
        return ""
    return str(json.loads(stack_file(find_checkout()).read_text(encoding="utf-8")).get("profile", ""))


def decide(runtime: str, profile: str, *, lenient: bool = False) -> Choice:
    """Choose by arguments, then settings, then what is up, then what this machine has."""
    settings = (load_settings_leniently if lenient else load_settings)(find_checkout())
    runtime, running = runtime or settings.runtime, running_runtime()
    found = Found(no_docker="") if (runtime or running) == "embedded" else look_around()
    # What is up keeps its profile, so that `make bench` after `make up PROFILE=sim` means that stack.
    return choose(found, runtime=runtime, profile=profile or settings.profile or running_profile(), running=running)


def run(module: str, *arguments: str) -> None:
    """Hand over to one runtime's own commands, and end with their exit status."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


@app.command()
def setup(scenario: Annotated[str, typer.Option(help="Set up the engines that it races.")] = "") -> None:
    """Make the engines' environments, where the stack is plain processes; containers bring their own."""
    if decide("", "").runtime == "embedded":
        run("stack.processes", "setup", *(["--scenario", scenario] if scenario else []))


@app.command()
def up(
    engine: Annotated[str, typer.Option(help="Engine to start, or `none`; default: the usual one.")] = "",
    scenario: Annotated[str, typer.Option(help="Containers: set engines up by its serving block.")] = "",
    runtime: Runtime = "",
    profile: Profile = "",
    offline: Annotated[bool, typer.Option(help="Containers: build and pull no images.")] = False,
) -> None:
    """Bring the stack up."""
    choice = decide(runtime, profile)
    say(f"stack: {choice.reason}")
    for warning in misspelt(os.environ):
        say(f"warning: {warning}")
    if choice.runtime == "embedded":
        run("stack.processes", "up", "--engine", engine or EMBEDDED_ENGINE)
    options = ["--profile", choice.profile, "--engine", engine, "--scenario", scenario]
    # A race takes the images that the stack was brought up with.
    offline = offline or (engine == "none" and running_runtime() == "docker")
    run("stack.containers", "up", *options, *(["--offline"] if offline else []))


@app.command()
def down(volumes: Annotated[bool, typer.Option(help="Containers: remove the volumes too.")] = False) -> None:
    """Take the stack down, whichever is up; what an interrupted `up` left behind too."""
    from stack.containers.cli import open_stack

    known = running_runtime()
    status = 0
    if known != "docker":
        status = subprocess.run([sys.executable, "-m", "stack.processes", "down"], check=False).returncode
        if look_around().no_docker:
            raise typer.Exit(status)
        if not volumes and not open_stack(find_checkout()).exists():
            raise typer.Exit(status)
    open_stack(find_checkout()).down(volumes=volumes)
    raise typer.Exit(status)


@app.command()
def ps() -> None:
    """Show what runs."""
    run("stack.containers" if decide("", "", lenient=True).runtime == "docker" else "stack.processes", "ps")


@app.command()
def logs(name: Annotated[str, typer.Argument(help="As `ps` names it.")] = FIRST_LOG) -> None:
    """Follow one log."""
    run("stack.containers" if decide("", "", lenient=True).runtime == "docker" else "stack.processes", "logs", name)


def main() -> None:
    """Run, and print what the user can mend without a traceback."""
    run_command(app)
