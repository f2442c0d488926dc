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


def paced(scale, ttft_scale=1.0, *, id="p1", jitter=(0.0, 0.001, -0.001, 0.0005), at=0.0):
    """A cell in which b takes `scale` times a's time a token, and `ttft_scale` times its TTFT, with this jitter."""
    sides = []
    for pace, wait in ((1.0, 1.0), (scale, ttft_scale)):
        sides.append(
            [
                BlockSample(
                    i + 1,
                    at + STEP * i,
                    {
                        "ttft_ms": np.full(20, 50 * wait),
                        "tpot_ms": np.full(20, 10 * pace * np.exp(x if pace != 1 else 0)),
                    },
                    {"output_tokens": Total(100 / pace, 1.0)},
                )
                for i, x in enumerate(jitter)
            ]
        )
    return CellSample(id, sides[0], sides[1])
