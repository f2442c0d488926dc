"""Colours by Grafana's names, each for a light and a dark page.

Source of names and values: Grafana's themes (packages/grafana-data/src/themes/createVisualizationColors.ts).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from loadgen.presentation.style import LOOKS


class Colour(NamedTuple):
    """One colour on a light page and on a dark one."""

    light: str
    dark: str


HUES = {
    "red": ("#FFA6B0", "#FF7383", "#F2495C", "#E02F44", "#C4162A", "#AD0317"),
    "orange": ("#FFCB7D", "#FFB357", "#FF9830", "#FF780A", "#FA6400", "#E55400"),
    "yellow": ("#FFF899", "#FFEE52", "#FADE2A", "#F2CC0C", "#E0B400", "#CC9D00"),
    "green": ("#C8F2C2", "#96D98D", "#73BF69", "#56A64B", "#37872D", "#19730E"),
    "blue": ("#C0D8FF", "#8AB8FF", "#5794F2", "#3274D9", "#1F60C4", "#1250B0"),
    "purple": ("#DEB6F2", "#CA95E5", "#B877D9", "#A352CC", "#8F3BB8", "#7C2EA3"),
}
SHADES = ("super-light-", "light-", "", "semi-dark-", "dark-")
NAMED = {
    f"{shade}{hue}": Colour(values[i + 1], values[i]) for hue, values in HUES.items() for i, shade in enumerate(SHADES)
}
"""A light page takes the next darker one of a hue."""
TEXT = Colour("#1c2024", "#e8ebee")
MUTED = Colour("#5c6670", "#a0abb6")
CARD = Colour("#ffffff", "#181d23")
NONE = Colour("rgba(255,255,255,0)", "rgba(0,0,0,0)")

ENGINES = tuple(Colour(look.light, look.dark) for look in LOOKS)
"""By seat, as in the report."""
REPORT = {code: pair for pair in ENGINES for code in pair}
"""A board may have either of the report's two tones."""
OTHERS = tuple(
    NAMED[name]
    for name in (
        "green", "purple", "blue", "orange", "red", "dark-yellow", "dark-green", "dark-purple", "dark-blue",
        "dark-orange", "dark-red", "semi-dark-yellow",
    )
)  # fmt: skip
"""For series that belong to no engine: Grafana's classic order without the yellows that white paper swallows."""


def colour(name: str) -> Colour:
    """A colour by Grafana's name, by its hex code, or any that CSS has a name for; muted for what is none."""
    if name in NAMED:
        return NAMED[name]
    if name in REPORT:
        return REPORT[name]
    if name == "text":
        return TEXT
    if name == "transparent":
        return NONE
    if re.fullmatch(r"#[0-9a-fA-F]{3,8}|rgba?\([\d., %]+\)|[a-z]+", name):
        return Colour(name, name)
    return MUTED
