"""One engine on several cards: how many its serving settings ask for, and which sizes a model's shape allows.

Standard library only, as is all of `loadgen/engines/`: launchers import it inside the engines' own images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TENSOR, DATA = "tensor_parallel_size", "data_parallel_size"
MOST_CARDS = 64
TITLES = {"vllm": "vLLM", "ksana": "KsanaLLM", "sglang": "SGLang"}
"""The engines of which something is known here."""
MLA_KEY = "kv_lora_rank"
"""In the config.json of a model that keeps one latent for all heads, of which each card has a whole copy."""


def tensor_size(asked: Mapping[str, Any]) -> int:
    """Cards that share each layer."""
    return _size(asked.get(TENSOR))


def replicas(kind: str, asked: Mapping[str, Any]) -> int:
    """Whole copies of the model that serve side by side; the other engines have no such setting."""
    return _size(asked.get(DATA)) if kind in ("vllm", "sglang") else 1


def cards_of(kind: str, asked: Mapping[str, Any]) -> int:
    """Cards that an engine takes with these settings; where they ask for none, one."""
    return tensor_size(asked) * replicas(kind, asked)


def cards_asked(kind: str, asked: Mapping[str, Any]) -> int | None:
    """The same; None where the engine takes all that it sees, or nothing is known of it."""
    if kind not in TITLES or (kind == "ksana" and asked.get(TENSOR) is None):
        return None
    return cards_of(kind, asked)


def in_words(kind: str, asked: Mapping[str, Any]) -> str:
    """The sizes that were asked for."""
    copies = replicas(kind, asked)
    found = [f"{TENSOR} {tensor_size(asked)}"] if asked.get(TENSOR) is not None or copies == 1 else []
    return " x ".join([*found, *([f"{DATA} {copies}"] if copies > 1 else [])])


def sizes_of(kind: str, config: Mapping[str, Any], most: int = MOST_CARDS) -> list[int]:
    """The tensor-parallel sizes, up to `most`, that an engine takes a model with; all where its shape is not known."""
    return [size for size in range(1, most + 1) if _fits(kind, size, config)]


def refusal(kind: str, asked: Mapping[str, Any], config: Mapping[str, Any], most: int = MOST_CARDS) -> str:
    """Why a model's shape does not allow the size that is asked for, with those that would do; empty if it does.

    Args:
        kind: the engine's.
        asked: the serving settings.
        config: the model's config.json; empty where it is not known.
        most: the cards that there are.
    """
    size = tensor_size(asked)
    if kind not in TITLES or _fits(kind, size, config):
        return ""
    heads, keys = _heads(config)
    shape = f"{heads} attention heads" + (f" and {keys} KV heads" if keys and not _has_latent(config) else "")
    wide = _width(config)
    shape += f", and an MLP {wide} wide" if wide and kind != "ksana" else ""
    return (
        f"{TENSOR} {size}: {TITLES[kind]} cannot share this model out so ({shape}); "
        f"{would_do(kind, asked, config, most)}"
    )


def would_do(kind: str, asked: Mapping[str, Any], config: Mapping[str, Any], most: int) -> str:
    """The sizes that would do on so many cards, in words."""
    copies = replicas(kind, asked)
    if copies > most:
        return f"{DATA} up to {most} would do"
    sizes = sizes_of(kind, config, most // copies)
    return f"{TENSOR} {', '.join(map(str, sizes))} would do" + (f" with {DATA} {copies}" if copies > 1 else "")


def _fits(kind: str, size: int, config: Mapping[str, Any]) -> bool:
    """vLLM: ModelConfig.verify_with_parallel_config, and QKVParallelLinear and MergedColumnParallelLinear in layers/.

    SGLang's layers of the same names (srt/layers/linear.py, 0.5.23) divide likewise.
    KsanaLLM: ScheduleConfigParser::UpdateModelConfig (c451219): it keeps no copy of a KV head on several cards.
    """
    heads, keys = _heads(config)
    if size == 1 or not heads:
        return True
    if kind == "ksana":
        return keys % size == 0 and heads % size == 0
    shared = _has_latent(config) or keys % size == 0 or size % keys == 0
    return heads % size == 0 and shared and _width(config) % size == 0


def _heads(config: Mapping[str, Any]) -> tuple[int, int]:
    """Attention heads and KV heads; 0 where the config does not say."""
    inner = _inner(config)
    heads = _number(inner.get("num_attention_heads"))
    return heads, _number(inner.get("num_key_value_heads")) or heads


def _width(config: Mapping[str, Any]) -> int:
    """How wide the MLP of a model without experts is; 0 where that is not known, or there are experts."""
    inner = _inner(config)
    has_experts = any("expert" in key for key in inner)
    return 0 if has_experts else _number(inner.get("intermediate_size"))


def _has_latent(config: Mapping[str, Any]) -> bool:
    return bool(_inner(config).get(MLA_KEY))


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's config, where there are several models."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _size(value: object) -> int:
    return _number(value) or 1
