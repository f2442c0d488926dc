"""`bakeoff quality`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen.cli.console import open_console
from loadgen.cli.options import AllowEnv, EndpointNeeds, Endpoints, JsonFile, with_groups
from loadgen.errors import OK, PREFLIGHT_REFUSES, THRESHOLD_FAILED, UNDECIDED, UserError
from loadgen.files import STDOUT, check_writable, write_result
from loadgen.machine import HOME

if TYPE_CHECKING:
    from loadgen.scenario.quality import Quality

CODES = {"same": OK, "differ": THRESHOLD_FAILED, "unknown": UNDECIDED, "degenerate": PREFLIGHT_REFUSES}
"""By the verdict."""


@with_groups
def quality(
    *,
    scenario_name: Annotated[
        str | None,
        typer.Argument(metavar="SCENARIO", help="Whose `quality:` says how much is asked: a name, or a .yaml file."),
    ] = None,
    endpoints: Endpoints,
    needs: EndpointNeeds,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ask these questions too: JSONL with `question` and `answer`, as GSM8K has."),
    ] = None,
    prompts: Annotated[int | None, typer.Option(metavar="N", help="Prompts (default 50).")] = None,
    tasks: Annotated[int | None, typer.Option(metavar="N", help="Tasks (default 80).")] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Requests at once, under load (default 16).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed, over the scenario's.")] = None,
    limit_s: Annotated[float | None, typer.Option(metavar="S", help="Most seconds an engine (default 180).")] = None,
    allow_env: AllowEnv = None,
    json_file: JsonFile = None,
) -> None:
    """Ask engines whether their answers are the same.

    Exit code: 0 the same, 1 no engine could be asked, 2 wrong usage, 3 they differ, 4 it cannot be told, 5 an engine
    does not compute the model, 130 interrupted; what was found until then is shown.
    """
    from loadgen.bench.running_stack import engines_to_ask
    from loadgen.endpoints.from_file import parse_allowed
    from loadgen.presentation.progress import StatusLine
    from loadgen.quality.phase import AnswerCheck, ask_all
    from loadgen.quality.show import quality_text
    from loadgen.runs.resume import find_scenario

    given = endpoints.seats(needs)
    check_writable(json_file)
    console = open_console(stderr=json_file == STDOUT)
    scenario = find_scenario(scenario_name) if scenario_name else None
    changed = {"prompts": prompts, "tasks": tasks, "concurrency": concurrency, "limit_s": limit_s, "file": file}
    asked = _settings(scenario.quality if scenario is not None else None, changed)
    tell = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    seats, host = engines_to_ask(given, scenario, HOME, parse_allowed(allow_env or ()), tell)
    seed = seed if seed is not None else scenario.seed if scenario is not None else 1
    check = AnswerCheck(asked, seed, [seat.name for seat in seats], host.describe)
    missing: list[str] = []
    try:
        with StatusLine(console) as progress:
            ask_all(
                *(seats, host, check),
                progress.engine,
                missing.append,
            )
    finally:
        for text in missing:
            console.print(text, soft_wrap=True, highlight=False, markup=False)
        result = check.result()
        if result is not None:
            if json_file is not None:
                write_result(json_file, result.model_dump_json(indent=2) + "\n")
            console.print(quality_text(result))
    if result is None:
        raise UserError("No engine could be asked.", exit_code=1)
    code = CODES[result.verdict]
    raise typer.Exit(UNDECIDED if code == OK and not result.complete else code)


def _settings(quality: Quality | None, given: dict[str, Any]) -> Quality:
    """A scenario's settings, or the defaults, with those of the command line over them. Raises UserError."""
    from pydantic import ValidationError

    from loadgen.scenario.quality import Quality
    from loadgen.validation import wrong_value

    own = (quality or Quality()).model_dump()
    told = {key: value for key, value in given.items() if value is not None}
    over = {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in told.items()}
    try:
        return Quality.model_validate({**own, **over})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{str(first['loc'][0]).replace('_', '-')}: {wrong_value(first)}") from None
