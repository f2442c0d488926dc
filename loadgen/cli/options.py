"""Options that several commands have, each written once, and what is made of them. Light: every command loads this."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

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
    responses = "responses"


class PlacementChoice(enum.StrEnum):
    """Whether engines take turns or run together."""

    turns = "turns"
    together = "together"
    both = "both"


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
    typer.Option("--lang", help="Language of pages and terminal; zh writes .zh.html and .zh.md files."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result to this file (- for stdout).")
]
GpuHour = Annotated[
    float | None,
    typer.Option(metavar="PRICE", help="What an hour of one GPU costs, over the scenario's: the report shows money."),
]
GpuMetrics = Annotated[
    str | None,
    typer.Option("--gpu-metrics", metavar="URL", help="Page of Bakeoff's GPU exporter where the engines run."),
]

Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME]",
        help=f"Go on although preflight found this (repeatable): {', '.join(BLOCKING)}.",
    ),
]

AllowEnv = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME]",
        help="Environment variable that the scenario may have sent to an endpoint, as key or header (repeatable).",
    ),
]


@dataclasses.dataclass(frozen=True)
class EndpointNeeds:
    """What an endpoint needs of a request. Most of it is found by asking, and need not be given."""

    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Further header (repeatable); env:VARIABLE takes it from there."),
    ] = None
    key_header: Annotated[
        str | None, typer.Option(metavar="NAME", help="Header of the API key, such as api-key (default: Bearer).")
    ] = None
    extra_body: Annotated[
        str | None, typer.Option(metavar="JSON", help="Fields that every request has; null removes one.")
    ] = None
    api_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="Path in place of /v1, such as /api/v3, or a whole route.")
    ] = None
    max_tokens_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Field of the output length, such as max_completion_tokens.")
    ] = None
    stream_options: Annotated[
        bool | None,
        typer.Option("--stream-options/--no-stream-options", help="Whether usage is asked for with stream_options."),
    ] = None
    stream_only: Annotated[
        bool | None, typer.Option("--stream-only/--no-stream-only", help="Whether it answers by streams only.")
    ] = None
    reasoning_end: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What ends reasoning inside an answer's text, such as </think>.")
    ] = None
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Take any certificate.")] = None
    cacert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates of a private authority (PEM).")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """All of them, by the names of `Needs`."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found["headers"] = found.pop("header") or None
        found["cacert"] = str(self.cacert.resolve()) if self.cacert is not None else None
        return found


@dataclasses.dataclass(frozen=True)
class Endpoints:
    """Engines that run already, and what holds for all of them."""

    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL[,KEY=VALUE]",
            help="Endpoint that already runs (repeatable); without it, the stack's engines. Its own kind, model, api, "
            "tokenizer, api-key-env, metrics (its page of figures), header, extra-body and the rest may follow.",
        ),
    ] = None
    api: Annotated[ApiChoice | None, typer.Option(help="API to use for every --engine.")] = None
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model name for every --engine.")] = None
    tokenizer: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder with the model's tokenizer, for --engine.")
    ] = None
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the API key, for --engine.")
    ] = None

    def seats(self, needs: EndpointNeeds, **more: object) -> list[Seat] | None:
        """The endpoints to race; None for the stack's engines. `more` are options that go with endpoints too.

        Raises:
            UserError: one is malformed, or an option for endpoints is given without any.
        """
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "engine"}
        shared |= needs.given()
        from loadgen.engines.needs import option_name, parse_given

        if not self.engine:
            for name in (name for name, value in {**shared, **more}.items() if value is not None):
                raise UserError(
                    f"--{option_name(name)} goes with --engine NAME=URL; without it the stack's engines are raced "
                    "as they are."
                )
            return None
        from loadgen.endpoints.seats import seat_of
        from loadgen.validation import check_name

        seats: list[Seat] = []
        for item in self.engine:
            name, equals, rest = item.partition("=")
            try:
                check_name(name)
            except ValueError as error:
                wrong = f"its name {error}" if equals else ""
            else:
                wrong = ""
            if wrong or not equals:
                such = "give NAME=URL, such as --engine vllm=http://127.0.0.1:8000."
                raise UserError(f"--engine {name!r}: {f'{wrong}: ' if wrong else ''}{such}")
            if any(seat.name == name for seat in seats):
                raise UserError(f"--engine {name}: the name {name!r} is taken twice.")
            url, own = parse_given(rest)
            own_headers = [*(shared["headers"] or ()), *own.pop("headers", ())] or None
            seats.append(seat_of(name, url, {**shared, **own, "headers": own_headers}, f"--engine {name}: "))
        return seats


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let parameters of a command be groups of options: dataclasses, whose fields stand on the command line."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{option: given.pop(option) for option in signature(kind).parameters})
        command(**given)

    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        parameters += signature(groups[name]).parameters.values() if name in groups else [parameter]
        hints |= get_type_hints(groups[name], include_extras=True) if name in groups else {}
    run.__annotations__ = {parameter.name: hints[parameter.name] for parameter in parameters}
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [each.replace(annotation=hints[each.name], kind=Parameter.KEYWORD_ONLY) for each in parameters]
    )
    return run


def default_runs_dir() -> Path:
    """Where runs are kept: BAKEOFF_RUNS_DIR from the environment or `.env`, else `runs`; from `HOME`."""
    from loadgen.settings import load_settings

    return HOME / load_settings(HOME).runs_dir
