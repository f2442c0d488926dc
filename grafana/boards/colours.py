"""One colour for each engine, on every panel of every board.

Engines that the stacks know have a colour of the report's palette by name. Any other engine gets one that Grafana
works out of the name of the series (`palette-classic-by-name`); as that name is the engine's alone on all panels that
compare engines, it is the same colour on all of them.
"""

from __future__ import annotations

from loadgen.presentation.style import KNOWN_ENGINES, LOOKS

# Of the two tones that the report has of each colour, the one for dark pages: Grafana is dark unless told otherwise.
ENGINE_COLOURS: dict[str, str] = {name: look.dark for name, look in zip(KNOWN_ENGINES, LOOKS, strict=True)}

GRAY = "#8e8e8e"
GOOD = "#4f9d5d"
BAD = "#d6455d"
MARK = "#7a7f87"


def series_of(engine: str) -> str:
    """Grafana's regular expression for an engine's series: its name, alone or before a separator."""
    return rf"/^{engine}( · .*)?$/"
