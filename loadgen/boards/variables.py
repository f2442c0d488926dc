"""The values of a board's variables, with Prometheus asked where they are its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.boards.dashboard import Board, Variable
from loadgen.boards.macros import ALL, MacroError, Value, built_in, constant, interpolate
from loadgen.boards.span import Span
from loadgen.monitoring.prometheus import Prometheus, PrometheusError

LABEL_VALUES = re.compile(r"label_values\(\s*(?:(?P<selector>.+?)\s*,\s*)?(?P<label>[a-zA-Z_]\w*)\s*\)", re.DOTALL)


def resolve(
    board: Board, prometheus: Prometheus, span: Span, given: Mapping[str, str]
) -> tuple[dict[str, Value], list[str]]:
    """The values of all variables of a board, Grafana's own among them, and what went wrong, in words.

    `given` has values that the page sets itself, such as that of `run`. Otherwise a variable that can be all of its
    values is, and any other keeps the value that the board was stored with where it still exists, else the first one.
    """
    values, problems = built_in(span), []
    for variable in board.variables:
        try:
            values[variable.name] = _value(variable, values, prometheus, span, given)
        except (PrometheusError, MacroError) as error:
            problems.append(f"Variable {variable.name}: {error}.")
            values[variable.name] = Value((), several=True, word="All")
    return values, problems


def _value(
    variable: Variable, known: Mapping[str, Value], prometheus: Prometheus, span: Span, given: Mapping[str, str]
) -> Value:
    several = variable.multi or variable.all
    if variable.name in given:
        return Value((given[variable.name],), several)
    if variable.type == "datasource":
        return Value(("prometheus",), word="Prometheus")
    if variable.type in ("constant", "textbox"):
        return constant(_query_text(variable.query))
    options = _options(variable, known, prometheus, span)
    if variable.all:
        return Value(tuple(options), several, variable.all_value or None, "All")
    stored = _stored(variable.current)
    chosen = [value for value in stored if value in options] or options[:1]
    return Value(tuple(chosen), several)


def _options(variable: Variable, known: Mapping[str, Value], prometheus: Prometheus, span: Span) -> list[str]:
    text = _query_text(variable.query)
    if variable.type in ("custom", "interval"):
        # An item may be written as `text : value`.
        return [item.rpartition(" : ")[2].strip() for item in text.split(",") if item.strip()]
    found = LABEL_VALUES.fullmatch(text.strip())
    if not found:
        raise MacroError(f"its query is not label_values(...): {text}")
    selector = found["selector"] and interpolate(found["selector"], known)
    values = prometheus.label_values(found["label"], selector, span.start, span.end)
    return _filtered(sorted(values), variable.regex)


def _filtered(values: Sequence[str], pattern: str) -> list[str]:
    """What a variable's regular expression, /like this/, leaves of its values: of each the first group, or all."""
    if not pattern:
        return list(values)
    body = re.fullmatch(r"/(.*)/[a-z]*", pattern, re.DOTALL)
    try:
        expression = re.compile(body[1] if body else f"^{pattern}$")
    except re.error as error:
        raise MacroError(f"its regular expression {pattern}: {error}") from None
    matches = [found for value in values if (found := expression.search(value))]
    return list(dict.fromkeys(found[1] if expression.groups else found.string for found in matches))


def _query_text(query: Any) -> str:
    """Grafana writes a query as a text, or as an object that holds it."""
    if isinstance(query, dict):
        query = query.get("query", "")
    return str(query or "")


def _stored(current: Mapping[str, Any]) -> list[str]:
    value = current.get("value")
    values = value if isinstance(value, list) else [value]
    return [str(each) for each in values if each not in (None, "", ALL)]
