"""Grafana's variables and macros in a query, as Grafana puts values in their place.

Source of the rules: Grafana's documentation, "Variable syntax" and "Prometheus template variables"; `$__rate_interval`
is max($__interval + scrape interval, 4 * scrape interval).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from loadgen.boards.span import Span

NAME = re.compile(r"\$(\w+)|\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)(?::(\w+))?\]\]")
ALL = "$__all"
SPECIAL = re.compile(r"[\\^$*{}\[\]+?.()|]")


class MacroError(Exception):
    """A query names a variable or a format that does not exist; the text says which."""


@dataclasses.dataclass(frozen=True)
class Value:
    """What a variable stands for."""

    values: tuple[str, ...]
    several: bool = False
    """Whether it may hold several values, so that queries match it as a regular expression."""
    pattern: str | None = None
    """The regular expression that stands for all of them, where the board sets one."""
    word: str | None = None
    """What a person calls it, such as `All`."""


def constant(text: str) -> Value:
    """A value that is put in as it is."""
    return Value((text,), pattern=text)


def built_in(span: Span, interval: float | None = None) -> dict[str, Value]:
    """Grafana's own variables for a time range; `interval` is the least step that a panel asks for, in seconds."""
    step = max(span.step, interval or 0)
    seconds = round(span.seconds)
    rate = max(step + span.scrape_interval, 4 * span.scrape_interval)
    texts = {
        "__interval": duration_text(step),
        "__interval_ms": str(round(step * 1000)),
        "__rate_interval": duration_text(rate),
        "__rate_interval_ms": str(round(rate * 1000)),
        "__range": f"{seconds}s",
        "__range_s": str(seconds),
        "__range_ms": str(round(span.seconds * 1000)),
        "__from": str(round(span.start * 1000)),
        "__to": str(round(span.end * 1000)),
    }
    return {name: constant(text) for name, text in texts.items()}


def interpolate(query: str, values: Mapping[str, Value]) -> str:
    """Put values into a query. `$1` of label_replace stays. Raises MacroError for an unknown variable or format."""

    def replace(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[4]
        if name.isdigit():
            return found[0]
        if name not in values:
            raise MacroError(f"the query has an unknown variable: {found[0]}")
        wanted = found[3] or found[5] or "default"
        if wanted not in FORMATS:
            raise MacroError(f"the query has an unknown format of a variable: {found[0]}")
        return FORMATS[wanted](values[name])

    return NAME.sub(replace, query)


def plain(text: str, values: Mapping[str, Value]) -> str:
    """Put values into a title or description; what is no variable stays."""

    def replace(found: re.Match[str]) -> str:
        value = values.get(found[1] or found[2] or found[4])
        return found[0] if value is None else value.word or " + ".join(value.values)

    return NAME.sub(replace, text)


def duration_text(seconds: float) -> str:
    """A length of time as PromQL writes it: `15s`, `1500ms`."""
    whole = round(seconds)
    return f"{whole}s" if abs(seconds - whole) < 1e-9 else f"{round(seconds * 1000)}ms"


def _default(value: Value) -> str:
    if value.pattern is not None:
        return value.pattern
    if value.several:
        return _regex(value)
    return "".join(map(_string, value.values[:1]))


def _regex(value: Value) -> str:
    """A regular expression inside a PromQL string, so that a backslash is two."""
    if value.pattern is not None:
        return value.pattern
    parts = [_string(SPECIAL.sub(r"\\\g<0>", each)) for each in value.values]
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})" if parts else ".*"


def _string(text: str) -> str:
    """A text inside the double quotes of PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _joined(separator: str) -> Callable[[Value], str]:
    return lambda value: separator.join(value.values)


FORMATS: dict[str, Callable[[Value], str]] = {
    "default": _default,
    "regex": _regex,
    "pipe": _joined("|"),
    "csv": _joined(","),
    "raw": _joined(","),
    "text": lambda value: value.word or " + ".join(value.values),
}
