"""`bakeoff bench`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from loadgen.cli.console import open_console
from loadgen.cli.options import (
    Accept,
    AllowEnv,
    EndpointNeeds,
    Endpoints,
    GpuHour,
    GpuMetrics,
    PlacementChoice,
    RunsDir,
    default_runs_dir,
    with_groups,
)
from loadgen.errors import UserError
from loadgen.gate.options import Gate
from loadgen.machine import HOME
from loadgen.preflight.names import parse_accept

UNTIL_DECIDED = "--until-decided"
MOST_REPEATS = "16"
DEFAULT_SCENARIO = "smoke"


@with_groups
def bench(
    *,
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIO", help="Name of a shipped scenario, a .yaml file or a run's folder (default: smoke)."
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was stopped, or with --repeats or --until-decided with any.",
        ),
    ] = None,
    endpoints: Endpoints,
    needs: EndpointNeeds,
    runs_dir: RunsDir = None,
    requests: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Measured requests a block, over the scenario's.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Repeats, over the scenario's; with --resume all that the run is to have."
        ),
    ] = None,
    starts: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Starts of the engines, over the scenario's."),
    ] = None,
    placement: Annotated[
        PlacementChoice | None,
        typer.Option(
            help="Over the scenario's: engines in turns, together (each on cards and cores of its own, at the same "
            "instant), or both, which tells how much they disturb each other."
        ),
    ] = None,
    until_decided: Annotated[
        int | None,
        typer.Option(
            UNTIL_DECIDED,
            min=2,
            max=256,
            metavar="[MAX]",
            help="Repeat until the verdict is clear, at most MAX times (default 16).",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed, over the scenario's.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="Locust workers, with --engine (default 1).")
    ] = None,
    quality: Annotated[
        bool | None,
        typer.Option("--quality/--no-quality", help="Compare answers, whatever the scenario's `quality:` says."),
    ] = None,
    allow_short_output: Annotated[
        bool, typer.Option("--allow-short-output", help="An answer shorter than asked for is no error.")
    ] = False,
    gpu_hour: GpuHour = None,
    gpu_metrics: GpuMetrics = None,
    tell_folder: Annotated[
        Path | None, typer.Option(hidden=True, help="Write the run folder's path into this file.")
    ] = None,
    accept: Accept = None,
    allow_env: AllowEnv = None,
    gate: Gate,
) -> None:
    """Race engines over a scenario, into a run folder.

    Exit code: 0 every block was completed without a failed request, 1 not so, 2 wrong usage, 3 a threshold failed, 4
    none failed, but one is undecided, 5 preflight found engines that cannot be compared, 6 the load generator was the
    limit, so that nothing can be judged, 130 interrupted.
    """
    from loadgen.bench.race import Order, run_bench
    from loadgen.endpoints.from_file import parse_allowed
    from loadgen.endpoints.seats import page_url
    from loadgen.runs.resume import find_scenario
    from loadgen.scenario.cost import priced

    seats = endpoints.seats(needs, workers=workers)
    if seats is not None:
        gate.check_engines(len(seats))
    overrides: dict[str, Any] = {"requests": requests, "repeats": repeats, "starts": starts, "seed": seed}
    overrides["placement"] = placement.value if placement is not None else None
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if allow_short_output:
        overrides["allow_short_output"] = True
    if quality is not None:
        own = find_scenario(scenario or DEFAULT_SCENARIO).quality
        overrides["quality"] = (own.model_dump() if own is not None else {}) if quality else None
    if gpu_hour is not None:
        own_cost = None if resume is not None else find_scenario(scenario or DEFAULT_SCENARIO).cost
        overrides["cost"] = priced(own_cost, gpu_hour).model_dump()
    extended = overrides.pop("repeats", None) if resume is not None else None
    if resume is not None and (scenario is not None or overrides):
        raise UserError(
            "--resume goes on with the run's own scenario: leave out the scenario's name and its settings, but for "
            "--repeats and --until-decided."
        )
    if resume is None:
        gate.thresholds(find_scenario(scenario or DEFAULT_SCENARIO).fail_if)  # raises here, not after the race
    console = open_console()
    order = Order(
        scenario or DEFAULT_SCENARIO,
        seats,
        HOME,
        default_runs_dir(),
        runs_dir,
        resume,
        overrides,
        repeats=extended,
        most_repeats=until_decided,
        workers=workers or 1,
        tell_folder=tell_folder,
        gpu_metrics=None if gpu_metrics is None else page_url(gpu_metrics, "--gpu-metrics"),
        accepted=parse_accept(accept or ()),
        allowed_env=parse_allowed(allow_env or ()),
    )
    raise typer.Exit(run_bench(order, console, lambda folder: gate.judge_run(folder, console)))


def with_most_repeats(arguments: Sequence[str]) -> list[str]:
    """`--until-decided` may stand without its number, which the parser does not know of.

    Raises UserError where a word follows that is neither a number nor may be a scenario.
    """
    words: list[str] = []
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        words.append(word)
        if word != UNTIL_DECIDED or following.isdigit():
            continue
        if following and not following.startswith("-") and not _may_be_scenario(following):
            raise UserError(
                f"{UNTIL_DECIDED} {following}: {following!r} is neither a number of repeats nor a scenario. Give the "
                "most repeats that there may be, such as 8, or leave it out."
            )
        words.append(MOST_REPEATS)
    return words


def _may_be_scenario(word: str) -> bool:
    from loadgen.scenario.file import GROUPS, shipped_scenarios

    return any(word in shipped_scenarios(group) for group in ("", *GROUPS)) or any(mark in word for mark in "./")
