"""The two tricks of the kernels in numpy, where each step can be looked at: the online softmax and the swizzle.

The online softmax is that of Milakov and Gimelshein (2018), "Online normalizer calculation for softmax", carried over
to the output as in FlashAttention-2 (Dao 2023), algorithm 1.

Shared memory has 32 banks of 4 bytes: byte address a lies in bank a / 4 mod 32. A warp's 16-byte accesses go through
eight threads at a time. Threads that want different words of one bank wait for one another; one word can go to many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BANKS = 32
WORD = 4
"""Bytes of one bank's word."""
CHUNK = 16
"""Bytes that a thread moves at once, and a row of an 8 x 8 matrix of 16-bit numbers."""
PHASE = 8
"""Threads whose 16-byte accesses make one trip: 8 x 16 bytes are all 32 banks once."""


@dataclass(frozen=True)
class State:
    """What the online softmax keeps of the keys seen so far, for each query."""

    highest: Array
    """The largest score, shape (queries,)."""
    total: Array
    """The sum of exp(score - highest), shape (queries,)."""
    output: Array
    """The sum of exp(score - highest) times the key's value, shape (queries, dim)."""

    @classmethod
    def empty(cls, queries: int, dim: int, dtype: Any = np.float32) -> State:
        """The state before any key."""
        return cls(np.full(queries, -np.inf, dtype), np.zeros(queries, dtype), np.zeros((queries, dim), dtype))

    def take(self, scores: Array, values: Array) -> State:
        """The state after one more tile.

        Args:
            scores: shape (queries, tile), minus infinity where a key is hidden.
            values: shape (tile, dim).
        """
        highest = np.maximum(self.highest, scores.max(axis=1, initial=-np.inf))
        base = np.where(np.isfinite(highest), highest, 0)  # a row that has seen nothing yet: no inf - inf
        weights = np.exp(scores - base[:, None])
        shrink = np.exp(self.highest - base)
        return State(
            highest,
            self.total * shrink + weights.sum(axis=1),
            self.output * shrink[:, None] + weights @ values,
        )

    def result(self) -> Array:
        """The attention of the keys seen, shape (queries, dim); zeros where there was none."""
        return self.output / np.where(self.total > 0, self.total, 1)[:, None]


def online_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    tile_queries: int = 64,
    tile_keys: int = 64,
    dtype: Any = np.float32,
) -> Array:
    """One head's attention tile by tile, as the kernels go through it.

    Args:
        q: shape (queries, dim).
        k: shape (keys, dim).
        v: shaped like `k`.
        causal: query i sees keys 0 ... i + keys - queries; tiles that no query of a block sees are left out.
        tile_queries: queries of one thread block.
        tile_keys: keys of one tile.
        dtype: numbers that it computes with.

    Raises:
        ValueError: shapes that do not fit, or a tile below 1.
    """
    if q.ndim != 2 or k.ndim != 2 or k.shape != v.shape or q.shape[1] != k.shape[1]:
        raise ValueError(f"one head has q (queries, dim) and k, v (keys, dim), not {q.shape}, {k.shape}, {v.shape}")
    if tile_queries < 1 or tile_keys < 1:
        raise ValueError(f"a tile has at least 1 query and 1 key, not {tile_queries} and {tile_keys}")
    (queries, dim), keys = q.shape, k.shape[0]
    q, k, v = (array.astype(dtype) for array in (q, k, v))
    output = np.zeros((queries, dim), dtype)
    for first in range(0, queries, tile_queries):
        rows = np.arange(first, min(first + tile_queries, queries))
        sees = rows + (keys - queries) if causal else np.full(rows.size, keys - 1)
        state = State.empty(rows.size, dim, dtype)
        for start in range(0, min(keys, int(sees.max()) + 1), tile_keys):
            columns = np.arange(start, min(start + tile_keys, keys))
            scores = (q[rows] @ k[columns].T) * dtype(dim**-0.5)
            scores[columns[None, :] > sees[:, None]] = -np.inf
            state = state.take(scores, v[columns])
        output[rows] = state.result()
    return output


Layout = Callable[[int, int], int]
"""The byte address of a tile's 16-byte chunk, by row and by chunk in the row."""


def plain(dim: int) -> Layout:
    """Rows of `dim` 16-bit numbers behind one another."""
    chunks = _chunks(dim)
    return lambda row, chunk: (row * chunks + chunk) * CHUNK


def swizzled(dim: int) -> Layout:
    """The same rows, each with its chunks in another order: chunk c of row r lies where chunk c XOR (r mod 8) did."""
    chunks = _chunks(dim)
    return lambda row, chunk: (row * chunks + (chunk ^ row % PHASE)) * CHUNK


def _chunks(dim: int) -> int:
    """Chunks of a row. Raises ValueError for rows that eight threads' trips do not divide."""
    if dim < 1 or dim * 2 % (PHASE * CHUNK):
        raise ValueError(f"rows of {dim} 16-bit numbers are no multiple of {PHASE * CHUNK} bytes")
    return dim * 2 // CHUNK


def trips(accesses: Sequence[int], size: int) -> int:
    """How often shared memory must be asked for accesses that are made together.

    Args:
        accesses: byte addresses, multiples of `size`.
        size: bytes of each access.

    Returns:
        The most different words that one bank has to give: 1 is free of conflicts.
    """
    words: dict[int, set[int]] = {}
    for address in accesses:
        for word in {byte // WORD for byte in range(address, address + size)}:
            words.setdefault(word % BANKS, set()).add(word)
    return max((len(found) for found in words.values()), default=0)


def matrix_read(layout: Layout, row: int, chunk: int) -> list[int]:
    """Addresses of one 8 x 8 matrix, as `ldmatrix` reads it: the same chunk of eight rows."""
    return [layout(row + i, chunk) for i in range(PHASE)]


def fragment_read(layout: Layout, row: int, chunk: int) -> list[int]:
    """Addresses of the same matrix without `ldmatrix`: lane i takes 4 bytes of row i / 4 at 4 (i mod 4)."""
    return [layout(row + lane // 4, chunk) + WORD * (lane % 4) for lane in range(32)]


def column_read(layout: Layout, row: int, column: int) -> list[int]:
    """Addresses of V for P V without `ldmatrix.trans`: lane i takes 2 bytes of row 2 (i mod 4), column i / 4."""
    return [
        layout(row + 2 * (lane % 4), (column + lane // 4) * 2 // CHUNK) + (column + lane // 4) * 2 % CHUNK
        for lane in range(32)
    ]


def row_store(layout: Layout, row: int, chunk: int) -> list[int]:
    """Addresses that eight threads store together when a tile comes from device memory: eight chunks of one row."""
    return [layout(row, chunk + i) for i in range(PHASE)]


def banks(layout: Layout, rows: int, chunks: int) -> list[list[int]]:
    """The first bank of each chunk, by row: what the page's picture of the swizzle shows."""
    return [[layout(row, chunk) // WORD % BANKS for chunk in range(chunks)] for row in range(rows)]
