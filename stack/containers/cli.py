"""`python -m stack.containers`: the stack as containers. The Makefile reaches it through `python -m stack`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import docker
import requests
import typer
from docker.errors import APIError, DockerException
from rich.console import Console
from rich.table import Table

from loadgen.errors import UserError
from loadgen.hosts.http_probe import http_status
from loadgen.runs.resume import find_scenario
from loadgen.scenario.serving import serving_json
from loadgen.settings import find_checkout
from stack.commands import run_command, say
from stack.containers.compose import find_compose
from stack.containers.docker_engine import engine_address, find_engine
from stack.containers.pin import pinned_images, with_digests
from stack.containers.runtime import PROFILES, ContainerRuntime

app = typer.Typer(
    help="Run engines, Locust, exporters, Prometheus and Grafana as containers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Names of the embedded stack's programs, by which the same services are asked for.
ALIASES = {"locust-master": "locust"}


def open_stack(checkout: Path) -> ContainerRuntime:
    """The container stack on the Docker engine of this machine. Raises UserError if there is none."""
    engine = find_engine(engine_address())
    if isinstance(engine, str):
        raise UserError(f"no Docker engine: {engine}. Start one, set DOCKER_HOST, or use RUNTIME=embedded.")
    compose = find_compose()
    if isinstance(compose, str):
        raise UserError(f"no Docker Compose: {compose}. Install the plugin, or use RUNTIME=embedded.")
    return ContainerRuntime(checkout, engine, compose)


def serving_of(scenario: str | None) -> str:
    """The serving block of a scenario as JSON; empty if it has none."""
    return serving_json(find_scenario(scenario).serving) if scenario else ""


@app.command()
def up(
    profile: Annotated[str, typer.Option(help=f"{', '.join(PROFILES)}, or several with commas between.")] = "cpu",
    engine: Annotated[str, typer.Option(help="Engine to start, or `none`; default: the profile's usual one.")] = "",
    scenario: Annotated[str, typer.Option(help="Set the engines up as this scenario's serving block says.")] = "",
    offline: Annotated[bool, typer.Option(help="Take the images that are here: build and pull none.")] = False,
) -> None:
    """Bring the stack up: all services of a profile, one engine started and the others made."""
    stack = open_stack(find_checkout())
    lacking = stack.up(profile, engine or None, serving=serving_of(scenario), offline=offline)
    for line in lacking:
        say(line)
    _print_states(stack)
    if any(each.service == "grafana" for each in stack.states()):
        say("Grafana's user is admin, its password BAKEOFF_GRAFANA_PASSWORD in .env")


@app.command()
def down(volumes: Annotated[bool, typer.Option(help="Remove the volumes too.")] = False) -> None:
    """Remove the stack's containers and networks."""
    open_stack(find_checkout()).down(volumes=volumes)


@app.command()
def ps() -> None:
    """Show each container: service, state, addresses on this machine."""
    _print_states(open_stack(find_checkout()))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="Service, as `ps` names it.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0)] = 50,
    follow: Annotated[bool, typer.Option(help="Go on as lines come.")] = True,
) -> None:
    """Show the end of a service's log, and follow it."""
    stack = open_stack(find_checkout())
    service = ALIASES.get(name, name)
    known = sorted({each.service for each in stack.states()})
    if service not in known:
        raise UserError(f"no service {name!r}: there are {', '.join(known)}")
    compose = stack.compose(stack.settings(), PROFILES)
    command = compose.command("logs", "--tail", str(lines), *(["--follow"] if follow else []), service)
    sys.stdout.flush()
    os.execvpe(command[0], command, dict(compose.environment))  # noqa: S606


@app.command()
def pin() -> None:
    """Ask the registries for the digests of upstream's images and write them into compose.yaml."""
    engine = find_engine(engine_address())
    if isinstance(engine, str):
        raise UserError(f"no Docker engine to ask the registries with: {engine}")
    client = docker.DockerClient(base_url=engine.host, timeout=60)

    def digest_of(image: str) -> str:
        try:
            digest = str(client.images.get_registry_data(image).id)
        except (APIError, DockerException, requests.RequestException) as error:
            why = getattr(error, "explanation", None) or error
            raise UserError(f"{image}: its registry does not tell its digest, so nothing was written: {why}") from None
        say(f"{image}@{digest}")
        return digest

    path = find_checkout() / "compose.yaml"
    text = path.read_text(encoding="utf-8")
    pinned = with_digests(text, digest_of)
    path.write_text(pinned, encoding="utf-8")
    say(f"{len(pinned_images(text))} digests are in {path.name}: review and commit it")


def _print_states(stack: ContainerRuntime) -> None:
    """The table of `up` and `ps`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("service", "state", "container", "url"):
        table.add_column(heading, no_wrap=True)
    for each in stack.states():
        urls = [f"http://{address}" for address in each.ports]
        # Docker asks an engine seldom; one that answers is up, whatever Docker has not asked yet.
        answers = each.word == "starting" and urls and http_status(f"{urls[0]}/health") == 200
        table.add_row(each.service, "healthy" if answers else each.word, each.container, " ".join(urls))
    # Wide enough for every row: a cut address is of no use, and a terminal wraps lines itself.
    Console(highlight=False, width=200).print(table, soft_wrap=True)


def main() -> None:
    """Run, and print what the user can mend without a traceback."""
    run_command(app)
