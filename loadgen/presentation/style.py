"""Colours and markers of the engines, the same in every plot, table and legend.

The first three colours are told apart with every common kind of colour blindness (they follow Okabe and Ito,
"Color Universal Design", darkened or lightened for contrast on white and on near-black); every engine has a
marker of its own as well, so that no plot depends on colour.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from loadgen.message import mark
from loadgen.presentation.language import ENGLISH, Language


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How one engine is drawn."""

    marker: str
    """matplotlib's name of the marker."""
    glyph: str
    """The same marker as a character."""
    light: str
    dark: str
    terminal: str


LOOKS: tuple[Look, ...] = (
    Look("o", "●", "#0067a5", "#56b4e9", "cyan"),
    Look("s", "■", "#c34e00", "#ff9a4d", "yellow"),
    Look("^", "▲", "#00795a", "#3ddbab", "green"),
    Look("D", "◆", "#a0407c", "#ee9fcb", "magenta"),
    Look("v", "▼", "#6a5f00", "#e6d84a", "bright_yellow"),
    Look("P", "✚", "#555555", "#c0c0c0", "white"),
)


KNOWN_ENGINES = {"vllm": 0, "ksana": 1, "sim-vllm": 2, "sim-ksana": 3, "llamacpp": 4, "vllm-cpu": 5, "sglang": 4}
"""Engines that the stacks know, and each one's place in `LOOKS`, in reports as on dashboards. Each pair that
shares a profile is told apart with every common kind of colour blindness."""


def looks_of(engines: Sequence[str]) -> tuple[int, ...]:
    """The places in `LOOKS` of a run's engines, by seat.

    A known engine has its own, also behind the letter of a run (`A vllm`); any other, and one that sits in two seats,
    takes the first that is free. Beyond the last look, looks are shared.
    """
    names = [engine.rpartition(" ")[2] for engine in engines]
    own = [KNOWN_ENGINES.get(n) if names.count(n) == 1 else None for n in names]
    free = itertools.cycle([i for i in range(len(LOOKS)) if i not in own] or range(len(LOOKS)))
    return tuple(next(free) if place is None else place for place in own)


EQUAL, OPEN, NONE = "=", "?", "–"
SIGNS = ((EQUAL, mark("no difference that matters")), (OPEN, mark("undecided")), (NONE, mark("not comparable")))
"""Signs of a verdict without a winner: no difference, undecided, not comparable."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A verdict as one sign: the winner's marker, `=` for no difference, `?` for undecided."""

    sign: str
    look: int | None
    """Place of the winner's look; None without a winner."""


def verdict_mark(verdict: str, a: int, b: int) -> Mark:
    """The sign of a verdict on two engines, by the places of their looks."""
    winner = {"a": a, "b": b}.get(verdict)
    if winner is not None:
        return Mark(LOOKS[winner].glyph, winner)
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
