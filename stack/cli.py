"""`python -m stack`: the one command line of the stack, as containers or as plain processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loadgen.errors import UserError
from loadgen.hosts.lock import STACK_LOCK, end_holder, refuse_while_held
from loadgen.hosts.stack_file import DockerStack, read_stack
from loadgen.machine import ROOT
from loadgen.presentation.plain_console import PlainConsole
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import load_manifest
from loadgen.runs.resume import find_scenario, scenario_of
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import serving_json
from loadgen.settings import Paths, Settings, load_settings, load_settings_leniently, misspelt
from stack.choice import Choice, Found, check_runtime, choose
from stack.commands import alone, run_command, say
from stack.gpu import gpus_here, in_words
from stack.runtime import NO_ENGINE, Runtime, State
from stack.setup import ENGINES, no_gpu_engine, supported

app = typer.Typer(
    help="The stack: engines, Locust, exporters, Prometheus and Grafana, as containers or as plain processes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
engine_app = typer.Typer(help="Start, stop or restart one engine of the running stack.", no_args_is_help=True)
app.add_typer(engine_app, name="engine")
CHECKOUT = ROOT
# What `make logs` shows by default.
FIRST_LOG = "locust-master"

RuntimeOption = Annotated[str, typer.Option("--runtime", help="docker or processes; default: what this machine has.")]
Profile = Annotated[str, typer.Option(help="gpu or cpu; containers also sim, or several with commas between.")]


def look_around() -> Found:
    """What this machine has; takes some seconds at most."""
    from stack.containers.compose import find_docker
    from stack.containers.docker_engine import has_nvidia_driver

    found = find_docker()
    if isinstance(found, str):
        return Found(no_docker=found)
    return Found(no_docker="", gpu_driver=has_nvidia_driver(), gpu_runtime=found[0].gpu_runtime)


def look_for_gpus(found: Found, settings: Settings) -> Found:
    """The same, with the GPUs that plain processes can use."""
    gpus = gpus_here()
    if isinstance(gpus, str):
        return dataclasses.replace(found, no_gpu=gpus)
    return dataclasses.replace(found, gpus=in_words(gpus), no_gpu=no_gpu_engine(settings))


def what_runs() -> tuple[str, str]:
    """Runtime and profile of the stack that this checkout has up, by stack.json; empty if none."""
    try:
        stack = read_stack(CHECKOUT)
    except UserError:
        return "", ""
    return ("docker" if isinstance(stack, DockerStack) else "processes"), stack.profile


def decide(runtime: str = "", profile: str = "", *, lenient: bool = False) -> Choice:
    """Choose by arguments, then settings, then what is up, then what this machine has."""
    settings = (load_settings_leniently if lenient else load_settings)(CHECKOUT)
    runtime, (running, its_profile) = check_runtime(runtime) or settings.runtime, what_runs()
    # What is up keeps its profile, so that `make bench` after `make up PROFILE=sim` means that stack.
    profile = profile or settings.profile or its_profile
    plain = (runtime or running) == "processes"
    found = Found(no_docker="") if plain else look_around()
    if (plain or found.no_docker) and not running and profile in ("", "gpu"):
        found = look_for_gpus(found, settings)
    return choose(found, runtime=runtime, profile=profile, running=running)


def open_runtime(runtime: str, profile: str = "cpu", *, offline: bool = False) -> Runtime:
    """A runtime by its name. Raises UserError where containers cannot be had."""
    if runtime == "docker":
        from stack.containers.runtime import ContainerRuntime

        return ContainerRuntime.here(CHECKOUT, profile, offline=offline)
    from stack.processes.runtime import ProcessRuntime

    return ProcessRuntime(CHECKOUT, profile=profile)


def raced(scenario: str, run: str) -> Scenario | None:
    """The scenario that is meant, by itself or as a run raced it; None for none. Raises UserError."""
    if run:
        folder = RunFolder.find(CHECKOUT / load_settings_leniently(CHECKOUT).runs_dir, run)
        return scenario_of(load_manifest(folder.manifest_path))
    return find_scenario(scenario) if scenario else None


def running_stack() -> Runtime:
    """The stack that is up, or that would be."""
    choice = decide(lenient=True)
    return open_runtime(choice.runtime, choice.profile)


def leave_races_alone() -> None:
    """Raise UserError while a race, or a test in the web UI, runs on this stack."""
    refuse_while_held(_stack_lock())


def _stack_lock() -> Path:
    return CHECKOUT / load_settings_leniently(CHECKOUT).runs_dir / STACK_LOCK


RunOption = Annotated[str, typer.Option(help="In place of a scenario: a run, by folder or name, and what it raced.")]
NewStack = Annotated[bool, typer.Option("--new", help="Refuse where this checkout's stack is up already.")]
FreePorts = Annotated[
    bool, typer.Option("--free-ports", help="Plain processes: take free ports in place of those that others hold.")
]


@app.command()
def check(
    runtime: RuntimeOption = "", profile: Profile = "", new: NewStack = False, free_ports: FreePorts = False
) -> None:
    """Look at disk, write access and ports before anything is made or fetched."""
    choice = decide(runtime, profile)
    open_runtime(choice.runtime, choice.profile).check(new=new, move_ports=free_ports)


@app.command()
def setup(
    engine: Annotated[list[str] | None, typer.Option(help="Engine to set up (repeatable); default: all.")] = None,
    scenario: Annotated[str, typer.Option(help="Set up the engines that this scenario races.")] = "",
    run: RunOption = "",
    verify: Annotated[bool, typer.Option(help="Check every model file's SHA-256.")] = False,
    runtime: RuntimeOption = "",
    profile: Profile = "",
) -> None:
    """Make the engines' environments and the model, where the stack is plain processes; what is there is kept."""
    choice = decide(runtime, profile)
    found = raced(scenario, run)
    with alone(Paths(CHECKOUT).state):
        stack = open_runtime(choice.runtime, choice.profile)
        engines = [name for name in found.stack_engines if name in stack.can_set_up()] if found else []
        stack.setup(engine or engines, verify=verify)


@app.command()
def bundle(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    part_mb: Annotated[int, typer.Option(min=0, help="Cut into parts of this many MB (10^6 bytes); 0: files.")] = 0,
    engine: Annotated[
        list[str] | None, typer.Option(help="llamacpp, vllm or vllm-gpu (repeatable); default: the CPU's two.")
    ] = None,
    python: Annotated[str, typer.Option(help="Whom it is for, such as 3.12; default: this Python.")] = "",
    platform: Annotated[str, typer.Option(help="linux-x86_64 or linux-aarch64; default: this machine's.")] = "",
    glibc: Annotated[str, typer.Option(help="The oldest glibc it must work with, such as 2.28.")] = "",
) -> None:
    """Fetch all that set-up would fetch into a folder, for a machine without a network."""
    from stack.bundle.make import make, order

    asked, began = order(python, platform, glibc, engine or [], part_mb), time.monotonic()
    made = make(CHECKOUT, folder.expanduser().absolute(), asked)
    shape = f"{len(made.parts)} parts of {part_mb} MB" if made.parts else f"{len(made.files)} files"
    target = f"Python {made.target.python} on {made.target.platform}"
    target += f" with glibc {made.glibc} or newer" if made.glibc else ""
    took = f"{time.monotonic() - began:.0f} s"
    say(f"bundle: {made.bytes / 1e6:.0f} MB in {shape}, for {target}; {took}. There: make setup BUNDLE={folder}")


@app.command("setup-bundle", hidden=True)
def setup_bundle() -> None:
    """Set up all that the bundle holds, so that it is not needed afterwards."""
    from stack.bundle.everything import set_up_all
    from stack.sources import bundle as given

    if (source := given()) is not None:
        with alone(Paths(CHECKOUT).state):
            set_up_all(Paths(CHECKOUT), source)
        say("set up from the bundle, which is not needed any more")


@app.command()
def up(
    engine: Annotated[str, typer.Option(help="Engine to start, or `none`; default: the usual one.")] = "",
    scenario: Annotated[str, typer.Option(help="Set the engines up as this scenario's serving block says.")] = "",
    run: RunOption = "",
    runtime: RuntimeOption = "",
    profile: Profile = "",
    offline: Annotated[bool, typer.Option(help="Containers: build and pull no images.")] = False,
    new: NewStack = False,
    free_ports: FreePorts = False,
) -> None:
    """Bring the stack up, with one engine serving."""
    choice = decide(runtime, profile)
    say(f"stack: {choice.reason}")
    for warning in misspelt(os.environ):
        say(f"warning: {warning}")
    found = raced(scenario, run)
    serving: str | None = "" if engine != NO_ENGINE else None
    if found:
        serving = serving_json(found.serving, resets=found.reset_prefix_caches)
    # A race takes the images that the stack was brought up with.
    offline = offline or (engine == NO_ENGINE and what_runs()[0] == "docker")
    with alone(Paths(CHECKOUT).state):
        leave_races_alone()
        stack = open_runtime(choice.runtime, choice.profile, offline=offline)
        try:
            for line in stack.up(engine, serving, new=new, move_ports=free_ports):
                say(line)
        except KeyboardInterrupt:
            say("interrupted: `make up` goes on with what was begun, `make down` ends it")
            raise
    states = stack.states()
    print_states(states)
    if any(each.name == "grafana" for each in states):
        say("Grafana's user is admin, its password BAKEOFF_GRAFANA_PASSWORD in .env")


@app.command()
def down(
    volumes: Annotated[bool, typer.Option(help="Containers: remove the volumes too.")] = False,
    runtime: RuntimeOption = "",
) -> None:
    """Take the stack down, whichever is up; what an interrupted `up` left behind too."""
    known = check_runtime(runtime) or what_runs()[0]
    with alone(Paths(CHECKOUT).state), contextlib.ExitStack() as afterwards:
        if ended := end_holder(_stack_lock()):
            say(f"ended: {ended}; what it had measured stays")
        if known == "docker" or (not runtime and not look_around().no_docker):
            containers = open_runtime("docker")
            # Called on leaving, so that processes that do not end keep no container up.
            afterwards.callback(containers.down, volumes=volumes)
        if known != "docker":
            open_runtime("processes").down(volumes=volumes)


@app.command("demo-plan", hidden=True)
def demo_plan() -> None:
    """Print profile, scenario and engines (none: all) of a demo, and say on stderr what it races and why."""
    choice = decide("processes")
    if choice.profile != "gpu":
        typer.echo("cpu smoke")
        return
    settings = load_settings(CHECKOUT)
    own = {engine.name for engine in settings.own_engines}
    race = demo_on_gpu(open_runtime("processes", "gpu").can_set_up(), own, bool(settings.model or settings.model_dir))
    if isinstance(race, str):
        typer.echo(f"demo: {race}, so the CPU's are raced", err=True)
        typer.echo(f"cpu smoke {','.join(name for name in ENGINES if supported(name) is None and name not in own)}")
        return
    scenario, engines = race
    raced = " and ".join(engines) if engines[1:] else "vLLM without and with CUDA graphs (it is the only engine here)"
    typer.echo(f"demo: {choice.reason}: races {raced}", err=True)
    typer.echo(f"gpu {scenario} {','.join(engines)}")


def demo_on_gpu(engines: Sequence[str], own: Set[str], has_model: bool) -> tuple[str, list[str]] | str:
    """The scenario of a demo on GPUs and its engines, or why there is none.

    Args:
        engines: those of the profile.
        own: of these, those that a command of the user's own starts.
        has_model: whether a model is named, which all others need.
    """
    ready = [name for name in engines if has_model or name in own]
    if not ready:
        return "no model is named for the GPU's engines (BAKEOFF_MODEL_DIR, BAKEOFF_MODEL)"
    if ready[1:]:
        return "gpu-smoke", ready
    if ready == ["vllm"] and not own:
        return "gpu-graphs", ready
    return f"{ready[0]} is the only engine on the GPU here, and a race takes two that are set up unlike one another"


@app.command()
def ps() -> None:
    """Show each process or container: state, pid or name, URL."""
    print_states(running_stack().states())


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="As `ps` names it.")] = FIRST_LOG,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0)] = 50,
    follow: Annotated[bool, typer.Option(help="Go on as lines come.")] = True,
) -> None:
    """Show the end of one log, and follow it."""
    running_stack().logs(name, lines, follow=follow)


@engine_app.command("start")
def engine_start(name: str) -> None:
    """Start an engine, stop the others, and wait until it is healthy."""
    stack = running_stack()
    with alone(Paths(CHECKOUT).state):
        leave_races_alone()
        stack.setup([name])
        stack.host().start(name, on_progress=lambda text: say(f"  {text}"))
    say(f"{name}: healthy")


@engine_app.command("stop")
def engine_stop(name: str) -> None:
    """Stop an engine."""
    leave_races_alone()
    running_stack().host().stop(name)
    say(f"{name}: stopped")


@engine_app.command("restart")
def engine_restart(name: str) -> None:
    """Stop an engine and start it again."""
    engine_stop(name)
    engine_start(name)


@app.command()
def pin() -> None:
    """Ask the registries for the digests of upstream's images and write them into compose.yaml."""
    from stack.containers.pin import pin_images

    pin_images(CHECKOUT / "compose.yaml")


def print_states(states: list[State]) -> None:
    """The table of `up` and `ps`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    with_gpus = any(each.gpus for each in states)
    for heading in ("name", "state", "pid or container", "up", "url", *(("GPU",) if with_gpus else ())):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "up" else "left")
    for each in states:
        row = (each.name, each.word, each.runs_as, _duration(each.up_s), " ".join(each.urls))
        table.add_row(*row, *((each.gpus,) if with_gpus else ()))
    # Wide enough for every row: a cut address is of no use, and a terminal wraps lines itself.
    PlainConsole(highlight=False, width=200).print(table, soft_wrap=True)


def _duration(seconds: int | None) -> str:
    """Seconds in words: 75 is "1 min 15 s"."""
    if seconds is None:
        return ""
    minutes = seconds // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def main() -> None:
    """Run, and print what the user can mend without a traceback."""
    run_command(app)
