"""Attention in float64 on the CPU, the plain way: what the kernels are held against.

Shapes: `q` is (batch, queries, heads, dim), `k` and `v` are (batch, keys, kv_heads, dim), the output is as `q`.
Heads share keys in groups (GQA): query head h reads key head h // (heads // kv_heads). With `causal` the last query
sees every key: query i sees keys 0 ... i + keys - queries. A query that sees no key gets zeros.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


def attention(q: Array, k: Array, v: Array, *, causal: bool = False, scale: float | None = None) -> Floats:
    """softmax(scale Q K^T) V over a batch of equally long sequences.

    Args:
        q: shape (batch, queries, heads, dim).
        k: shape (batch, keys, kv_heads, dim).
        v: shaped like `k`.
        causal: no query sees a key after its own place.
        scale: 1 / sqrt(dim) when None.

    Returns:
        Shape (batch, queries, heads, dim), float64.

    Raises:
        ValueError: shapes that do not fit; says which.
    """
    check_shapes(q.shape, k.shape, v.shape)
    batch, queries, heads, dim = q.shape
    keys, kv_heads = k.shape[1:3]
    group = heads // kv_heads
    factor = dim**-0.5 if scale is None else scale
    hidden = np.zeros((queries, keys), dtype=bool)
    if causal:
        hidden = np.arange(keys)[None, :] > np.arange(queries)[:, None] + (keys - queries)
    output = np.zeros(q.shape)
    for b in range(batch):
        for h in range(heads):
            scores = q[b, :, h].astype(np.float64) @ k[b, :, h // group].astype(np.float64).T * factor
            scores[hidden] = -np.inf
            output[b, :, h] = softmax(scores) @ v[b, :, h // group].astype(np.float64)
    return output


def attention_varlen(
    q: Array, k: Array, v: Array, cu_seqlens: Array, *, causal: bool = False, scale: float | None = None
) -> Floats:
    """Attention over sequences of different lengths that lie behind one another.

    Args:
        q: shape (tokens, heads, dim).
        k: shape (tokens, kv_heads, dim).
        v: shaped like `k`.
        cu_seqlens: integers of shape (sequences + 1,): where each sequence begins, and the end of the last.
        causal: no query sees a key after its own place.
        scale: 1 / sqrt(dim) when None.

    Returns:
        Shape (tokens, heads, dim), float64.

    Raises:
        ValueError: shapes that do not fit, or bounds that do not cover the tokens in order.
    """
    if q.ndim != 3 or k.ndim != 3 or v.ndim != 3:
        raise ValueError(f"varlen q, k, v have 3 axes (tokens, heads, dim), not {q.ndim}, {k.ndim}, {v.ndim}")
    if q.shape[0] != k.shape[0]:
        raise ValueError(f"varlen q has {q.shape[0]} tokens and k has {k.shape[0]}")
    check_shapes((1, *q.shape), (1, *k.shape), (1, *v.shape))
    bounds = [int(bound) for bound in cu_seqlens]
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != q.shape[0] or any(a > b for a, b in pairwise(bounds)):
        raise ValueError(f"cu_seqlens must rise from 0 to {q.shape[0]} (the tokens), not {bounds}")
    output = np.zeros(q.shape)
    for begin, end in pairwise(bounds):
        part = slice(begin, end)
        output[part] = attention(q[None, part], k[None, part], v[None, part], causal=causal, scale=scale)[0]
    return output


def softmax(scores: Floats) -> Floats:
    """Softmax over the last axis; a row of minus infinities becomes zeros."""
    if not scores.shape[-1]:
        return scores
    highest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def check_shapes(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> None:
    """Raise ValueError unless the shapes of q, k and v make one attention."""
    if len(q) != 4 or len(k) != 4:
        raise ValueError(f"q and k have 4 axes (batch, sequence, heads, dim), not {len(q)} and {len(k)}")
    if k != v:
        raise ValueError(f"k and v have one shape, not {k} and {v}")
    for axis, name in ((0, "batch"), (3, "head dim")):
        if q[axis] != k[axis]:
            raise ValueError(f"q and k differ in {name}: {q[axis]} and {k[axis]}")
    if not q[3]:
        raise ValueError("head dim is 0")
    if not k[2] or q[2] % k[2]:
        raise ValueError(f"{q[2]} query heads are no multiple of {k[2]} key heads")
