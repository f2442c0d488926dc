"""Cells with known values for the tests of the statistics."""

from __future__ import annotations

import numpy as np

from loadgen.statistics.metrics import BlockSample, CellSample, Total

STEP = 100.0
"""Seconds from one block's start to the next one's."""


def places(repeats: int, order: str = "abba") -> list[tuple[int, int]]:
    """Places of a's and b's block of each repeat in the run: interleaved A B B A, or all A before all B."""
    if order == "abba":
        mirrored = [i.bit_count() % 2 for i in range(repeats)]  # as `Scenario.blocks` has it
        return [(2 * i + swap, 2 * i + 1 - swap) for i, swap in enumerate(mirrored)]
    return [(i, repeats + i) for i in range(repeats)]


def block(repeat, values=None, *, at=0.0, rate=None, invalid=None, source="tpot_ms", start=None):
    """A block whose requests have these values, and that had this many output tokens a second for 10 s."""
    requests = {} if values is None else {source: np.asarray(values, dtype=np.float64)}
    totals = {} if rate is None else {"output_tokens": Total(rate * 10.0, 10.0)}
    return BlockSample(repeat, at, requests, totals, invalid, start=start)


def cell(a, b, *, id="p0512-o0128-c004", order="abba", source="tpot_ms"):
    """A cell from each block's request values, shape (repeats, requests), in a's and b's order of repeats."""
    turns = places(len(a), order)
    return CellSample(
        id,
        [block(i + 1, v, at=STEP * x, source=source) for i, (v, (x, _)) in enumerate(zip(a, turns, strict=True))],
        [block(i + 1, v, at=STEP * y, source=source) for i, (v, (_, y)) in enumerate(zip(b, turns, strict=True))],
    )
