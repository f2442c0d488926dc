"""Attention one number at a time, without numpy: an oracle that shares no code with what it judges."""

import math


def attention(q, k, v, causal, scale=None):
    """Nested lists: q[query][dim], k[key][dim], v[key][dim] of one head. Returns output[query][dim]."""
    queries, keys = len(q), len(k)
    scale = 1 / math.sqrt(len(q[0])) if scale is None else scale
    output = []
    for i in range(queries):
        seen = [j for j in range(keys) if not causal or j - (keys - 1) <= i - (queries - 1)]
        if not seen:
            output.append([0.0] * len(v[0]))
            continue
        scores = [scale * math.fsum(a * b for a, b in zip(q[i], k[j], strict=True)) for j in seen]
        top = max(scores)
        weights = [math.exp(score - top) for score in scores]
        total = math.fsum(weights)
        output.append(
            [math.fsum(w * v[j][d] for w, j in zip(weights, seen, strict=True)) / total for d in range(len(v[0]))]
        )
    return output
