"""Which colour and dash each series gets: an engine has one colour on every panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadgen.boards.colours import ENGINES, OTHERS, Colour
from loadgen.boards.dashboard import Board
from loadgen.boards.fields import Field, field_of

DASHES = ("solid", "dash", "dot", "dashdot")
STANDS_FOR = "@colour-{}"
"""Stands for a colour in a figure until the page knows whether it is a light or a dark one."""


class Paint:
    """The colours of a page, each kept once; figures hold tokens, of which the page's script makes colours."""

    def __init__(self, boards: Sequence[Board], engines: Iterable[str]) -> None:
        self.palette: list[Colour] = []
        self._engines: dict[str, Colour] = {}
        for engine in engines:
            self._engines.setdefault(engine, _set_by(boards, engine) or ENGINES[len(self._engines) % len(ENGINES)])

    def engine(self, name: str) -> Colour:
        """An engine's colour; one that was not known before takes the next seat."""
        return self._engines.setdefault(name, ENGINES[len(self._engines) % len(ENGINES)])

    def token(self, colour: Colour) -> str:
        """What stands for a colour in a figure."""
        if colour not in self.palette:
            self.palette.append(colour)
        return STANDS_FOR.format(self.palette.index(colour))

    def lines(self, fields: Sequence[Field], engines: Sequence[str | None]) -> list[tuple[Colour, str]]:
        """Colour and dash of each series of a panel, of which `engines` says whose it is.

        What the board sets goes first. Several series of one engine are told apart by their dashes.
        """
        found: list[tuple[Colour, str]] = []
        free = 0
        for field, engine in zip(fields, engines, strict=True):
            colour = field.fixed or (self.engine(engine) if engine else None)
            if colour is None:
                colour = OTHERS[free % len(OTHERS)]
                free += 1
            alike = sum(other == colour for other, _ in found)
            found.append((colour, field.dash or DASHES[alike % len(DASHES)]))
        return found


def _set_by(boards: Sequence[Board], engine: str) -> Colour | None:
    """The colour that some panel sets for a series of the engine's name."""
    for board in boards:
        for panel in board.panels:
            only_defaults = field_of(panel.fields, "").fixed
            fixed = field_of(panel.fields, engine).fixed
            if fixed is not None and fixed != only_defaults:
                return fixed
    return None
