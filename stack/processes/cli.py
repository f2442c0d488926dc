"""`python -m stack.processes`: the stack as plain processes. The Makefile's targets call these."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loadgen.errors import UserError
from loadgen.hosts.supervisor import SupervisorHost
from loadgen.runs.resume import find_scenario
from loadgen.settings import Paths, find_checkout, load_settings, load_settings_leniently
from stack import setup as engine_setup
from stack.commands import run_command, say
from stack.processes.programs import engines_here
from stack.processes.runtime import ProcessRuntime

app = typer.Typer(
    help="Run engines, Locust, exporters and Prometheus as plain processes, without Docker or GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
engine_app = typer.Typer(help="Start, stop or restart one engine of the running stack.", no_args_is_help=True)
app.add_typer(engine_app, name="engine")


def _stack(*, lenient: bool = False) -> ProcessRuntime:
    checkout = find_checkout()
    load = load_settings_leniently if lenient else load_settings
    return ProcessRuntime(load(checkout), Paths(checkout))


def _need_known(engine: str) -> None:
    if engine not in engine_setup.ENGINES:
        raise UserError(f"unknown engine {engine}: there are {', '.join(engine_setup.ENGINES)}")


@app.command()
def setup(
    engine: Annotated[list[str] | None, typer.Option(help="Engine to set up (repeatable); default: all.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Set up the engines that this scenario races.")] = None,
    verify: Annotated[bool, typer.Option(help="Check every model file's SHA-256.")] = False,
) -> None:
    """Make the engines' environments and the model; what is there already is kept."""
    if scenario is not None:
        engine = [name for name in find_scenario(scenario).engines if name in engine_setup.ENGINES]
    stack = _stack()
    for name in engine or engine_setup.ENGINES:
        _need_known(name)
        reason = engine_setup.supported(name)
        if reason and not engine:
            say(reason)
            continue
        with stack.lock():
            engine_setup.ensure_engine(stack.paths, name, verify=verify)
        say(f"{name}: ready")


@app.command()
def up(engine: Annotated[str, typer.Option(help="Engine to start, or `none`.")] = "llamacpp") -> None:
    """Start the stack and one engine (the other is stopped: one serves at a time)."""
    if engine != "none":
        _need_known(engine)
    stack = _stack()
    with stack.lock():
        lacking = stack.up(None if engine == "none" else engine)
    for line in lacking:
        say(line)
    _print_states(stack)
    if any(program.name == "grafana" for program in stack.programs()):
        say("Grafana's user is admin, its password BAKEOFF_GRAFANA_PASSWORD in .env")


@app.command()
def down() -> None:
    """End every process of this checkout's stack."""
    stack = _stack(lenient=True)
    with stack.lock():
        stack.down()


@app.command()
def ps() -> None:
    """Show each process: state, pid, uptime, URL."""
    _print_states(_stack(lenient=True))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="Program, as `ps` names it.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0)] = 50,
    follow: Annotated[bool, typer.Option(help="Go on as lines come.")] = True,
) -> None:
    """Show the end of a program's log, and follow it."""
    paths = _stack(lenient=True).paths
    log = paths.log(name)
    known = sorted(path.stem for path in paths.logs.glob("*.log"))
    if name not in known:
        raise UserError(f"no log of {name!r}: there are {', '.join(known) or 'none yet (run `make up`)'}")
    sys.stdout.flush()
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(log)])  # noqa: S606


@engine_app.command("start")
def engine_start(name: str) -> None:
    """Start an engine, stop the other, and wait until it is healthy."""
    _need_known(name)
    stack = _stack()
    with stack.lock():
        engine_setup.ensure_engine(stack.paths, name)
        _host(stack).start(name, on_progress=lambda text: say(f"  {text}"))
    say(f"{name}: healthy")


@engine_app.command("stop")
def engine_stop(name: str) -> None:
    """Stop an engine."""
    _host(_stack()).stop(name)
    say(f"{name}: stopped")


@engine_app.command("restart")
def engine_restart(name: str) -> None:
    """Stop an engine and start it again."""
    engine_stop(name)
    engine_start(name)


def _host(stack: ProcessRuntime) -> SupervisorHost:
    host = stack.host()
    if host is None:
        raise UserError("the stack does not run: start it with `make up`")
    return host


def _print_states(stack: ProcessRuntime) -> None:
    """The table of `up` and `ps`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("process", "state", "pid", "up", "url"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("pid", "up") else "left")
    for row in stack.states():
        up_for = "" if row["uptime_s"] is None else _duration(row["uptime_s"])
        table.add_row(row["name"], row["state"], str(row["pid"] or ""), up_for, row["url"])
    console = Console(highlight=False)
    console.print(table, soft_wrap=not console.is_terminal)
    missing = [name for name in engine_setup.ENGINES if name not in engines_here()]
    for name in missing:
        say(f"{name}: not here. {engine_setup.supported(name)}")


def _duration(seconds: int) -> str:
    """Seconds in words: 75 is "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def main() -> None:
    """Run, and print what the user can mend without a traceback."""
    run_command(app)
