"""What a board consists of, as plain data: rows of panels, each with its queries.

Two draw it: `loadgen.boards.page` makes the offline page of it, and `grafana.boards` the JSON that Grafana reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Kind = Literal["timeseries", "stat", "bargauge", "table", "state-timeline"]
Unit = Literal["none", "short", "percentunit", "s", "bytes", "Bps", "reqps", "hertz", "watt", "joule", "celsius"]
"""By Grafana's ids."""
GRID_COLUMNS = 24


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query. `legend` names its series, by labels in double braces."""

    expr: str
    legend: str = "{{engine}}"
    instant: bool = False
    """Asked at the end of the time range only; `$__range` is its length."""


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One panel. All texts are for the reader of the board."""

    title: str
    about: str
    """What it is, and what good and bad look like."""
    unit: Unit
    queries: tuple[Query, ...]
    no_data: str
    """Shown in place of figures, where there are none: the reason."""
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    decimals: int | None = None
    minimum: float | None = 0
    """Of the axis, for kinds that have one; None where figures may be negative."""
    maximum: float | None = None
    bad_from: float | None = None
    """The value from which on a figure is bad: drawn as a line, or in red."""
    states: Mapping[float, str] = dataclasses.field(default_factory=dict)
    """What values mean, for kinds that show states; 0 is the quiet one."""
    gray: tuple[str, ...] = ()
    """Series that are no engine's: drawn in gray."""
    hidden: tuple[str, ...] = ()
    """Columns of a table that are not shown."""

    def lettered(self) -> Iterator[tuple[str, Query]]:
        """Its queries with the letters that they are called by."""
        return zip("ABCDEFGH", self.queries, strict=False)


class Place(NamedTuple):
    """Where a panel lies in its row: column, line, and how many of each it takes."""

    x: int
    y: int
    width: int
    height: int


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]

    def placed(self) -> list[tuple[Panel, Place]]:
        """Its panels, left to right, a new line where one is full. Raises ValueError for a line that is not."""
        found: list[tuple[Panel, Place]] = []
        x = y = 0
        for panel in self.panels:
            found.append((panel, Place(x, y, panel.width, panel.height)))
            x += panel.width
            if x == GRID_COLUMNS:
                x, y = 0, y + panel.height
        if x:
            raise ValueError(f"the panels of row {self.title!r} do not fill {GRID_COLUMNS} columns")
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. `uid` is also the name of its file and the last part of its address."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        """All panels, in reading order."""
        for row in self.rows:
            yield from row.panels


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What can be chosen in the head of every board: a label's values. Queries have its name behind a dollar sign."""

    name: str
    title: str
    label: str
    selector: str
    """Of the series that have the label."""
    several: bool = False
    newest_first: bool = False
