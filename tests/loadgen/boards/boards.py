"""Small boards."""

from __future__ import annotations

from typing import Any

from loadgen.boards.model import Board, Panel, Query, Row


def panel(title: str, *queries: str | Query, **more: Any) -> Panel:
    """A panel over time in seconds, half a board wide; a bare query is asked for a moment where its kind is for one."""
    instant = more.get("kind") in ("table", "bargauge")
    asked = tuple(query if isinstance(query, Query) else Query(query, instant=instant) for query in queries)
    given = {"about": f"About {title}.", "unit": "s", "no_data": f"No {title} here", "width": 12, **more}
    return Panel(title, queries=asked, **given)


def board(*panels: Panel, row: str = "A row") -> Board:
    """A board of one row; the last panel fills it."""
    missing = -sum(each.width for each in panels) % 24
    filler = [panel("Filler", width=missing)] if missing else []
    return Board("a-board", "A board", "About the board.", (Row(row, (*panels, *filler)),))
