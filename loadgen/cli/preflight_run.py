"""`bakeoff preflight`: compares engines without a race."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadgen.bench.running_stack import choose_seats, open_stack, settle_serving
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.files import write_result
from loadgen.hosts.base import EngineHost
from loadgen.hosts.external import ExternalHost
from loadgen.preflight.compare import refuse_blocking
from loadgen.preflight.finding import Needs
from loadgen.preflight.phase import Preflight, needs_of
from loadgen.preflight.show import findings_json, findings_table
from loadgen.presentation.progress import StatusLine
from loadgen.runs.resume import find_scenario


def run_preflight(
    scenario_name: str | None,
    *,
    checkout: Path,
    engines: Sequence[Seat] | None,
    accepted: frozenset[str],
    json_file: Path | None,
    console: Console,
) -> None:
    """Ask and compare engines, and print the findings. Engines of the stack are stopped when they have answered.

    Args:
        scenario_name: what they are to be fit for: a shipped scenario's name or a file; None for nothing in particular.
        checkout: where the stack's state lies.
        engines: endpoints that already run; None for those of the stack.
        accepted: checks whose blocking findings do not count.
        json_file: where to write the findings for programs (`-` for stdout); None for nowhere.
        console: where to show them.

    Raises:
        UserError: a finding blocks (exit code 5), or no engine could be asked.
    """
    scenario = find_scenario(scenario_name) if scenario_name else None
    host: EngineHost
    if engines is not None:
        seats = list(engines)
        host = ExternalHost({seat.name: seat.base_url for seat in seats})
    else:
        stack = open_stack(checkout)
        host = stack.host
        seats = choose_seats(scenario, stack)[0] if scenario else list(stack.seats.values())
        if scenario is not None and scenario_name is not None:
            settle_serving(scenario, stack)
    last = seats[-1].name
    preflight = Preflight(seats, host, needs_of(scenario) if scenario else Needs(), accepted)
    progress = StatusLine(console)
    missing: list[str] = []
    try:
        with progress:
            findings = preflight.run(
                last, lambda name, text: progress.line(f"{name}: {text.removeprefix(f'{name}: ')}"), missing.append
            )
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
    unasked = [name for name in names if not any(name in fact.values for fact in findings)]
    if unasked:
        raise UserError(f"{' and '.join(unasked)} could not be asked, so this is no comparison.", exit_code=1)
