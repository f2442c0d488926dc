"""Numbers and moments as text: three significant digits, units, and a dash for what was not measured."""

from __future__ import annotations

import datetime
import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

from loadgen.message import Message, counted, joined, say
from loadgen.scenario.model import Cell

DASH = "–"
ONLY_HEADLINES = say(
    "Only headline metrics name who is faster: the others are not corrected for their "
    "number, and show figures and intervals."
)


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


def interval(ends: tuple[float, float] | None) -> str:
    """Return an interval such as `12.3–13.1`, three digits or four where it is narrow; "" for None."""
    if ends is None or not all(map(math.isfinite, ends)):
        return ""
    low, high = ends
    size = max(abs(low), abs(high))
    if size >= 1e7 or size == 0:
        return f"{low:.3g}–{high:.3g}"
    digits = 2 - math.floor(math.log10(size))
    if high - low < 0.02 * size:
        digits += 1
    digits = max(0, min(digits, 9))
    return f"{low:,.{digits}f}–{high:,.{digits}f}"


def ratio_interval(ends: tuple[float, float] | None, *, fine: bool = True, of: float | None = None) -> str:
    """Return the interval of a ratio, such as `1.19–1.26`, with a digit more where it is narrow; "" for None.

    So it has too where an end would look like the ratio that it is of.
    """
    if ends is None or not all(map(math.isfinite, ends)):
        return ""
    if max(ends) >= 9.995 or min(ends) < 0.0995:
        return "–".join(number(end) for end in ends)
    alike = of is not None and any(f"{end:.2f}" == f"{of:.2f}" for end in ends)
    digits = 3 if alike or (fine and ends[1] - ends[0] < 0.02) else 2
    return "–".join(f"{end:.{digits}f}" for end in ends)


def ratio(value: float | None) -> str:
    """Return a ratio such as `1.23×`; a dash for None."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.2f}×" if 0.0995 <= value < 9.995 else f"{number(value)}×"


def listing(words: Sequence[str], *, most: int = 6) -> str:
    """Join words as in a sentence, and say how many were left out."""
    shown: list[str] = list(words[:most])
    if len(words) > most:
        shown.append(say("{count} more", count=len(words) - most))
    if len(shown) < 2:
        return shown[0] if shown else ""
    return say("{some} and {last}", some=joined("{a}, {b}", shown[:-1]), last=shown[-1])


def percent(share: float) -> str:
    """A share as people read it: `4.2%`, `87%`."""
    return f"{100 * share:.0f}%" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}%"


def p_value(value: float | None) -> str:
    """Return a p-value: two digits, and no more certainty than `< 0.001`; a dash for None."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def short_ids(value: str) -> str:
    """Cut every digest and container id in a text to its first 12 digits."""
    if isinstance(value, Message):
        return value
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", "\\1…", value)


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
    return say(
        "{prompt} prompt tokens, {output} output tokens, {load}",
        prompt=f"{cell.prompt_tokens:,d}",
        output=f"{cell.output_tokens:,d}",
        load=load_words(cell),
    )


def load_words(cell: Cell) -> str:
    """Return a cell's load in words."""
    load: str = f"{cell.rate:g} req/s"
    if cell.batch:
        load = say("batch {size}", size=cell.batch)
    elif not cell.open_loop:
        load = counted(cell.concurrency, "{count} user", "{count} users")
    return joined("{a}, {b}", [load, *_extras(cell)])


def _extras(cell: Cell) -> list[str]:
    """What a cell has beyond lengths and load, in words."""
    texts = list(cell.extra_texts)
    if cell.shared_percent:
        texts[0] = say("{percent}% shared prefix", percent=cell.shared_percent)
    return texts


def shape_words(cell: Cell) -> str:
    """Return the token counts of a cell, and what it has beyond its load, in words."""
    lengths = say(
        "{prompt} prompt → {output} output tokens",
        prompt=f"{cell.prompt_tokens:,d}",
        output=f"{cell.output_tokens:,d}",
    )
    return joined("{a}, {b}", [lengths, *_extras(cell)])


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
    return value if isinstance(value, str) else str(value)


def printable(value: str) -> str:
    """Return text without control characters, which could steer a terminal; line ends become spaces."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in value)


def command_line(value: Any) -> str:
    """Return an argument list as one shell line."""
    if isinstance(value, (list, tuple)):
        return shlex.join(str(item) for item in value)
    return plain(value)
