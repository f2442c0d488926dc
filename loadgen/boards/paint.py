"""Which colour and dash each series gets: an engine has one colour on every panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadgen.boards.answers import Line, Sample
from loadgen.boards.colours import BAD, ENGINES, GRAY, KNOWN, OTHERS, Colour
from loadgen.boards.model import Panel

DASHES = ("solid", "dash", "dot", "dashdot")
STANDS_FOR = "@colour-{}"
"""Stands for a colour in a figure until the page knows whether it is a light or a dark one."""


class Paint:
    """The colours of a page, each kept once; figures hold tokens, of which the page's script makes colours."""

    def __init__(self, engines: Iterable[str]) -> None:
        self.palette: list[Colour] = []
        self._engines: dict[str, Colour] = {}
        for engine in engines:
            self.engine(engine)

    def engine(self, name: str) -> Colour:
        """An engine's own colour, else that of its seat; one that was not known before takes the next one."""
        seat = ENGINES[len(self._engines) % len(ENGINES)]
        return self._engines.setdefault(name, KNOWN.get(name, seat))

    def token(self, colour: Colour) -> str:
        """What stands for a colour in a figure."""
        if colour not in self.palette:
            self.palette.append(colour)
        return STANDS_FOR.format(self.palette.index(colour))

    def series(self, panel: Panel, series: Line | Sample) -> Colour | None:
        """The colour of a series of a panel; None for one that is no engine's."""
        if series.name in panel.gray:
            return GRAY
        engine = series.labels.get("engine")
        return self.engine(engine) if engine else None

    def state(self, panel: Panel, series: Line | Sample, value: float) -> Colour | None:
        """The colour of a series while it has a value: a state's own where it has one, else the series'."""
        if value in panel.states and value == 0:
            return GRAY
        if value in panel.states and panel.bad_from is not None:
            return BAD
        return self.series(panel, series)

    def lines(self, panel: Panel, lines: Sequence[Line]) -> list[tuple[Colour, str]]:
        """Colour and dash of each line of a panel. Several lines of one engine are told apart by their dashes."""
        found: list[tuple[Colour, str]] = []
        free = 0
        for line in lines:
            colour = self.series(panel, line)
            if colour is None:
                colour = OTHERS[free % len(OTHERS)]
                free += 1
            alike = sum(other == colour for other, _ in found)
            found.append((colour, DASHES[alike % len(DASHES)]))
        return found
