"""What a forward attention computes and what it must move, counted from its shape."""

from __future__ import annotations

from dataclasses import dataclass

FLOPS_A_PAIR = 4
"""Of one query, one key and one dimension: a multiply and an add in Q K^T, and in P V. Softmax is not counted."""


@dataclass(frozen=True)
class Shape:
    """The size of one forward attention; lengths in tokens."""

    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    kv_heads: int | None = None
    """As many as heads when None."""
    causal: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a size below 1 or heads that do not share out."""
        for name in ("batch", "heads", "queries", "keys", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.shared_heads < 1 or self.heads % self.shared_heads:
            raise ValueError(f"{self.heads} heads are no multiple of {self.kv_heads} key heads")

    @property
    def shared_heads(self) -> int:
        """Key heads."""
        return self.heads if self.kv_heads is None else self.kv_heads


def square(batch: int, heads: int, seqlen: int, dim: int, *, causal: bool = False) -> Shape:
    """The shape of a prefill without a cache: as many queries as keys."""
    return Shape(batch, heads, seqlen, seqlen, dim, causal=causal)


def flops(shape: Shape) -> int:
    """FLOPs as FlashAttention's benchmarks count them: 4 B H Sq Sk d, halved when causal.

    Source: flash-attention, benchmarks/bench_sm90.py. A TFLOP/s on the page is this over the time.
    """
    return FLOPS_A_PAIR * shape.batch * shape.heads * shape.queries * shape.keys * shape.dim // (1 + shape.causal)


def exact_flops(shape: Shape) -> int:
    """FLOPs of the pairs that a causal mask leaves, diagonal included: what must be computed, and no more."""
    return FLOPS_A_PAIR * shape.batch * shape.heads * visible_pairs(shape) * shape.dim


def visible_pairs(shape: Shape) -> int:
    """Pairs of a query and a key that it sees, of one head of one sequence.

    Causal, query i of Sq sees keys 0 ... i + Sk - Sq.
    """
    queries, keys = shape.queries, shape.keys
    if not shape.causal:
        return queries * keys
    seeing = min(queries, keys)  # with more queries than keys the first of them see nothing
    return seeing * keys - seeing * (seeing - 1) // 2


def tiled_bytes(shape: Shape, element: int = 2) -> int:
    """Bytes that any kernel must move through device memory: Q, K and V read once, the output written once."""
    ends = 2 * shape.batch * shape.queries * shape.heads
    middle = 2 * shape.batch * shape.keys * shape.shared_heads
    return (ends + middle) * shape.dim * element


def textbook_bytes(shape: Shape, element: int = 2, score: int = 4) -> int:
    """Bytes of the textbook way, which writes S = Q K^T, reads it, writes P = softmax(S), and reads that.

    Args:
        shape: the whole square is written and read, causal or not.
        element: bytes of one number of Q, K, V and the output.
        score: bytes of one number of S and of P.
    """
    pairs = shape.batch * shape.heads * shape.queries * shape.keys
    return tiled_bytes(shape, element) + 4 * pairs * score


def intensity(shape: Shape, element: int = 2) -> float:
    """FLOPs a byte at the least traffic there can be."""
    return flops(shape) / tiled_bytes(shape, element)
