"""How one series or column is shown: the panel's defaults, and over them the overrides that match it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loadgen.boards.colours import MUTED, Colour, colour
from loadgen.boards.dashboard import FieldConfig, Matcher, Step, Thresholds
from loadgen.boards.units import text

DASHES = {"dash": "dash", "dot": "dot", "solid": "solid"}
NO_THRESHOLDS = Thresholds()


@dataclasses.dataclass(frozen=True)
class Field:
    """How a series or a column is shown."""

    name: str
    unit: str = ""
    decimals: int | None = None
    least: float | None = None
    most: float | None = None
    no_value: str | None = None
    fixed: Colour | None = None
    """The colour that the board sets, None where it leaves the choice."""
    by_thresholds: bool = False
    thresholds: Thresholds = NO_THRESHOLDS
    mappings: tuple[Mapping[str, Any], ...] = ()
    custom: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dash(self) -> str | None:
        """The line's dash in plotly's terms; None where the board leaves the choice."""
        style = self.custom.get("lineStyle")
        fill = style.get("fill") if isinstance(style, dict) else None
        return DASHES.get(str(fill)) if fill else None

    def text(self, value: float | str | None) -> str:
        """A value as it is shown: as it is mapped, else with its unit."""
        mapped = self.mapped(value)
        if mapped and mapped.get("text"):
            return str(mapped["text"])
        return value if isinstance(value, str) else text(value, self.unit, self.decimals)

    def colour_of(self, value: float | str | None) -> Colour | None:
        """The colour that a value has by its mapping or thresholds; None without either."""
        mapped = self.mapped(value)
        if mapped and mapped.get("color"):
            return colour(str(mapped["color"]))
        if isinstance(value, str) or value is None or not self.thresholds.steps:
            return None
        reached = [step for step in self.thresholds.steps if step.value is None or value >= self.limit(step)]
        return colour(reached[-1].color) if reached else MUTED

    def limit(self, step: Step) -> float:
        """A threshold's value; a percentage is of the range between least and most."""
        value = step.value or 0.0
        if self.thresholds.mode == "absolute":
            return value
        least, most = self.least or 0.0, 100.0 if self.most is None else self.most
        return least + (most - least) * value / 100

    def state_colour(self, value: float | str | None) -> Colour | None:
        """The same, with thresholds only where the board colours by them."""
        mapped = self.mapped(value)
        return self.colour_of(value) if self.by_thresholds or (mapped and mapped.get("color")) else None

    def mapped(self, value: float | str | None) -> Mapping[str, Any] | None:
        """What a value is mapped to: `text`, `color`."""
        for mapping in self.mappings:
            options = mapping.get("options") or {}
            kind = mapping.get("type")
            found = options.get(_key(value)) if kind == "value" else options.get("result")
            if isinstance(found, dict) and (kind == "value" or _covers(str(kind), options, value)):
                return found
        return None


def field_of(config: FieldConfig, name: str, *, ref: str = "A", numeric: bool = True) -> Field:
    """How a series or column of that name is shown. A name that an override sets replaces it."""
    settings = dict(config.defaults)
    settings["custom"] = dict(settings.get("custom") or {})
    for override in config.overrides:
        if _concerns(override.matcher, name, ref, numeric):
            for each in override.properties:
                if each.id.startswith("custom."):
                    settings["custom"][each.id.removeprefix("custom.")] = each.value
                else:
                    settings[each.id] = each.value
    paint = settings.get("color") or {}
    fixed = paint.get("fixedColor") if paint.get("mode") == "fixed" else None
    return Field(
        name=str(settings.get("displayName") or name),
        unit=str(settings.get("unit") or ""),
        decimals=_number(settings.get("decimals"), int),
        least=_number(settings.get("min"), float),
        most=_number(settings.get("max"), float),
        no_value=settings.get("noValue") or None,
        fixed=colour(str(fixed)) if fixed else None,
        by_thresholds=paint.get("mode", "thresholds") == "thresholds",
        thresholds=_thresholds(settings.get("thresholds")),
        mappings=tuple(each for each in settings.get("mappings") or () if isinstance(each, dict)),
        custom=settings["custom"],
    )


def _concerns(matcher: Matcher, name: str, ref: str, numeric: bool) -> bool:
    options = matcher.options
    if matcher.id == "byName":
        return bool(options == name)
    if matcher.id == "byRegexp":
        return _matches(options, name)
    if matcher.id == "byFrameRefID":
        return bool(options == ref)
    if matcher.id == "byNames":
        names: Sequence[str] = (options or {}).get("names") or ()
        return (name in names) != ((options or {}).get("mode") == "exclude")
    return bool(options == "number") == numeric  # byType


def _matches(pattern: Any, value: str) -> bool:
    """Whether a JavaScript regular expression, `/like this/i` or bare, is found in a text."""
    found = re.fullmatch(r"/(.*)/([a-z]*)", str(pattern), re.DOTALL)
    body, flags = (found[1], found[2]) if found else (f"^{pattern}$", "")
    try:
        return re.search(body, value, re.IGNORECASE if "i" in flags else 0) is not None
    except re.error:
        return False


def _covers(kind: str, options: Mapping[str, Any], value: float | str | None) -> bool:
    """Whether a mapping of that kind is for a value."""
    if kind == "range":
        low, high = options.get("from"), options.get("to")
        numeric = isinstance(value, (int, float))
        return numeric and (low is None or value >= low) and (high is None or value <= high)
    if kind == "regex":
        return isinstance(value, str) and _matches(options.get("pattern"), value)
    return kind == "special" and options.get("match") in _special(value)


def _thresholds(value: Any) -> Thresholds:
    try:
        return TypeAdapter(Thresholds).validate_python(value or {})
    except ValidationError:
        return NO_THRESHOLDS


def _number(value: Any, kind: type) -> Any:
    return kind(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _key(value: float | str | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _special(value: float | str | None) -> tuple[str, ...]:
    if value is None:
        return ("null", "null+nan", "empty")
    if isinstance(value, float) and math.isnan(value):
        return ("nan", "null+nan")
    if value == "":
        return ("empty",)
    return ()
