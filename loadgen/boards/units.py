"""Values with the units of the boards as text: `0.0123` of unit `s` is `12.3 ms`.

Source of names and steps: Grafana's value formats (packages/grafana-data/src/valueFormats).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from loadgen.boards.model import Unit
from loadgen.presentation.text import DASH


class Scale(NamedTuple):
    """What values are divided by to be shown, and what is written behind them."""

    divisor: float
    suffix: str


def _ladder(*suffixes: str, step: float = 1000.0, first: float = 1.0) -> tuple[Scale, ...]:
    return tuple(Scale(first * step**i, suffix) for i, suffix in enumerate(suffixes))


def _si(unit: str) -> tuple[Scale, ...]:
    prefixes = ("f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")
    return tuple(Scale(1000.0 ** (i - prefixes.index("")), f" {prefix}{unit}") for i, prefix in enumerate(prefixes))


LADDERS: dict[Unit, tuple[Scale, ...]] = {
    "none": _ladder(""),
    "short": _ladder("", " K", " Mil", " Bil", " Tri"),
    "percentunit": _ladder("%", first=0.01),
    "s": (
        *(Scale(1e-9, " ns"), Scale(1e-6, " µs"), Scale(1e-3, " ms"), Scale(1.0, " s")),
        *(Scale(60.0, " min"), Scale(3600.0, " h"), Scale(86400.0, " d")),
    ),
    "bytes": _ladder(" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB", step=1024.0),
    "Bps": _si("B/s"),
    "reqps": _ladder(" req/s", " K req/s", " Mil req/s", " Bil req/s", " Tri req/s"),
    "hertz": _si("Hz"),
    "watt": _si("W"),
    "joule": _si("J"),
    "celsius": _ladder(" °C"),
}
"""Scales of each unit, smallest first."""


def scale_for(unit: Unit, largest: float) -> Scale:
    """The scale for an axis whose largest value (its size) is given."""
    ladder = LADDERS[unit]
    if not math.isfinite(largest) or largest == 0:
        return next((scale for scale in ladder if scale.divisor == 1), ladder[0])
    # A hair below the step counts as the step: 0.1 + 0.2 s are 300 ms, and 999.9999999 ms are 1 s.
    fitting = [scale for scale in ladder if largest >= scale.divisor * (1 - 1e-9)]
    return fitting[-1] if fitting else ladder[0]


def text(value: float | None, unit: Unit, decimals: int | None = None) -> str:
    """A value with its unit; a dash for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    scale = scale_for(unit, abs(value))
    return f"{digits(value / scale.divisor, decimals)}{scale.suffix}"


def digits(value: float, decimals: int | None = None) -> str:
    """A number with so many decimals; without them, three digits that count, or all of a whole number's."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 99.95 or (value == round(value) and size < 1e15):
        return f"{value:,.0f}"
    places = min(9, max(0, 2 - math.floor(math.log10(size))))
    short = f"{value:.{places}f}"
    return short.rstrip("0").rstrip(".") if float(short) == round(float(short)) else short
