"""What a board consists of, as plain data: rows of panels, each with its queries. `drawing.py` makes JSON of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

Kind = Literal["timeseries", "stat", "bargauge", "table", "state-timeline"]
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
    unit: str
    """Grafana's id of the unit."""
    queries: tuple[Query, ...]
    no_data: str
    """Shown in place of figures, where there are none: the reason."""
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    bad_from: float | None = None
    """The value from which on a figure is bad: drawn as a line, or in red."""
    states: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """What values mean, for kinds that show states; 0 is the quiet one."""
    gray: tuple[str, ...] = ()
    """Series that are no engine's: drawn in gray."""
    hidden: tuple[str, ...] = ()
    """Columns of a table that are not shown."""
    never_on_cpu: str = ""
    """Why there is no data on a machine with CPU engines, where there never is any."""
    not_told: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Why there is none of one kind of engine, by kind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


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
