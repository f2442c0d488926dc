"""Colours of the boards, each for a light and a dark page."""

from __future__ import annotations

from typing import NamedTuple

from loadgen.presentation.style import KNOWN_ENGINES, LOOKS


class Colour(NamedTuple):
    """One colour on a light page and on a dark one."""

    light: str
    dark: str


TEXT = Colour("#1c2024", "#e8ebee")
MUTED = Colour("#5c6670", "#a0abb6")
CARD = Colour("#ffffff", "#181d23")
GRAY = Colour("#8e8e8e", "#8e8e8e")
GOOD = Colour("#4f9d5d", "#4f9d5d")
BAD = Colour("#d6455d", "#d6455d")
MARK = Colour("#7a7f87", "#7a7f87")

ENGINES = tuple(Colour(look.light, look.dark) for look in LOOKS)
"""By seat, as in the report."""
KNOWN = {name: ENGINES[place] for name, place in KNOWN_ENGINES.items()}
"""Those of the engines that the stacks know."""
OTHERS = tuple(
    Colour(light, dark)
    for light, dark in (
        ("#56A64B", "#73BF69"), ("#A352CC", "#B877D9"), ("#3274D9", "#5794F2"), ("#FF780A", "#FF9830"),
        ("#E02F44", "#F2495C"), ("#CC9D00", "#E0B400"), ("#19730E", "#37872D"), ("#7C2EA3", "#8F3BB8"),
        ("#1250B0", "#1F60C4"), ("#E55400", "#FA6400"), ("#AD0317", "#C4162A"), ("#E0B400", "#F2CC0C"),
    )
)  # fmt: skip
"""For series that belong to no engine: Grafana's classic order without the yellows that white paper swallows. Values:
its themes (packages/grafana-data/src/themes/createVisualizationColors.ts); a light page takes the next darker one."""
