"""One figure of many: Grafana's reducers by their ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Values = Sequence[float]


def _difference(values: Values) -> float:
    return values[-1] - values[0]


REDUCERS: dict[str, Callable[[Values], float]] = {
    "lastNotNull": lambda values: values[-1],
    "last": lambda values: values[-1],
    "firstNotNull": lambda values: values[0],
    "first": lambda values: values[0],
    "mean": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
    "range": lambda values: max(values) - min(values),
    "diff": _difference,
}
NAMES = {
    "lastNotNull": "last",
    "firstNotNull": "first",
    "diff": "change",
}


def reduce(values: Sequence[float | None], how: str) -> float | None:
    """Reduce the values that are there, at least one; None without any. Raises KeyError for an unknown reducer."""
    reducer = REDUCERS[how]
    present = [value for value in values if value is not None]
    return reducer(present) if present else None


def name(how: str) -> str:
    """What a person calls a reducer."""
    return NAMES.get(how, how)
