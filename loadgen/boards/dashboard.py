"""Grafana's dashboard JSON (the classic form, schemaVersion 39 to 42) as plain panels.

What the page cannot show as Grafana does is refused by name, not left out: a board must not lose a panel in silence.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from loadgen.boards.units import known
from loadgen.errors import UserError

Kind = Literal["timeseries", "stat", "gauge", "bargauge", "table", "state-timeline", "text"]
KINDS = get_args(Kind)
MATCHERS = ("byName", "byRegexp", "byFrameRefID", "byType", "byNames")
TRANSFORMATIONS = ("merge", "organize", "sortBy")
VARIABLES = ("datasource", "query", "custom", "constant", "interval", "textbox")


class _Json(BaseModel):
    """A part of Grafana's JSON: what is not named here is a matter of looks, or of Grafana's own pages."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Place(_Json):
    """Where a panel lies on the grid of 24 columns."""

    x: int = Field(ge=0, le=23)
    y: int = Field(ge=0)
    w: int = Field(ge=1, le=24)
    h: int = Field(ge=1)


class Target(_Json):
    """One query."""

    ref: str = Field("A", alias="refId")
    expr: str = ""
    legend: str = Field("", alias="legendFormat")
    instant: bool = False
    hide: bool = False


class Step(_Json):
    """From this value on, this colour."""

    color: str
    value: float | None = None


class Thresholds(_Json):
    """Colours by value, in rising order; the first one's value is None."""

    mode: Literal["absolute", "percentage"] = "absolute"
    steps: tuple[Step, ...] = ()


class Matcher(_Json):
    """Which series an override is for."""

    id: str
    options: Any = None


class Property(_Json):
    """One thing that an override sets."""

    id: str
    value: Any = None


class Override(_Json):
    """What is different for some series."""

    matcher: Matcher
    properties: tuple[Property, ...] = ()


class FieldConfig(_Json):
    """How values are shown: for all series, and for some."""

    defaults: dict[str, Any] = Field(default_factory=dict)
    overrides: tuple[Override, ...] = ()


class Transformation(_Json):
    """A step between the answer and the table."""

    id: str
    options: dict[str, Any] = Field(default_factory=dict)
    disabled: bool = False


class Panel(_Json):
    """One panel."""

    type: Kind
    title: str = ""
    description: str = ""
    place: Place = Field(Place(x=0, y=0, w=12, h=8), alias="gridPos")
    targets: tuple[Target, ...] = ()
    fields: FieldConfig = Field(default_factory=FieldConfig, alias="fieldConfig")
    options: dict[str, Any] = Field(default_factory=dict)
    transformations: tuple[Transformation, ...] = ()
    interval: str | None = None

    @field_validator("description", "title", mode="before")
    @classmethod
    def _no_text(cls, value: Any) -> Any:
        return "" if value is None else value


class Variable(_Json):
    """One variable of a board, as it is written."""

    name: str
    type: str
    label: str | None = None
    query: Any = None
    regex: str = ""
    current: dict[str, Any] = Field(default_factory=dict)
    multi: bool = False
    all: bool = Field(False, alias="includeAll")
    all_value: str | None = Field(None, alias="allValue")


class Section(_Json):
    """The panels of one row, or those above the first one."""

    title: str = ""
    panels: tuple[Panel, ...] = ()


@dataclasses.dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]
    links: tuple[str, ...] = ()
    """The boards that its head links to, by uid, in order."""

    @property
    def panels(self) -> list[Panel]:
        """All panels, in reading order."""
        return [panel for section in self.sections for panel in section.panels]


def load_boards(folder: Path) -> list[Board]:
    """Read all boards of a folder, in the order in which they link to each other, else by name.

    Raises UserError for what cannot be shown.
    """
    files = sorted(folder.glob("*.json"), key=lambda path: path.stem)
    if not files:
        raise UserError(f"There is no dashboard in {folder}: a checkout has them there.")
    boards = [load_board(path) for path in files]
    order = {uid: place for place, uid in enumerate(boards[0].links)}
    return sorted(boards, key=lambda board: order.get(board.uid, len(order)))


def load_board(path: Path) -> Board:
    """Read one board.

    Raises:
        UserError: it is no dashboard, or has a panel, transformation, override, unit or variable that the page
            cannot show as Grafana does; file and panel are named.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("panels"), list):
            raise UserError(f"{path}: not a dashboard in Grafana's classic JSON: it has no list of panels.")
        variables = document.get("templating", {}).get("list", [])
        return Board(
            uid=str(document.get("uid") or path.stem),
            title=str(document.get("title") or path.stem),
            description=str(document.get("description") or ""),
            variables=tuple(_variable(path, each) for each in variables),
            sections=tuple(_sections(path, document["panels"])),
            links=tuple(
                re.findall(r"/d/([\w-]+)", " ".join(str(each.get("url")) for each in document.get("links") or ()))
            ),
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise UserError(f"{path}: not a readable dashboard: {error}") from None


def _sections(path: Path, panels: Sequence[Any]) -> Iterable[Section]:
    """Rows, open or collapsed. An open row's panels follow it in the list, a collapsed one's lie inside it."""
    title, found = "", list[Panel]()
    for item in sorted(panels, key=_reading_order):
        if isinstance(item, dict) and item.get("type") == "row":
            if found:
                yield Section(title=title, panels=tuple(found))
            title = str(item.get("title") or "")
            found = [_panel(path, inner) for inner in sorted(item.get("panels") or (), key=_reading_order)]
        else:
            found.append(_panel(path, item))
    if found:
        yield Section(title=title, panels=tuple(found))


def _reading_order(item: Any) -> tuple[int, int]:
    place = item.get("gridPos", {}) if isinstance(item, dict) else {}
    return (place.get("y", 0), place.get("x", 0))


def _panel(path: Path, item: Any) -> Panel:
    title = item.get("title") if isinstance(item, dict) else None
    where = f"{path}: panel {title or '(without a title)'!r}"
    if not isinstance(item, dict):
        raise UserError(f"{where}: not a panel.")
    kind = item.get("type")
    if kind not in KINDS:
        raise UserError(f"{where}: panels of type {kind!r} cannot be shown; there are {', '.join(KINDS)} and row.")
    if item.get("repeat"):
        raise UserError(f"{where}: panels that repeat cannot be shown.")
    try:
        panel = Panel.model_validate(item)
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error)}") from None
    for transformation in panel.transformations:
        if transformation.id not in TRANSFORMATIONS or panel.type != "table":
            raise UserError(
                f"{where}: transformation {transformation.id!r} cannot be shown; "
                f"there are {', '.join(TRANSFORMATIONS)}, in tables."
            )
    units = [panel.fields.defaults.get("unit")]
    for override in panel.fields.overrides:
        if override.matcher.id not in MATCHERS:
            raise UserError(
                f"{where}: overrides {override.matcher.id!r} cannot be shown; there are {', '.join(MATCHERS)}."
            )
        units += [each.value for each in override.properties if each.id == "unit"]
    for unit in units:
        if unit and not known(unit):
            raise UserError(f"{where}: unit {unit!r} is not known; loadgen/boards/units.py has those that are.")
    return panel


def _variable(path: Path, item: Any) -> Variable:
    try:
        variable = Variable.model_validate(item)
    except ValidationError as error:
        raise UserError(f"{path}: a variable: {_first(error)}") from None
    if variable.type not in VARIABLES:
        raise UserError(
            f"{path}: variable {variable.name!r}: type {variable.type!r} is not known; there are "
            f"{', '.join(VARIABLES)}."
        )
    return variable


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"
