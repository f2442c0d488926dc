"""`bakeoff preflight`."""

from __future__ import annotations

from typing import Annotated

import typer

from loadgen.cli.console import open_console
from loadgen.cli.options import (
    Accept,
    Api,
    ApiKeyEnv,
    EngineUrls,
    JsonFile,
    Model,
    Tokenizer,
    read_seats,
)
from loadgen.files import STDOUT, check_writable
from loadgen.machine import HOME
from loadgen.preflight.names import parse_accept


def preflight(
    scenario: Annotated[
        str | None,
        typer.Argument(metavar="SCENARIO", help="What the engines are to be fit for: a name, or a .yaml file."),
    ] = None,
    engine: EngineUrls = None,
    api: Api = None,
    model: Model = None,
    tokenizer: Tokenizer = None,
    api_key_env: ApiKeyEnv = None,
    accept: Accept = None,
    json_file: JsonFile = None,
) -> None:
    """Ask engines, before a race, whether they do the same work.

    The same tokens in, the same text out, and how each one answers; every race begins with it. Exit code: 0 nothing
    stands in the way, 1 no engine could be asked, 2 wrong usage, 5 a race would mean nothing, 130 interrupted.
    """
    from loadgen.cli.preflight_run import run_preflight

    seats = read_seats(engine, api=api, model=model, tokenizer=tokenizer, api_key_env=api_key_env)
    check_writable(json_file)
    run_preflight(
        scenario,
        checkout=HOME,
        engines=seats,
        accepted=parse_accept(accept or ()),
        json_file=json_file,
        console=open_console(stderr=json_file == STDOUT),
    )
