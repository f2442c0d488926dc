"""`bakeoff preflight`."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer

from loadgen.cli.console import open_console
from loadgen.cli.options import Accept, AllowEnv, EndpointNeeds, Endpoints, JsonFile, with_groups
from loadgen.errors import UserError
from loadgen.files import STDOUT, check_writable, write_result
from loadgen.machine import HOME
from loadgen.preflight.names import parse_accept


@with_groups
def preflight(
    *,
    scenario_name: Annotated[
        str | None,
        typer.Argument(metavar="SCENARIO", help="What the engines are to be fit for: a name, or a .yaml file."),
    ] = None,
    endpoints: Endpoints,
    needs: EndpointNeeds,
    accept: Accept = None,
    allow_env: AllowEnv = None,
    json_file: JsonFile = None,
) -> None:
    """Ask engines, before a race, whether they do the same work.

    The same tokens in, the same text out, and how each one answers; every race begins with it. Exit code: 0 nothing
    stands in the way, 1 no engine could be asked, 2 wrong usage, 5 a race would mean nothing, 130 interrupted.
    """
    from loadgen.bench.running_stack import engines_to_ask
    from loadgen.endpoints.from_file import parse_allowed
    from loadgen.preflight.compare import refuse_blocking
    from loadgen.preflight.finding import Needs
    from loadgen.preflight.phase import Preflight, needs_of
    from loadgen.preflight.show import findings_json, findings_table
    from loadgen.presentation.progress import StatusLine
    from loadgen.runs.resume import find_scenario

    given, accepted = endpoints.seats(needs), parse_accept(accept or ())
    check_writable(json_file)
    console = open_console(stderr=json_file == STDOUT)
    scenario = find_scenario(scenario_name) if scenario_name else None
    tell = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    seats, host = engines_to_ask(given, scenario, HOME, parse_allowed(allow_env or ()), tell)
    last = seats[-1].name
    phase = Preflight(seats, host, needs_of(scenario) if scenario else Needs(), accepted)
    missing: list[str] = []
    try:
        with StatusLine(console) as progress:
            findings = phase.run(last, progress.engine, missing.append)
    finally:
        host.stop(last)
    for text in missing:
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    names = [seat.name for seat in seats]
    if findings:
        console.print(findings_table(findings, names))
    if json_file is not None:
        write_result(json_file, json.dumps(findings_json(findings, names), indent=2) + "\n")
    if not findings:
        raise UserError("No engine could be asked.", exit_code=1)
    refuse_blocking(findings)
    if phase.missing:
        raise UserError(f"{' and '.join(phase.missing)} could not be asked, so this is no comparison.", exit_code=1)
