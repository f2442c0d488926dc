"""llama.cpp's server (read from build 11549)."""

from __future__ import annotations

from typing import Any

from loadgen.engines.base import Engine
from loadgen.engines.serving import SETTINGS, Block, NativeSetting, Outcome, Value
from loadgen.message import say

# Read from the wheel xllamacpp 2026.10 (build 11549): attributes of CommonParams, which are llama.cpp's common_params.
NAMES = {
    "max_model_length": ("n_ctx / n_parallel", "the model's own length"),
    "max_batch_size": ("n_parallel", "1"),
    "max_tokens_per_step": ("n_batch", "2048"),
    "kv_dtype": ("cache_type_k, cache_type_v", "f16"),
    "prefix_caching": ("cache_prompt", say("on")),
    "chunked_prefill": ("n_batch", say("on")),
    "seed": ("sampling.seed", say("random")),
}
AS_IT_IS = {"tensor_parallel_size": 1, "data_parallel_size": 1, "cuda_graphs": False, "async_scheduling": False}
CACHE_TYPES = {"auto": "f16", "float16": "f16", "bfloat16": "bf16"}
MISSING = {
    "dtype": say("weights are computed as the GGUF file stores them"),
    "tensor_parallel_size": say("the launcher starts one process on the CPU"),
    "data_parallel_size": say("the launcher starts one process on the CPU"),
    "kv_block_size": say("the KV cache is not cut into blocks"),
    "gpu_memory_fraction": say("there is no GPU; the KV cache holds every slot's full length"),
    "kv_cache_tokens": say("the KV cache holds every slot's full length: n_ctx is that of all slots"),
    "cuda_graphs": say("there is no GPU"),
    "async_scheduling": say("a step is planned when the one before has ended"),
}


class LlamaCpp(Engine):
    """llama.cpp."""

    kind = "llamacpp"
    default_api = "completions"
    accepts_token_ids = True
    version_path = "/props"
    tokenize_path = "/tokenize"
    metrics_path = "/metrics"

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """Go on past an end-of-sequence token up to the limit."""
        return {"max_tokens": output_tokens, "ignore_eos": True}

    def tokenize_body(self, model: str, text: str) -> dict[str, Any]:
        """llama.cpp calls the text `content` and adds special tokens only when told."""
        return {"content": text, "add_special": True}

    def version(self, reply: dict[str, Any]) -> str | None:
        """`/props` tells the build, where that route is on."""
        value = reply.get("build_info")
        return None if value is None else str(value)

    def context_length(self, model: dict[str, Any]) -> int | None:
        """`meta.n_ctx` is the context of one slot."""
        meta = model.get("meta")
        value = meta.get("n_ctx") if isinstance(meta, dict) else None
        return value if isinstance(value, int) else None

    def weights(self, model: dict[str, Any]) -> tuple[str, float] | None:
        """`meta` tells the file's type, its size in bytes and its parameters."""
        meta = model.get("meta")
        facts = [meta.get(key) for key in ("ftype", "size", "n_params")] if isinstance(meta, dict) else []
        match facts:
            case [kind, int(size), int(count)] if count > 0:
                return str(kind or "GGUF"), size * 8 / count
        return None

    def is_named_by(self, model: dict[str, Any]) -> bool:
        """The model list says `owned_by: llamacpp`."""
        return model.get("owned_by") == "llamacpp"


def translate(block: Block, defaults: Block | None = None) -> list[NativeSetting]:
    """Return all settings as llama.cpp takes them; `defaults` are the launcher's, where nothing was asked for."""
    return [_native(setting, block.get(setting), (defaults or {}).get(setting)) for setting in SETTINGS]


def _native(setting: str, asked: Value | None, default: Value | None) -> NativeSetting:
    name, words = NAMES.get(setting, ("", ""))
    if asked is not None:
        value, outcome, note = _told(setting, asked)
        return NativeSetting(setting, asked, name, value, outcome, note)
    note = MISSING.get(setting) or say("llama.cpp's default: {value}", value=words)
    return NativeSetting(
        setting, None, name, default, "default", note if default is None else say("the launcher's default")
    )


def _told(setting: str, asked: Value) -> tuple[Value | None, Outcome, str]:
    """What is told, what becomes of it, and a note."""
    if setting in MISSING:
        same = asked == AS_IT_IS.get(setting)
        return None, "honoured" if same else "not honoured", MISSING[setting]
    if setting == "chunked_prefill":
        return None, "honoured" if asked else "not honoured", say("a prompt is always cut at n_batch tokens")
    if setting == "max_tokens_per_step":
        return asked, "differs", say("n_batch limits a step, which is computed in parts of n_ubatch (512)")
    if setting != "kv_dtype":
        return asked, "honoured", ""
    if asked not in CACHE_TYPES:
        return None, "not honoured", say("llama.cpp has no FP8 KV cache; f16 is kept")
    return CACHE_TYPES[str(asked)], "honoured", say("llama.cpp's default for every model") if asked == "auto" else ""
