"""Table panels: rows of labels and values, merged, renamed, ordered as the board says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.boards.answers import Answer, Sample
from loadgen.boards.colours import Colour
from loadgen.boards.dashboard import Panel
from loadgen.boards.fields import Field, field_of
from loadgen.boards.reduce import reduce

Cell = float | str | None
Row = dict[str, Cell]


@dataclasses.dataclass(frozen=True)
class Shown:
    """One cell as it is shown."""

    text: str
    numeric: bool
    colour: Colour | None = None
    engine: str | None = None
    """The engine that the cell names."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    columns: list[str]
    rows: list[list[Shown]]


def table_of(panel: Panel, answer: Answer) -> Table:
    """The table of a panel. Queries over time give their last value."""
    rows, refs = _rows(answer, [target.ref for target in panel.targets if not target.hide])
    names = _columns(rows)
    shown = {name: name for name in names if name not in ("Time", "__name__")}
    for step in panel.transformations:
        if step.disabled:
            continue
        if step.id == "organize":
            shown = _organized(shown, step.options)
        elif step.id == "sortBy":
            rows = _sorted(rows, shown, step.options.get("sort") or ())
    rows = _sorted(rows, shown, panel.options.get("sortBy") or ())
    fields = {
        name: field_of(panel.fields, title, ref=refs.get(name, ""), numeric=name in refs)
        for name, title in shown.items()
    }
    return Table(
        [field.name for field in fields.values()],
        [[_shown(row.get(name), name, field) for name, field in fields.items()] for row in rows],
    )


def _rows(answer: Answer, refs: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """One row for each set of labels, with the values of all queries; and which column is which query's."""
    samples = list(answer.samples)
    for line in answer.lines:
        last = reduce(line.values, "lastNotNull")
        if last is not None:
            samples.append(Sample(line.name, line.ref, line.labels, last, 0.0))
    found: dict[tuple[tuple[str, str], ...], Row] = {}
    columns = {("Value" if len(refs) == 1 else f"Value #{ref}"): ref for ref in refs}
    for sample in samples:
        key = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "__name__"))
        row = found.setdefault(key, dict(key))
        row["Value" if len(refs) == 1 else f"Value #{sample.ref}"] = sample.value
    return list(found.values()), columns


def _columns(rows: Sequence[Row]) -> list[str]:
    """Labels first, then values, each in the order in which they came."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return sorted(names, key=lambda name: name.startswith("Value"))


def _organized(shown: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, str]:
    hidden = {name for name, is_hidden in (options.get("excludeByName") or {}).items() if is_hidden}
    kept = options.get("includeByName") or {}
    places = options.get("indexByName") or {}
    titles = options.get("renameByName") or {}
    left = [name for name in shown if name not in hidden and (not kept or kept.get(name))]
    left.sort(key=lambda name: places.get(name, len(shown)))
    return {name: titles.get(name) or shown[name] for name in left}


def _sorted(rows: list[Row], shown: Mapping[str, str], orders: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows in order of one column or several, named as they are shown; what is absent comes last."""
    for order in reversed(orders):
        wanted = order.get("field") or order.get("displayName")
        column = next((name for name, title in shown.items() if wanted in (title, name)), None)
        if column is None:
            continue
        present = [row for row in rows if row.get(column) is not None]
        absent = [row for row in rows if row.get(column) is None]
        present.sort(key=lambda row: _order(row[column]), reverse=bool(order.get("desc")))
        rows = present + absent
    return rows


def _order(value: Cell) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value or 0.0, "")


def _shown(value: Cell, name: str, field: Field) -> Shown:
    options = field.custom.get("cellOptions")
    coloured = isinstance(options, dict) and str(options.get("type", "")).startswith("color")
    return Shown(
        text=field.no_value or field.text(None) if value is None else field.text(value),
        numeric=not isinstance(value, str) and name.startswith("Value"),
        colour=field.colour_of(value) if coloured else None,
        engine=value if name == "engine" and isinstance(value, str) else None,
    )
