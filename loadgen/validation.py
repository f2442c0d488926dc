"""What users give: refused where unknown or of another type; what is wrong, in plain words in place of pydantic's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from loadgen.message import as_data, of_data

_TYPES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "list": "must be a list, such as [1, 2]",
    "model": "must hold keys of its own, `key: value`, indented below it",
}
_LIMITS = {
    "greater_than": ("gt", "must be more than {}"),
    "greater_than_equal": ("ge", "must be {} or more"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be {} or less"),
    "string_pattern_mismatch": ("pattern", "must match {}"),
    "literal_error": ("expected", "must be {}"),
    "enum": ("expected", "must be {}"),
}


class Strict(BaseModel):
    """A frozen model without coercion, since `requests: true` and `requests: "12"` are slips, not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Lenient(BaseModel):
    """What an older or a newer Bakeoff may have written: keys that are not known are passed over."""

    model_config = ConfigDict(extra="ignore")


def wrong_value(error: Mapping[str, Any]) -> str:
    """Say what is wrong, and what was given instead. `error` is one of `ValidationError.errors()`."""
    kind, facts = str(error["type"]), error.get("ctx") or {}
    if kind == "value_error":  # our own words
        return str(error["msg"]).removeprefix("Value error, ")
    if kind in _LIMITS and _LIMITS[kind][0] in facts:
        key, words = _LIMITS[kind]
        limit = facts[key]
        message = words.format(f"{limit:g}" if isinstance(limit, float) else limit)
    elif kind in ("too_short", "string_too_short"):
        return "must not be empty" if facts.get("min_length") == 1 else f"needs {facts.get('min_length')} or more"
    elif kind == "int_from_float":
        message = _TYPES["int"]
    elif kind == "finite_number":
        message = "must be a finite number"
    elif kind == "missing":
        return "this key is required"
    elif kind.endswith(("_type", "_parsing")) and kind.rpartition("_")[0] in _TYPES:
        message = _TYPES[kind.rpartition("_")[0]]
        if kind == "list_type" and isinstance(error.get("input"), str | int | float):
            message = f"must be a list, such as [{_short(error['input'])}]"
    else:
        message = str(error["msg"])
    given = error.get("input")
    return message if isinstance(given, dict) else f"{message}, not {_shown(given)}"


def _shown(given: Any) -> str:
    return "nothing" if given is None else repr(_short(given))


def _short(given: Any) -> str:
    try:
        return str(given)[:60]
    except ValueError:  # Python writes no whole number of over 4,300 digits, and YAML may have it in hexadecimal
        return "a number of thousands of digits"


NAME_CHARS = 120
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(text: str, limit: int = NAME_CHARS) -> str:
    """A run's id or an engine's name: it stands in paths, in labels and on terminals. Raises ValueError."""
    if len(text) > limit or _name.fullmatch(text) is None:
        raise ValueError(
            f"must be letters, digits, `-`, `_` and `.`, {limit} at most, a letter or digit first; not {text[:60]!r}"
        )
    return text


Name = Annotated[str, AfterValidator(check_name)]
"""A run's id or an engine's name, at every border."""
LongName = Annotated[str, AfterValidator(lambda text: check_name(text, 3 * NAME_CHARS))]
"""A name that is made of others: a block's."""
Moment = Annotated[float, Field(ge=0, le=4e9, allow_inf_nan=False)]
"""Seconds since the Unix epoch, up to the year 2096."""
Count = Annotated[int, Field(ge=0, le=10**9)]


def _words(value: object) -> str:
    text = of_data(value)
    if not isinstance(text, str):
        raise ValueError("is neither text nor a message")
    return text


Words = Annotated[str, PlainValidator(_words), PlainSerializer(as_data, when_used="json")]
"""A field for text that may be a message: in JSON, messages have their code and values beside the text."""
