"""Numbers and moments as text: three significant digits, units, and a dash for what was not measured."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Sequence
from typing import Any

from loadgen.scenario import Cell

DASH = "–"


def number(value: float | None) -> str:
    """Return three significant digits or all of a whole number: 1,234, 123, 12.3, 1.23, 0.0123; a dash for None."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    size = abs(value)
    # 99.95 would round to "100.0", one digit too many, so each limit lies where rounding crosses over.
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.{min(9, 2 - math.floor(math.log10(size)))}f}"


def count(value: int | None) -> str:
    """Return a whole number, thousands separated; a dash for None."""
    return DASH if value is None else f"{value:,d}"


def ratio(value: float | None) -> str:
    """Return a ratio such as `1.23×`; a dash for None."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.2f}×" if 0.0995 <= value < 9.995 else f"{number(value)}×"


def plural(amount: int, word: str) -> str:
    """Return `1 request`, `2 requests`."""
    return f"{amount:,d} {word}{'' if amount == 1 else 's'}"


def listing(words: Sequence[str], *, most: int = 6) -> str:
    """Join words as in a sentence, and say how many were left out."""
    shown = list(words[:most])
    if len(words) > most:
        shown.append(f"{len(words) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def moment(seconds: float | None) -> str:
    """Return a moment (seconds since the Unix epoch) in UTC; a dash for None or what no calendar holds."""
    if seconds is None:
        return DASH
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return DASH


def duration(seconds: float | None) -> str:
    """Return a length of time such as `42 s`, `3 min 05 s` or `1 h 02 min`; a dash for None."""
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 10:
        return f"{number(seconds)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def gibibytes(value: float | None) -> str:
    """Return bytes as GiB; a dash for None."""
    return DASH if value is None else f"{number(value / 2**30)} GiB"


def cell_words(cell_id: str) -> str:
    """Return a cell in words; the id itself when it is not one of ours."""
    try:
        cell = Cell.parse(cell_id)
    except ValueError:
        return cell_id
    return f"{cell.prompt_tokens:,d} prompt tokens, {cell.output_tokens:,d} output tokens, {cell.load_text}"


def shape_words(cell: Cell) -> str:
    """Return the token counts of a cell, and what it has beyond its load, in words."""
    lengths = f"{cell.prompt_tokens:,d} prompt → {cell.output_tokens:,d} output tokens"
    return ", ".join([lengths, *cell.extra_texts])


def plain(value: Any) -> str:
    """Return any JSON value as one readable line; a dash for what is absent."""
    if value is None or value in ("", [], {}):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(item)}" for key, item in value.items())
    return str(value)


def printable(value: str) -> str:
    """Return text without control characters, which could steer a terminal; line ends become spaces."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in value)


def command_line(value: Any) -> str:
    """Return an argument list as one shell line."""
    if isinstance(value, (list, tuple)):
        return shlex.join(str(item) for item in value)
    return plain(value)
