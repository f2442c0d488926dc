"""Options that several commands have, each written once, and what is made of them. Light: every command loads this."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen.errors import UserError
from loadgen.machine import HOME
from loadgen.preflight.names import BLOCKING

if TYPE_CHECKING:
    from loadgen.endpoints.seats import Seat


class ApiChoice(enum.StrEnum):
    """Which OpenAI API the endpoint is asked by."""

    chat = "chat"
    completions = "completions"


class LanguageChoice(enum.StrEnum):
    """What pages are written in."""

    en = "en"
    zh = "zh"


RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Folder of run folders (default: the stack's, or ./runs)."),
]
RunName = Annotated[str | None, typer.Argument(metavar="RUN", help="Run id or folder (default: the newest).")]
Language = Annotated[
    LanguageChoice,
    typer.Option("--lang", help="Language of the pages; zh writes .zh.html and .zh.md files."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result to this file (- for stdout).")
]

EngineUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME=URL",
        help="Endpoint that already runs (repeatable); without it, the stack's engines.",
    ),
]
Api = Annotated[ApiChoice | None, typer.Option(help="API to use for every --engine.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Model name for every --engine.")]
Tokenizer = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder with the model's tokenizer.json, for --engine.")
]
ApiKeyEnv = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the API key, for --engine.")
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME]",
        help=f"Go on although preflight found this (repeatable): {', '.join(BLOCKING)}.",
    ),
]


def default_runs_dir() -> Path:
    """Where runs are kept: BAKEOFF_RUNS_DIR from the environment or `.env`, else `runs`; from `HOME`."""
    from loadgen.settings import load_settings

    return HOME / load_settings(HOME).runs_dir


def read_seats(
    engines: list[str] | None,
    *,
    api: ApiChoice | None,
    model: str | None,
    tokenizer: str | None,
    api_key_env: str | None,
    **more: object,
) -> list[Seat] | None:
    """The endpoints to race, from the options above; None for the stack's engines.

    Args:
        engines: `NAME=URL` each.
        api: of all of them.
        model: of all of them.
        tokenizer: of all of them.
        api_key_env: name of the environment variable with the key of all of them.
        more: further options that have no meaning without `engines`.

    Raises:
        UserError: one is malformed, or an option for endpoints is given without any.
    """
    own = {"api": api, "model": model, "tokenizer": tokenizer, "api_key_env": api_key_env, **more}
    if not engines:
        for name in (name for name, value in own.items() if value is not None):
            raise UserError(
                f"--{name.replace('_', '-')} goes with --engine NAME=URL; without it the stack's engines are raced as "
                "they are."
            )
        return None
    from loadgen.endpoints.endpoint import normalise_url
    from loadgen.endpoints.seats import Seat

    read_api_key(api_key_env)
    seats: list[Seat] = []
    for item in engines:
        name, equals, url = item.partition("=")
        if not equals or not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UserError(f"--engine {item!r}: give NAME=URL, such as --engine vllm=http://127.0.0.1:8000.")
        if any(seat.name == name for seat in seats):
            raise UserError(f"--engine {item!r}: the name {name!r} is taken twice.")
        facts: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "api_key_env": api_key_env}
        seats.append(Seat(name=name, base_url=normalise_url(url), api=api.value if api else None, **facts))
    return seats


def read_api_key(variable: str | None) -> str | None:
    """The key that an environment variable holds. Raises UserError when it is not set, or no key."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(f"--api-key-env {variable}: that environment variable is not set.")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"--api-key-env {variable}: that key holds a line break or another unprintable character.")
    return key
