"""What KsanaLLM c451219 makes of a configuration file, or why it does not start: its checks, rewritten for tests.

Read from src/ksana_llm/utils/config/{schedule,model}_config_parser.cpp, src/ksana_llm/utils/environment.cpp,
src/ksana_llm/batch_scheduler/batch_scheduler.cpp and src/ksana_llm/service/inference_engine.cpp. Shares nothing with
`loadgen/engines/ksana.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

READ = {
    "setting.global.tensor_para_size": int,
    "setting.batch_scheduler.waiting_timeout_in_ms": int,
    "setting.batch_scheduler.max_waiting_queue_len": int,
    "setting.batch_scheduler.max_token_len": int,
    "setting.batch_scheduler.max_step_tokens": int,
    "setting.batch_scheduler.max_batch_size": int,
    "setting.batch_scheduler.preempt_mode": int,
    "setting.batch_scheduler.split_fuse_token_num": int,
    "setting.batch_scheduler.enable_async": bool,
    "setting.batch_scheduler.enable_auto_prefix_cache": bool,
    "setting.block_manager.block_token_num": int,
    "setting.block_manager.reserved_device_memory_ratio": float,
    "setting.block_manager.block_device_memory_ratio": float,
    "setting.block_manager.block_host_memory_factor": float,
    "setting.attn_backend.enable_blocked_multi_token_forwarding_kv": bool,
    "setting.quantization_config.kv_cache.dtype": str,
    "setting.quantization_config.weight.quant_method": str,
    "setting.profiler.metrics_export_url": str,
    "setting.profiler.export_interval_millis": int,
    "setting.profiler.export_timeout_millis": int,
    "setting.profiler.attributes.instance": str,
    "setting.endpoint_type": str,
    "model_spec.base_model.model_dir": str,
}
"""Keys that are read, and what a value has to convert to: another is an exception there."""
NOT_READ = {"setting.global.enable_cuda_graph"}
WAITING_PLACES = 10_000_000
"""Places that are reserved at once are pointers: more than this and the reservation itself is the fault."""
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")


class Refused(Exception):
    """KsanaLLM would not start."""


@dataclasses.dataclass(frozen=True)
class Server:
    """What would run."""

    tensor_parallel_size: int
    max_model_length: int
    max_batch_size: int
    max_tokens_per_step: int
    kv_block_size: int
    kv_dtype: str
    kv_cache_tokens: int
    prefix_caching: bool
    """Whether prompts share blocks."""
    runs_prefix_code: bool
    part_tokens: int
    async_scheduling: bool
    swaps: bool
    queue_places: int
    queue_hours: float
    dtype: str


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else key
        found |= flat(value, name) if isinstance(value, Mapping) else {name: value}
    return found


def read(
    text: str, environment: Mapping[str, str], model: Mapping[str, Any], devices: int = 4, device_blocks: int = 40_000
) -> Server:
    """The server of a YAML file, its environment and a model's config.json. Raises Refused.

    `device_blocks`: blocks that the card's memory has room for.
    """
    keys = flat(YAML(typ="safe").load(text))
    if unknown := keys.keys() - READ.keys() - NOT_READ:
        raise Refused(f"nothing reads {sorted(unknown)}")
    for key, kind in READ.items():
        if key in keys and not _converts(keys[key], kind):
            raise Refused(f"{key}: {keys[key]!r} is no {kind.__name__}")

    def get(name: str, default: Any) -> Any:
        return keys.get(f"setting.{name}", default)

    dtype = str(model.get("torch_dtype", "float16")).lower()
    _check(dtype in ("float16", "bfloat16"), f"Not supported model data type: {dtype}")
    tp = get("global.tensor_para_size", devices)
    _check(0 < tp <= devices, f"{tp} tensor_parallel_size")
    split, is_async = get("batch_scheduler.split_fuse_token_num", 0), get("batch_scheduler.enable_async", False)
    _check(not (is_async and split), "Async scheduling does not support split fuse.")
    caching = get("batch_scheduler.enable_auto_prefix_cache", False)
    if "visual" in model:
        caching, split = False, 0
    is_mla = "kv_lora_rank" in model
    size = 64 if is_mla else get("block_manager.block_token_num", 16)
    heads = model.get("num_key_value_heads", model.get("num_attention_heads", 8))
    _check(tp <= heads and heads % tp == 0, f"{heads} % {tp} != 0")

    lengths = [model[key] for key in LENGTHS if key in model]
    _check(bool(lengths), "config.json does not say the maximum length")
    own = min(lengths) * (model.get("rope_scaling") or {}).get("factor", 1)
    asked = get("batch_scheduler.max_token_len", 0)
    length = min(asked, own) if asked > 0 else own
    step = get("batch_scheduler.max_step_tokens", 4096)
    if split == 0:
        step = max(step, length)
    step = math.ceil(step / tp) * tp
    _check(step >= length, f"max_step_token_num must larger or equal than max_token_len, {step} vs {length}")
    places = get("batch_scheduler.max_waiting_queue_len", 1200)
    _check(0 < places <= WAITING_PLACES, f"{places} places are reserved at once")

    _check(get("block_manager.reserved_device_memory_ratio", 0.01) > 0, "reserved_device_memory_ratio")
    factor = get("block_manager.block_host_memory_factor", 2.0)
    _check(factor >= 0, "block_host_memory_factor")
    blocks = device_blocks
    if environment.get("KLLM_MAX_DEVICE_BLOCKS", "").isdigit():
        wanted = int(environment["KLLM_MAX_DEVICE_BLOCKS"])
        blocks = wanted if 1 <= wanted <= blocks else blocks
    _check(blocks > 2, "insufficient blocks available")
    if "DISABLE_WARMUP" not in environment:
        limit = int(environment.get("MAX_WARMUP_INPUT_LENGTH", min(length, 2048)))
        longest = max([0, *range(64, limit, 64)])
        _check(longest <= length, f"a warm-up of {longest} tokens is too long for the model")
        _check(not longest or longest + 2 + 2 * size <= blocks * size, f"a warm-up of {longest} tokens waits for ever")
    kv = get("quantization_config.kv_cache.dtype", "auto")
    return Server(
        tensor_parallel_size=tp,
        max_model_length=length,
        max_batch_size=get("batch_scheduler.max_batch_size", 128),
        max_tokens_per_step=step,
        kv_block_size=size,
        kv_dtype=kv if kv in ("fp8_e4m3", "fp8_e5m2") else dtype,
        kv_cache_tokens=blocks * size,
        prefix_caching=caching,
        runs_prefix_code=caching or split > 0,
        part_tokens=split,
        async_scheduling=is_async,
        swaps=get("batch_scheduler.preempt_mode", 0) == 0,
        queue_places=places,
        queue_hours=get("batch_scheduler.waiting_timeout_in_ms", 600_000) / 3_600_000,
        dtype=dtype,
    )


def _converts(value: Any, kind: type) -> bool:
    """Whether a YAML scalar converts as yaml-cpp would have it."""
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise Refused(message)
