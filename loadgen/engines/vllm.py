"""vLLM's OpenAI-compatible server (read from vLLM 0.24 and 0.32)."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from loadgen.engines.base import Engine
from loadgen.engines.serving import SETTINGS, Block, NativeSetting, Value
from loadgen.message import say

# Read from vllm/engine/arg_utils.py and vllm/config/ of 0.32; (flag, its default in words).
FLAGS = {
    "dtype": ("--dtype", say("auto, the model's own")),
    "tensor_parallel_size": ("--tensor-parallel-size", "1"),
    "data_parallel_size": ("--data-parallel-size", "1"),
    "max_model_length": ("--max-model-len", say("the model's own length")),
    "max_batch_size": ("--max-num-seqs", say("by GPU: 256, or 1024 from 70 GiB on")),
    "max_tokens_per_step": ("--max-num-batched-tokens", say("by GPU: 2048 to 16384")),
    "kv_block_size": ("--block-size", say("16, or what the attention backend wants")),
    "kv_dtype": ("--kv-cache-dtype", say("auto, the model's own")),
    "gpu_memory_fraction": ("--gpu-memory-utilization", "0.92"),
    "kv_cache_tokens": ("--num-gpu-blocks-override", say("what the memory fraction leaves")),
    "prefix_caching": ("--enable-prefix-caching", say("on")),
    "chunked_prefill": ("--enable-chunked-prefill", say("on")),
    "cuda_graphs": ("--compilation-config", say("on")),
    "async_scheduling": ("--async-scheduling", say("on, where the set-up allows it")),
    "seed": ("--seed", "0"),
}
BLOCK_TOKENS = 16
"""vLLM's usual block, where no other is asked for."""
CPU_BLOCK_TOKENS = 32
"""What vLLM's attention on a CPU takes blocks in multiples of."""
NO_GRAPHS = '{"cudagraph_mode": "NONE"}'
ON_CPU = {
    "tensor_parallel_size": say("the launcher starts one process on the CPU"),
    "data_parallel_size": say("the launcher starts one process on the CPU"),
    "gpu_memory_fraction": say("there is no GPU; the launcher sets the KV cache's size so that every sequence fits"),
    "cuda_graphs": say("there is no GPU"),
}


class VLLM(Engine):
    """vLLM."""

    kind = "vllm"
    default_api = "completions"
    accepts_token_ids = True
    version_path = "/version"
    tokenize_path = "/tokenize"
    metrics_path = "/metrics"
    kv_cache_path = "/metrics"
    prompt_logprobs = True
    cache_reset_path = "/reset_prefix_cache"
    cache_reset_variable = "VLLM_SERVER_DEV_MODE"

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """Fix the length from both sides and go on past an end-of-sequence token."""
        return {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True}

    def tokenize_body(self, model: str, text: str) -> dict[str, Any]:
        """vLLM adds special tokens by default."""
        return {"model": model, "prompt": text, "add_special_tokens": True}

    def kv_cache_tokens(self, text: str) -> int | None:
        """Blocks by their size, of all of its data-parallel engines."""
        tokens = 0
        for labels in re.findall(r"^vllm:cache_config_info\{(.*)\}", text, re.MULTILINE):
            found = [re.search(rf'(?:^|,){name}="(\d+)"', labels) for name in ("num_gpu_blocks", "block_size")]
            blocks, size = (int(one[1]) if one else 0 for one in found)
            tokens += blocks * size
        return tokens or None

    def is_named_by(self, model: dict[str, Any]) -> bool:
        """The model list says `owned_by: vllm`."""
        return model.get("owned_by") == "vllm"


def translate(block: Block, defaults: Block | None = None, *, gpu: bool = True) -> list[NativeSetting]:
    """Return all settings as vLLM takes them.

    Args:
        block: what was asked for.
        defaults: what the launcher sets where nothing was asked for.
        gpu: whether vLLM runs on GPUs; on a CPU some settings mean nothing.
    """
    return [_native(setting, block, (defaults or {}).get(setting), gpu) for setting in SETTINGS]


def _native(setting: str, block: Block, default: Value | None, gpu: bool) -> NativeSetting:
    flag, words = FLAGS[setting]
    asked = block.get(setting)
    note: str
    if asked is None:
        note = say("vLLM's default: {value}", value=words) if default is None else say("the launcher's default")
        return NativeSetting(setting, None, flag, default, "default", note)
    if not gpu and setting in ON_CPU:
        same = asked == {"tensor_parallel_size": 1, "data_parallel_size": 1, "cuda_graphs": False}.get(setting)
        return NativeSetting(setting, asked, flag, None, "honoured" if same else "not honoured", ON_CPU[setting])
    if setting == "cuda_graphs":
        value, note = (None, say("vLLM's default")) if asked else (NO_GRAPHS, "")
        return NativeSetting(setting, asked, flag, value, "honoured", note)
    size = block.get("kv_block_size")
    if size is not None and not gpu:
        size = math.ceil(int(size) / CPU_BLOCK_TOKENS) * CPU_BLOCK_TOKENS
    if setting == "kv_cache_tokens":
        return _cache_size(int(asked), size, gpu)
    if setting == "kv_block_size" and size != asked:
        note = say("vLLM's attention on a CPU takes blocks of {size} tokens, or multiples of it", size=CPU_BLOCK_TOKENS)
        return NativeSetting(setting, asked, flag, size, "differs", note)
    note = ""
    if setting == "chunked_prefill" and not asked:
        note = say("vLLM warns that models are not tested without it")
    if setting == "data_parallel_size" and int(asked) > 1:
        note = say("one API server shares requests out to {count} copies; each has the other settings, and a KV cache, "
                   "for itself", count=asked)  # fmt: skip
    return NativeSetting(setting, asked, flag, asked, "honoured", note)


def _cache_size(tokens: int, block: Value | None, gpu: bool) -> NativeSetting:
    """vLLM takes the cache's size in blocks, one of which it keeps for itself."""
    name = FLAGS["kv_cache_tokens"][0]
    if block is None and not gpu:
        note = say("a block's size on the CPU is vLLM's own: ask for kv_block_size too")
        return NativeSetting("kv_cache_tokens", tokens, name, None, "not honoured", note)
    size = int(block or BLOCK_TOKENS)
    blocks = max(tokens // size, 1)
    exact = block is not None and blocks * size == tokens
    note = say("{blocks} blocks of {size} tokens", blocks=blocks, size=size)
    if block is None:
        note = say("{blocks} blocks of {size} tokens, unless vLLM takes another size: ask for kv_block_size too",
                   blocks=blocks, size=size)  # fmt: skip
    return NativeSetting("kv_cache_tokens", tokens, name, blocks, "honoured" if exact else "differs", note)


def api_server(
    model: str, served_name: str | None, host: str, port: int, settings: Sequence[NativeSetting]
) -> list[str]:
    """The command line of vLLM's API server, for the Python that runs this; no page may ask it from a browser."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", served_name] if served_name else []
    return [*command, "--host", host, "--port", str(port), *arguments(settings), "--allowed-origins", "[]"]


def arguments(settings: Sequence[NativeSetting]) -> list[str]:
    """The settings as a part of vLLM's command line."""
    found = []
    for setting in settings:
        for flag, value in setting.told().items():
            if isinstance(value, bool):
                found.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                found += [flag, str(value)]
    return found
