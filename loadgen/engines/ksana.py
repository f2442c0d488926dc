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


# Keys and defaults as src/ksana_llm/utils/config/schedule_config_parser.cpp and src/ksana_llm/utils/environment.cpp
# read them. `dtype` comes from the model's config.json (model_config_parser.cpp there), `seed` from nowhere.
KEYS = {
    "dtype": ("torch_dtype in config.json", "the model's own"),
    "tensor_parallel_size": ("setting.global.tensor_para_size", "every visible GPU"),
    "max_model_length": (
        "setting.batch_scheduler.max_token_len",
        "the model's own length; newer Python front ends assume 2048",
    ),
    "max_batch_size": ("setting.batch_scheduler.max_batch_size", "128"),
    "max_tokens_per_step": (
        "setting.batch_scheduler.max_step_tokens",
        "4096, raised to max_token_len unless prompts are cut",
    ),
    "kv_block_size": ("setting.block_manager.block_token_num", "16"),
    "kv_dtype": ("setting.quantization_config.kv_cache.dtype", say("auto, the model's own")),
    "gpu_memory_fraction": ("setting.block_manager.reserved_device_memory_ratio", "0.01 of the memory stays free"),
    "prefix_caching": ("setting.batch_scheduler.enable_auto_prefix_cache", "off"),
    "chunked_prefill": ("setting.batch_scheduler.split_fuse_token_num", "0, off"),
    "cuda_graphs": ("setting.global.enable_cuda_graph", "off"),
    "seed": ("", "none, and decodes greedily unless a request asks for sampling"),
}
STEP_TOKENS = 4096
"""The reader's own default of max_step_tokens."""
MLA_TYPES = ("deepseek", "kimi")

# As upstream's examples/ksana_llm.yaml has them. No swap space in host memory, which vLLM has not either; the reader's
# default is twice the KV cache.
ALWAYS: dict[str, Value] = {
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
        return NativeSetting(setting, None, name, None, "default", f"KsanaLLM's default: {default}")
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


def _step_tokens(asked: Value, block: Block, _: Model) -> Told:
    length = block.get("max_model_length")
    if block.get("chunked_prefill") or (length is not None and int(asked) >= int(length)):
        return asked, OK, ""
    reached = "the model's length" if length is None else length
    return asked, "differs", f"raised to {reached} if less, as prompts are not cut"


def _block_size(asked: Value, _: Block, model: Model) -> Told:
    if str(model.get("model_type", "")).startswith(MLA_TYPES):
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
        "this part stays free, and all that the loaded model leaves of the rest becomes KV cache; "
        "vLLM tries a full step first and counts its memory within the fraction"
    )
    return round(1 - float(asked), 6), "differs", note


def _chunked_prefill(asked: Value, block: Block, _: Model) -> Told:
    if not asked:
        return 0, OK, ""
    tokens = block.get("max_tokens_per_step", STEP_TOKENS)
    if block.get("prefix_caching"):
        return tokens, OK, "told as the tokens of a part"
    note = (
        "some commits (4d8eed4) turn it off where prefix caching is off; "
        "newer ones cut prompts by the code of their prefix cache"
    )
    return tokens, "differs", note


def _cuda_graphs(asked: Value, _: Block, __: Model) -> Told:
    if not asked:
        return False, OK, ""
    note = (
        "the key stands in upstream's example (for decode batches of 1 to 3), but the readers of configuration "
        "from commit 4d8eed4 on do not read it"
    )
    return True, "not honoured", note


def _seed(_: Value, __: Block, ___: Model) -> Told:
    return None, "not honoured", f"KsanaLLM has {KEYS['seed'][1]}"


OK: Outcome = "honoured"
NOT_AS_IT_IS: dict[str, Callable[[Value, Block, Model], Told]] = {
    "dtype": _dtype,
    "max_tokens_per_step": _step_tokens,
    "kv_block_size": _block_size,
    "kv_dtype": _kv_dtype,
    "gpu_memory_fraction": _memory,
    "chunked_prefill": _chunked_prefill,
    "cuda_graphs": _cuda_graphs,
    "seed": _seed,
}
"""Settings that KsanaLLM does not take just as they were asked for."""


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
