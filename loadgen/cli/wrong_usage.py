"""A command line that cannot be read, in a sentence of ours in place of the parser's."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from typer.exceptions import TyperException

from loadgen.validation import wrong_value


def usage_words(error: TyperException) -> str:
    """What is wrong, where, and which help tells more."""
    cause, parameter = error.__cause__, getattr(error, "param", None)
    if isinstance(cause, ValidationError) and parameter is not None:
        message = f"{_name(parameter)}: {wrong_value(cause.errors()[0])}"
    else:
        message = " ".join(error.format_message().split())
    message = message if message.endswith("?") else f"{message.rstrip('.')}."
    context = getattr(error, "ctx", None)
    more = f"\nSee `{context.command_path} --help`." if context is not None else ""
    return f"Error: {message}{more}"


def _name(parameter: Any) -> str:
    """An option as it is typed, an argument as the help calls it."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).strip("[]")
    return max(parameter.opts, key=len, default=str(parameter.name))
