"""Tencent KsanaLLM's server (read from commit c451219 and a capture of it)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from loadgen.engines.base import Engine
from loadgen.engines.serving import SETTINGS, Block, NativeSetting, Outcome, Value
from loadgen.message import say


class KsanaLLM(Engine):
    """KsanaLLM: only chat works, the models are under `/models`, and metrics are pushed, not served."""

    kind = "ksana"
    default_api = "chat"
    apis = ("chat",)
    models_path = "/models"
    checks_model_name = False

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """`ignore_eos` and `min_tokens` are honoured at that commit."""
        return {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True}

    def sampling_fields(self) -> dict[str, Any]:
        """None: greedy is its default, and sampling would have to be asked for with `do_sample`."""
        return {}


BLOCKS_VARIABLE, WARM_UP_VARIABLE = "KLLM_MAX_DEVICE_BLOCKS", "MAX_WARMUP_INPUT_LENGTH"
"""Of its environment: the most blocks of KV cache (it only lowers them), and the length of its warm-up's prompts."""

# Keys and defaults as src/ksana_llm/utils/config/schedule_config_parser.cpp and src/ksana_llm/utils/environment.cpp
# read them. `dtype` comes from the model's config.json (model_config_parser.cpp there), `seed` from nowhere.
KEYS = {
    "dtype": ("torch_dtype in config.json", "the model's own"),
    "tensor_parallel_size": ("setting.global.tensor_para_size", "every visible GPU"),
    "data_parallel_size": ("", "one copy of the model"),
    "max_model_length": (
        "setting.batch_scheduler.max_token_len",
        "the model's own length; newer Python front ends assume 2048",
    ),
    "max_batch_size": ("setting.batch_scheduler.max_batch_size", "128"),
    "max_tokens_per_step": (
        "setting.batch_scheduler.max_step_tokens",
        "4096, raised to the longest sequence unless prompts are cut",
    ),
    "kv_block_size": ("setting.block_manager.block_token_num", "16"),
    "kv_dtype": ("setting.quantization_config.kv_cache.dtype", say("auto, the model's own")),
    "gpu_memory_fraction": (
        "setting.block_manager.reserved_device_memory_ratio",
        "0.01 of what is free at the start stays free",
    ),
    "kv_cache_tokens": (BLOCKS_VARIABLE, "all that the loaded model leaves"),
    "prefix_caching": ("setting.batch_scheduler.enable_auto_prefix_cache", "off"),
    "chunked_prefill": ("setting.batch_scheduler.split_fuse_token_num", "0, off"),
    "cuda_graphs": ("setting.global.enable_cuda_graph", "off"),
    "async_scheduling": (
        "setting.batch_scheduler.enable_async",
        "off, where vLLM's is on: default against default compares the two",
    ),
    "seed": ("", "none, and decodes greedily unless a request asks for sampling"),
}
STEP_TOKENS = 4096
"""The reader's own default of max_step_tokens."""
PART_TOKENS = 512
"""A prompt is cut into parts of this length; upstream's example has 256. Several of them share a step."""
BLOCK_TOKENS, MLA_BLOCK_TOKENS = 16, 64
LEAST_BLOCKS = 3
"""Two are kept free for each sequence that is to be launched; with no more it does not start."""
LENGTH_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
WARM_UP_TOKENS, WARM_UP_SPARE_BLOCKS = 2048, 4
MLA_TYPES = ("deepseek", "kimi")

# As upstream's examples/ksana_llm.yaml has them, but: no swap space in host memory, which vLLM has not either (the
# reader's default is twice the KV cache), so what is preempted is computed again, as vLLM does; and no limit on a queue
# or on the time in it, running included, as vLLM has none (defaults: 1,200 requests, 10 minutes).
ALWAYS: dict[str, Value] = {
    "setting.batch_scheduler.preempt_mode": 1,
    "setting.batch_scheduler.waiting_timeout_in_ms": 86_400_000,
    "setting.batch_scheduler.max_waiting_queue_len": 100_000,
    "setting.block_manager.block_device_memory_ratio": -1.0,
    "setting.block_manager.block_host_memory_factor": 0.0,
    "setting.attn_backend.enable_blocked_multi_token_forwarding_kv": False,
    "setting.quantization_config.kv_cache.dtype": "auto",
    "setting.quantization_config.weight.quant_method": "auto",
    "setting.endpoint_type": "python",
}
EXPORT_INTERVAL_MS = 2000
EXPORT_TIMEOUT_MS = 1000

Model = Mapping[str, Any]
"""A model's config.json; empty where it is not known."""
Told = tuple[Optional[Value], Outcome, str]  # noqa: UP045 - evaluated at import, maybe by an image's Python 3.9
"""What is told under the key, what becomes of it, and a note."""


def translate(block: Block, model: Model | None = None) -> list[NativeSetting]:
    """Return all settings as KsanaLLM takes them."""
    return [_native(setting, block, model or {}) for setting in SETTINGS]


def model_dtype(model: Model) -> str:
    """The type that KsanaLLM computes in: `torch_dtype` of the model's config.json, float16 where it has none."""
    return str(model.get("torch_dtype") or "float16").lower()


def _native(setting: str, block: Block, model: Model) -> NativeSetting:
    name, default = KEYS[setting]
    asked = block.get(setting)
    if asked is None:
        value: Value | None = _needed_step(block, model) if setting == "max_tokens_per_step" else None
        note = f"KsanaLLM's default: {default}" if value is None else "the longest sequence, which a step has to hold"
        return NativeSetting(setting, None, name, value, "default", note)
    value, outcome, note = NOT_AS_IT_IS[setting](asked, block, model) if setting in NOT_AS_IT_IS else (asked, OK, "")
    return NativeSetting(setting, asked, name, value, outcome, note)


def _dtype(asked: Value, _: Block, model: Model) -> Told:
    if not model:
        return None, "differs", "KsanaLLM has no such key: it takes the model's own type, which is not known here"
    own = model_dtype(model)
    missing = "" if model.get("torch_dtype") else "config.json has no torch_dtype, so KsanaLLM takes float16"
    if asked in ("auto", own):
        return None, OK, missing or f"the model's own: {own}"
    return None, "not honoured", missing or f"KsanaLLM has no such key and computes in the model's own type, {own}"


def model_length(model: Model) -> int | None:
    """The longest sequence that KsanaLLM takes a model for; None where its config.json does not say."""
    lengths = [float(model[key]) for key in LENGTH_KEYS if model.get(key) is not None]
    if not lengths:
        return None
    length, scaling = min(lengths), model.get("rope_scaling")
    if not isinstance(scaling, Mapping):
        return int(length)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    kind = "xdrope" if model.get("position_embedding_xdrope") else "mrope" if "mrope_section" in scaling else kind
    if kind == "xdrope":
        return int(float(model.get("max_position_embeddings") or 2048) * float(scaling.get("alpha", 1)))
    if kind in ("su", "longrope", "llama3") or (kind == "dynamic" and "alpha" in scaling):
        return int(length)
    if kind == "yarn":
        length = float(scaling.get("original_max_position_embeddings", length))
    return int(length * float(scaling.get("factor", 1)))


def _longest(block: Block, model: Model) -> int | None:
    """The longest sequence as asked for, else the model's own; None where neither is known."""
    asked = block.get("max_model_length")
    return model_length(model) if asked is None else int(asked)


def _needed_step(block: Block, model: Model) -> int | None:
    """What the default step has to be raised to; where prompts are not cut KsanaLLM raises it itself."""
    longest = _longest(block, model)
    return longest if block.get("chunked_prefill") and longest is not None and longest > STEP_TOKENS else None


def _length(asked: Value, _: Block, model: Model) -> Told:
    own = model_length(model)
    if own is not None and int(asked) > own:
        return asked, "differs", f"lowered to the model's own length, {own}"
    return asked, OK, ""


def _step_tokens(asked: Value, block: Block, model: Model) -> Told:
    longest, ranks = _longest(block, model), int(block.get("tensor_parallel_size", 1))
    if longest is None:
        return asked, "differs", "raised to the model's length if less"
    if longest > int(asked):
        note = f"raised to {longest}: a step has to hold the longest sequence, also where prompts are cut"
        return longest, "differs", note
    if int(asked) % ranks:
        return asked, "differs", f"rounded up to a multiple of the GPUs that share a layer, {ranks}"
    return asked, OK, ""


def _cache_tokens(asked: Value, block: Block, model: Model) -> Told:
    size = _block_tokens(block, model)
    blocks = max(int(asked) // size, LEAST_BLOCKS)
    note = f"{blocks} blocks of {size} tokens, or fewer if the memory does not suffice"
    return blocks, OK if blocks * size == asked else "differs", note


def _block_tokens(block: Block, model: Model) -> int:
    return MLA_BLOCK_TOKENS if _has_mla(model) else int(block.get("kv_block_size", BLOCK_TOKENS))


def _has_mla(model: Model) -> bool:
    return str(model.get("model_type", "")).startswith(MLA_TYPES)


def _prefix_caching(asked: Value, block: Block, model: Model) -> Told:
    if asked and "visual" in model:
        return True, "not honoured", "KsanaLLM turns it off for models with a `visual` part"
    if asked:
        note = (
            "the prompts of its warm-up (up to 1,984 tokens) stay in the cache and are evicted last; "
            "the newest prompt is evicted first, vLLM evicts the least recently used"
        )
        return True, OK, note
    if block.get("chunked_prefill") and "visual" not in model:
        return False, "differs", "no prompt profits from another, but cut prompts run through the prefix cache's code"
    return False, OK, ""


def _async_scheduling(asked: Value, block: Block, model: Model) -> Told:
    if asked and block.get("chunked_prefill") and "visual" not in model:
        return False, "not honoured", "KsanaLLM refuses to start with it and chunked_prefill together"
    return asked, OK, ""


def _block_size(asked: Value, _: Block, model: Model) -> Told:
    if _has_mla(model):
        return asked, "differs", "models with MLA get blocks of their own size, mostly 64"
    return asked, OK, ""


def _kv_dtype(asked: Value, _: Block, model: Model) -> Told:
    if asked in ("auto", "fp8_e4m3", "fp8_e5m2"):
        return asked, OK, "scales are 1.0 unless the model has a kv_cache_scales.json" if asked == "fp8_e4m3" else ""
    if model and asked == model_dtype(model):
        return "auto", OK, "auto is the model's own type"
    return "auto", "not honoured", "KsanaLLM knows auto, fp8_e4m3 and fp8_e5m2; auto is the model's own type"


def _memory(asked: Value, _: Block, __: Model) -> Told:
    note = (
        "this part of what is free at the start stays free, and all that the loaded model leaves of the rest becomes "
        "KV cache; vLLM takes the fraction of the whole card and tries a full step first; kv_cache_tokens is alike"
    )
    return max(round(1 - float(asked), 6), 1e-6), "differs", note


def _chunked_prefill(asked: Value, block: Block, model: Model) -> Told:
    if not asked:
        return 0, OK, ""
    if "visual" in model:
        return 0, "not honoured", "KsanaLLM turns it off for models with a `visual` part"
    part = min(PART_TOKENS, int(block.get("max_tokens_per_step", PART_TOKENS)))
    note = (
        f"every prompt is cut into parts of {part}, several of which share a step; vLLM fills a step with what fits of "
        "one prompt; KsanaLLM stops cutting, for good, the first time that its KV cache is full"
    )
    return part, "differs", note


def _cuda_graphs(asked: Value, _: Block, __: Model) -> Told:
    if not asked:
        return False, OK, ""
    note = "the key stands in upstream's example (for decode batches of 1 to 3), but nothing reads it at c451219"
    return True, "not honoured", note


def _replicas(asked: Value, _: Block, __: Model) -> Told:
    if asked == 1:
        return None, OK, "KsanaLLM serves one copy of the model"
    note = (
        "KsanaLLM serves one copy of the model; its attn_data_para_size shares requests out over the attention of the "
        "cards that share the rest"
    )
    return None, "not honoured", note


def _seed(_: Value, __: Block, ___: Model) -> Told:
    return None, "not honoured", f"KsanaLLM has {KEYS['seed'][1]}"


OK: Outcome = "honoured"
NOT_AS_IT_IS: dict[str, Callable[[Value, Block, Model], Told]] = {
    "dtype": _dtype,
    "data_parallel_size": _replicas,
    "max_model_length": _length,
    "max_tokens_per_step": _step_tokens,
    "kv_block_size": _block_size,
    "kv_dtype": _kv_dtype,
    "gpu_memory_fraction": _memory,
    "kv_cache_tokens": _cache_tokens,
    "prefix_caching": _prefix_caching,
    "chunked_prefill": _chunked_prefill,
    "cuda_graphs": _cuda_graphs,
    "async_scheduling": _async_scheduling,
    "seed": _seed,
}
"""Settings that KsanaLLM does not take just as they were asked for."""


def environment(block: Block, model: Model) -> dict[str, str]:
    """What is told by KsanaLLM's environment: the cache's size, and a warm-up that fits into it."""
    if "kv_cache_tokens" not in block:
        return {}
    size = _block_tokens(block, model)
    blocks = _cache_tokens(block["kv_cache_tokens"], block, model)[0]
    found = {BLOCKS_VARIABLE: str(blocks)}
    longest = min(_longest(block, model) or WARM_UP_TOKENS, model_length(model) or WARM_UP_TOKENS, WARM_UP_TOKENS)
    room = max((int(blocks or 0) - WARM_UP_SPARE_BLOCKS) * size, 0)
    return found | ({WARM_UP_VARIABLE: str(room)} if room < longest else {})


def configuration(settings: Sequence[NativeSetting], model_dir: str, metrics_url: str) -> dict[str, Any]:
    """KsanaLLM's configuration file as nested mappings. Metrics are pushed to `metrics_url` every 2 s."""
    keys: dict[str, Value] = {
        **ALWAYS,
        "setting.profiler.metrics_export_url": metrics_url,
        "setting.profiler.export_interval_millis": EXPORT_INTERVAL_MS,
        "setting.profiler.export_timeout_millis": EXPORT_TIMEOUT_MS,
        "setting.profiler.attributes.instance": "ksana",
        "model_spec.base_model.model_dir": model_dir,
    }
    for setting in settings:
        if setting.name != BLOCKS_VARIABLE:
            keys.update(setting.told())
    # Every section that upstream's Python front end looks into is there, whether or not anything was asked for.
    tree: dict[str, Any] = {"setting": {"global": {}, "batch_scheduler": {}, "block_manager": {}}}
    for key, value in keys.items():
        *path, leaf = key.split(".")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[leaf] = value
    return tree


def to_yaml(tree: Mapping[str, Any], depth: int = 0) -> str:
    """Nested mappings of plain values as YAML in block style; needs no library, as the engine's image may have none."""
    lines = []
    for key, value in tree.items():
        pad = "  " * depth
        if isinstance(value, Mapping):
            lines.append(f"{pad}{key}:\n{to_yaml(value, depth + 1)}" if value else f"{pad}{key}: {{}}\n")
        else:
            lines.append(f"{pad}{key}: {json.dumps(value)}\n")
    return "".join(lines)
