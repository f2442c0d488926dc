"""How long the attention of a prompt takes: FLOPs from the model's config, time at a speed.

FLOPs are counted as speeds of kernels are: half the square when causal, so that FLOPs over TFLOP/s is a time. Only
Q K^T and P V grow with the square of the prompt; projections and the MLP are not in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from loadgen.engines.model_config import attention_config
from loadgen.errors import UserError

FLOPS_A_PAIR = 4
"""Of one query, one key and one dimension: a multiply and an add in Q K^T, and in P V. Softmax is not counted."""
FULL, WINDOW = "full_attention", "sliding_attention"
NO_ATTENTION = ("linear_attention", "mamba", "conv", "recurrent")
"""Layers whose work does not grow with the square."""
FULL_EVERY = {"gemma2": 2, "gemma3_text": 6}
"""Older configs of these do not say which layers are full: every so many-th is."""


@dataclass(frozen=True, slots=True)
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

    @property
    def layers(self) -> int:
        """All layers with attention whose work is counted."""
        return self.full_layers + self.window_layers


def read_config(path: Path) -> dict[str, Any]:
    """Read what decides attention from a Hugging Face `config.json`. Raises UserError for what is none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}. Name the model's config.json.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}. Name the model's config.json.") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object. Name the model's config.json.")
    kept = attention_config(config)
    try:
        model_of(kept)
    except ValueError as error:
        raise UserError(f"{path}: {error}. Name the config.json of the model that was raced.") from None
    return kept


def model_of(config: Mapping[str, Any]) -> Model:
    """Read a config, as `attention_config` keeps it.

    Raises:
        ValueError: a size is missing or below 1, or a kind of attention is not known.
    """
    if config.get("index_topk") is not None:
        raise ValueError("sparse attention (index_topk), whose work is not known here")
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
    if isinstance(named, list) and named:
        unknown = sorted({str(kind) for kind in named if kind not in (FULL, WINDOW, *NO_ATTENTION)})
        if unknown:
            raise ValueError(f"layers of a kind whose attention is not known here: {', '.join(unknown)}")
        return list(named)
    if config.get("sliding_window") is None or config.get("use_sliding_window") is False:
        return [FULL] * layers
    every = config.get("sliding_window_pattern") or FULL_EVERY.get(str(config.get("model_type")))
    if every:
        every = _size({"sliding_window_pattern": every}, "sliding_window_pattern")
        return [WINDOW if (layer + 1) % every else FULL for layer in range(layers)]
    first = _size(config, "max_window_layers", least=0) if config.get("use_sliding_window") else 0
    return [WINDOW if layer >= first else FULL for layer in range(layers)]


def _size(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key} must be a whole number of at least {least}, not {value!r}")
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


def attention_ms(model: Model, prompt_tokens: int, tflops: float, *, cards: int = 1) -> float:
    """Milliseconds that the attention of one prompt takes at a speed.

    Args:
        model: from `model_of`.
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
    return attention_flops(model, prompt_tokens) / (tflops * 1e9 * cards)


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
