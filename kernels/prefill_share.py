"""How much of a prompt's time to first token its attention can be: FLOPs from the model's config, seconds at a speed.

FLOPs are counted as the speeds are (`flops.flops`): half the square when causal, so that FLOPs over TFLOP/s is a time.
Only Q K^T and P V grow with the square of the prompt; projections and the MLP are not in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from kernels.flops import FLOPS_A_PAIR

FULL, WINDOW = "full_attention", "sliding_attention"
NO_ATTENTION = ("linear_attention", "mamba", "conv", "recurrent")
"""Layers whose work does not grow with the square."""
FULL_EVERY = {"gemma2": 2, "gemma3_text": 6}
"""Older configs of these do not say which layers are full: every so many-th is."""


@dataclass(frozen=True)
class Model:
    """What of a model decides the size of its attention."""

    heads: int
    qk_dim: int
    """Of a query and a key."""
    v_dim: int
    """Of a value: another than `qk_dim` in multi-head latent attention only."""
    full_layers: int
    window_layers: int = 0
    """Layers in which a query sees the last `window` tokens only."""
    window: int = 0


@dataclass(frozen=True)
class Share:
    """A prompt's attention beside its measured time to first token."""

    prompt_tokens: int
    flops: float
    measured_s: float
    """At the speed that the kernel was measured at."""
    limit_s: float
    """At the limit of the card."""
    ttft_s: float

    @property
    def measured_share(self) -> float:
        """Part of the TTFT that attention takes at the measured speed; above 1 the engine's kernel was faster."""
        return self.measured_s / self.ttft_s

    @property
    def limit_share(self) -> float:
        """The same at the card's limit: no engine spends less on it."""
        return self.limit_s / self.ttft_s


def read_model(config: Path) -> Model:
    """Read a Hugging Face `config.json`.

    Raises:
        ValueError: not such a file; says what it lacks.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{config} holds no JSON object")
    try:
        return model_of(found)
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from error


def model_of(config: Mapping[str, Any]) -> Model:
    """Read a config; that of the text model where there are several.

    Raises:
        ValueError: a size is missing or below 1, or a kind of layer is not known.
    """
    config = config.get("text_config") or config
    layers = _size(config, "num_hidden_layers")
    heads = _size(config, "num_attention_heads")
    if config.get("qk_nope_head_dim") is not None:
        qk_dim = _size(config, "qk_nope_head_dim") + _size(config, "qk_rope_head_dim")
        v_dim = _size(config, "v_head_dim")
    elif config.get("head_dim") is not None:
        qk_dim = v_dim = _size(config, "head_dim")
    else:
        qk_dim = v_dim = _size(config, "hidden_size") // heads
    kinds = _kinds(config, layers)
    return Model(
        heads,
        qk_dim,
        v_dim,
        full_layers=kinds.count(FULL),
        window_layers=kinds.count(WINDOW),
        window=_size(config, "sliding_window") if WINDOW in kinds else 0,
    )


def _kinds(config: Mapping[str, Any], layers: int) -> list[str]:
    """The kind of each layer."""
    named = config.get("layer_types")
    if named:
        unknown = sorted({str(kind) for kind in named if kind not in (FULL, WINDOW, *NO_ATTENTION)})
        if unknown:
            raise ValueError(f"layers of a kind whose attention is not known here: {', '.join(unknown)}")
        return list(named)
    if config.get("sliding_window") is None or config.get("use_sliding_window") is False:
        return [FULL] * layers
    every = config.get("sliding_window_pattern") or FULL_EVERY.get(str(config.get("model_type")))
    if every:
        return [WINDOW if (layer + 1) % every else FULL for layer in range(layers)]
    first = config.get("max_window_layers") if config.get("use_sliding_window") else 0
    return [WINDOW if layer >= (first or 0) else FULL for layer in range(layers)]


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} must be a whole number of at least 1, not {value!r}")
    return value


def attention_flops(model: Model, prompt_tokens: int) -> float:
    """FLOPs of the causal attention of one prompt, over all layers. Raises ValueError below one token."""
    if prompt_tokens < 1:
        raise ValueError(f"a prompt has at least 1 token, not {prompt_tokens}")
    window = min(model.window, prompt_tokens)
    full = prompt_tokens**2 / 2
    within = prompt_tokens * window - window**2 / 2
    a_pair = FLOPS_A_PAIR / 2 * (model.qk_dim + model.v_dim)
    return model.heads * a_pair * (model.full_layers * full + model.window_layers * within)


def attention_seconds(model: Model, prompt_tokens: int, tflops: float, *, cards: int = 1) -> float:
    """Seconds that the attention of one prompt takes at a speed.

    Args:
        model: from `read_model`.
        prompt_tokens: the prompt's length.
        tflops: TFLOP/s of one card.
        cards: cards that share the heads (tensor parallel).

    Raises:
        ValueError: a speed that is not positive, or fewer than one card or token.
    """
    if not tflops > 0 or math.isinf(tflops):
        raise ValueError(f"a speed is a positive number of TFLOP/s, not {tflops}")
    if cards < 1:
        raise ValueError(f"there is at least 1 card, not {cards}")
    return attention_flops(model, prompt_tokens) / (tflops * 1e12 * cards)


def speed_at(speeds: Mapping[int, float], length: int) -> float:
    """TFLOP/s at a length from those at measured lengths: linear in log2 of the length, the ends beyond them.

    Raises:
        ValueError: nothing was measured, or the length is below 1.
    """
    if not speeds or length < 1:
        raise ValueError(f"no speed at length {length}: {len(speeds)} lengths were measured")
    known = sorted(speeds)
    if length <= known[0]:
        return speeds[known[0]]
    for low, high in pairwise(known):
        if length <= high:
            part = math.log2(length / low) / math.log2(high / low)
            return speeds[low] + part * (speeds[high] - speeds[low])
    return speeds[known[-1]]


def shares(
    model: Model, ttft_s: Mapping[int, float], speeds: Mapping[int, float], limit: float, *, cards: int = 1
) -> Sequence[Share]:
    """Attention beside the measured TTFT of each prompt length, shortest first.

    Args:
        model: from `read_model`.
        ttft_s: seconds by prompt tokens.
        speeds: TFLOP/s of a causal kernel with the model's head dim, by length.
        limit: TFLOP/s that the card can reach at most.
        cards: cards that share the heads.

    Raises:
        ValueError: a TTFT that is not positive, and what the functions above raise.
    """
    found = []
    for tokens, ttft in sorted(ttft_s.items()):
        if not ttft > 0:
            raise ValueError(f"the TTFT of {tokens} tokens must be positive, not {ttft}")
        found.append(
            Share(
                tokens,
                attention_flops(model, tokens),
                attention_seconds(model, tokens, speed_at(speeds, tokens), cards=cards),
                attention_seconds(model, tokens, limit, cards=cards),
                ttft,
            )
        )
    return found
