"""Grafana's units as text: `0.0123` of unit `s` is `12.3 ms`.

Source of names and steps: Grafana's value formats (packages/grafana-data/src/valueFormats).
"""

from __future__ import annotations

import dataclasses
import datetime
import math

from loadgen.presentation.text import DASH, duration


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """What values are divided by to be shown, and what is written behind them."""

    divisor: float = 1.0
    suffix: str = ""
    prefix: str = ""


Ladder = tuple[Scale, ...]
"""Scales of one unit, smallest first."""

SI = ("f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")
IEC = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
COUNTS = ("", "K", "Mil", "Bil", "Tri")


def _fixed(suffix: str, divisor: float = 1.0) -> Ladder:
    return (Scale(divisor, suffix),)


def _si(unit: str, exponent: int = 0) -> Ladder:
    """Decimal prefixes; values come in 1000 ** exponent units."""
    return tuple(Scale(1000.0 ** (i - SI.index("") - exponent), f" {prefix}{unit}") for i, prefix in enumerate(SI))


def _iec(unit: str, exponent: int = 0) -> Ladder:
    return tuple(Scale(1024.0 ** (i - exponent), f" {prefix}{unit}") for i, prefix in enumerate(IEC))


def _count(unit: str) -> Ladder:
    words = (" ".join(filter(None, (prefix, unit))) for prefix in COUNTS)
    return tuple(Scale(1000.0**i, f" {word}" if word else "") for i, word in enumerate(words))


def _time(seconds: float) -> Ladder:
    """A length of time that comes in units of so many seconds."""
    steps = (1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "d")
    return tuple(Scale(size / seconds, f" {name}") for size, name in steps)


LADDERS: dict[str, Ladder] = {
    "none": _fixed(""),
    "string": _fixed(""),
    "short": _count(""),
    "locale": _fixed(""),
    "percent": _fixed("%"),
    "percentunit": _fixed("%", 0.01),
    "ns": _time(1e-9),
    "µs": _time(1e-6),
    "ms": _time(1e-3),
    "s": _time(1.0),
    "m": _time(60.0),
    "h": _time(3600.0),
    "d": _time(86400.0),
    "bits": _iec("b"),
    "bytes": _iec("B"),
    "kbytes": _iec("B", 1),
    "mbytes": _iec("B", 2),
    "gbytes": _iec("B", 3),
    "decbits": _si("b"),
    "decbytes": _si("B"),
    "deckbytes": _si("B", 1),
    "decmbytes": _si("B", 2),
    "decgbytes": _si("B", 3),
    "bps": _si("b/s"),
    "Bps": _si("B/s"),
    "binBps": _iec("B/s"),
    "binbps": _iec("b/s"),
    "KBs": _si("B/s", 1),
    "MBs": _si("B/s", 2),
    "GBs": _si("B/s", 3),
    "cps": _count("c/s"),
    "ops": _count("ops/s"),
    "reqps": _count("req/s"),
    "rps": _count("rd/s"),
    "wps": _count("wr/s"),
    "iops": _count("io/s"),
    "eps": _count("evt/s"),
    "mps": _count("msg/s"),
    "hertz": _si("Hz"),
    "rothz": _si("Hz"),
    "watt": _si("W"),
    "kwatt": _si("W", 1),
    "mwatt": _si("W", -1),
    "watth": _si("Wh"),
    "joule": _si("J"),
    "celsius": _fixed(" °C"),
    "fahrenheit": _fixed(" °F"),
    "kelvin": _fixed(" K"),
}
WORDS = {
    "bool": ("False", "True"),
    "bool_yes_no": ("No", "Yes"),
    "bool_on_off": ("Off", "On"),
}
"""What zero is called, and what anything else is."""
MOMENTS = ("dateTimeAsIso", "dateTimeAsLocal", "dateTimeAsUS", "dateTimeAsSystem")
"""Milliseconds since the Unix epoch."""
SPANS = {"dtdurations": 1.0, "dtdurationms": 1e-3, "clocks": 1.0, "clockms": 1e-3}
"""Lengths of time in words, by how many seconds their values come in."""


def known(unit: str) -> bool:
    """Whether values of a unit are shown as Grafana shows them."""
    return unit in WORDS or unit in MOMENTS or unit in SPANS or _ladder(unit) is not None


def scale_for(unit: str, largest: float) -> Scale:
    """The scale for an axis whose largest value (its size) is given. Raises KeyError for an unknown unit."""
    ladder = _ladder(unit) if unit not in WORDS and unit not in MOMENTS and unit not in SPANS else (Scale(),)
    if ladder is None:
        raise KeyError(unit)
    if not math.isfinite(largest) or largest == 0:
        return next((scale for scale in ladder if scale.divisor == 1), ladder[0])
    # A hair below the step counts as the step: 0.1 + 0.2 s are 300 ms, and 999.9999999 ms are 1 s.
    fitting = [scale for scale in ladder if largest >= scale.divisor * (1 - 1e-9)]
    return fitting[-1] if fitting else ladder[0]


def text(value: float | None, unit: str = "", decimals: int | None = None) -> str:
    """A value with its unit; a dash for None and what is not finite. Raises KeyError for an unknown unit."""
    if value is None or not math.isfinite(value):
        return DASH
    if unit in WORDS:
        return WORDS[unit][value != 0]
    if unit in MOMENTS:
        try:
            return f"{datetime.datetime.fromtimestamp(value / 1e3, datetime.UTC):%Y-%m-%d %H:%M:%S}"
        except (OverflowError, OSError, ValueError):
            return DASH
    if unit in SPANS:
        return duration(value * SPANS[unit])
    scale = scale_for(unit, abs(value))
    return f"{scale.prefix}{digits(value / scale.divisor, decimals)}{scale.suffix}"


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


def _ladder(unit: str) -> Ladder | None:
    kind, colon, rest = unit.partition(":")
    if not colon:
        return LADDERS.get(unit or "none")
    made = {"suffix": _fixed(f" {rest.strip()}"), "prefix": (Scale(1.0, "", rest),), "count": _count(rest)}
    return made.get(kind) if rest else None
