"""Colours and markers of the engines, the same in every plot, table and legend.

The first three colours are told apart with every common kind of colour blindness (they follow Okabe and Ito,
"Color Universal Design", darkened or lightened for contrast on white and on near-black); every engine has a
marker of its own as well, so that no plot depends on colour.
"""

from __future__ import annotations

import dataclasses

from loadgen.report.language import ENGLISH, Language


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How one engine is drawn."""

    marker: str
    """matplotlib's name of the marker."""
    glyph: str
    """The same marker as a character."""
    light: str
    dark: str


LOOKS: tuple[Look, ...] = (
    Look("o", "●", "#0067a5", "#56b4e9"),
    Look("s", "■", "#c34e00", "#ff9a4d"),
    Look("^", "▲", "#00795a", "#3ddbab"),
    Look("D", "◆", "#a0407c", "#ee9fcb"),
    Look("v", "▼", "#6a5f00", "#e6d84a"),
    Look("P", "✚", "#555555", "#c0c0c0"),
)


def look(index: int) -> Look:
    """The look of the engine in a seat; seats beyond the last look share looks."""
    return LOOKS[index % len(LOOKS)]


EQUAL, OPEN, NONE = "=", "?", "–"
"""Signs of a verdict without a winner: no difference, undecided, not comparable."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A verdict as one sign: the winner's marker, `=` for no difference, `?` for undecided."""

    sign: str
    seat: int | None
    """Index of the winner's look; None without a winner."""


def verdict_mark(verdict: str, seat: int) -> Mark:
    """The sign of a verdict on the first engine (`a`) and the one in `seat` (`b`)."""
    winner = {"a": 0, "b": seat}.get(verdict)
    if winner is not None:
        return Mark(look(winner).glyph, winner % len(LOOKS))
    return Mark({"none": EQUAL, "undecided": OPEN}.get(verdict, NONE), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Palette:
    """The colours that a plot is drawn with."""

    text: str
    muted: str
    grid: str
    background: str
    engines: tuple[str, ...]
    language: Language = ENGLISH
    """What its words are in."""


PAPER = Palette("#1c2024", "#5c6670", "#dfe3e7", "#ffffff", tuple(entry.light for entry in LOOKS))
"""For PNG files, which are always light."""

PLACEHOLDERS = Palette("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", tuple(f"#0a0c0{i}" for i in range(len(LOOKS))))
"""Colours that stand for CSS variables until an SVG is finished."""

VARIABLES: dict[str, str] = {
    PLACEHOLDERS.text: "var(--text)",
    PLACEHOLDERS.muted: "var(--muted)",
    PLACEHOLDERS.grid: "var(--grid)",
    PLACEHOLDERS.background: "var(--card)",
    **{colour: f"var(--engine-{i})" for i, colour in enumerate(PLACEHOLDERS.engines)},
}
