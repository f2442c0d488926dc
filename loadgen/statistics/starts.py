"""Which starts of the engines the repeats ran on: the random unit is the start where there are several.

What one start of a process happens to get (memory layout, graphs, clocks) is common to all its repeats, so these say
nothing of how another start would be. Repeats that share a start of either engine are therefore one unit together. With
one start of each engine the unit is the repeat, and what is found is true of these two processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from loadgen.statistics.metrics import BlockSample, CellSample


@dataclasses.dataclass(frozen=True, slots=True)
class Units:
    """The independent units of a run."""

    starts: int
    """Groups of repeats that share no start with each other."""
    of_repeat: Mapping[int, int]
    """The unit of each repeat: its group where there are several, else the repeat itself."""


def units(cells: Sequence[CellSample]) -> Units:
    """Find the units of a run from the blocks that count. A block whose start nobody knows ran on the first."""
    valid = [block for cell in cells for side in (cell.a, cell.b) for block in side if block.invalid is None]
    return Units(1, {block.repeat: block.repeat for block in valid}) if not valid else _grouped(cells, valid)


def units_alone(blocks: Sequence[BlockSample]) -> Units:
    """The units of one engine's blocks over all cells."""
    return units([CellSample("", blocks, ())])


def _grouped(cells: Sequence[CellSample], valid: Sequence[BlockSample]) -> Units:
    group = {block.repeat: block.repeat for block in valid}
    ran: dict[tuple[str, int], set[int]] = {}
    for cell in cells:
        for side, blocks in (("a", cell.a), ("b", cell.b)):
            for block in blocks:
                if block.invalid is None:
                    ran.setdefault((side, block.start or 1), set()).add(block.repeat)
    for together in ran.values():  # of few starts: joined one after the other
        joined = {group[repeat] for repeat in together}
        first = min(joined)
        group = {repeat: first if number in joined else number for repeat, number in group.items()}
    numbers = sorted(set(group.values()))
    if len(numbers) == 1:
        return Units(1, {repeat: repeat for repeat in group})
    return Units(len(numbers), {repeat: 1 + numbers.index(number) for repeat, number in group.items()})
