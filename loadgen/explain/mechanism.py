"""What a mechanism is here: how it is seen in a block, how that is said, and where it is explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from loadgen.explain.block_figures import Seen

Figures = dict[str, float]
"""Evidence as data: figures by name; times in ms where a name ends so."""
BASICS, SIDE_BY_SIDE = "docs/engines/basics.md", "docs/engines/side-by-side.md"
OUT_OF_BLOCKS = {
    "vllm": "docs/engines/vllm.md#when-blocks-run-out",
    "ksana": "docs/engines/ksana.md#when-blocks-run-out",
    "": f"{BASICS}#when-the-blocks-run-out",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Mechanism:
    """One of the known mechanisms."""

    name: str
    title: str
    look: Callable[[Seen], Figures | None]
    """The evidence in a block; None where it does not show, and where nobody knows."""
    words: Callable[[Figures], str]
    pages: Mapping[str, str]
    """By kind of engine; "" is for all others."""
    adds: frozenset[str] = frozenset()
    """Figures that add up over blocks; of the others the mean is told."""
    mostly: bool = False
    """Told by times, which scatter: a cell shows it where more than half of its blocks do that nothing disturbed."""

    def page(self, kind: str) -> str:
        """Where it is explained, from the top of the repository."""
        return self.pages.get(kind, self.pages[""])
