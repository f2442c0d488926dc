"""SGLang's OpenAI-compatible server (read from the wheel of 0.5.23, and run on a CPU)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from loadgen.engines.base import Engine
from loadgen.engines.serving import SETTINGS, Block, NativeSetting, Outcome, Value
from loadgen.message import say

# Read from sglang/srt/arg_groups/fields/ of 0.5.23; (flag, its default in words).
FLAGS = {
    "dtype": ("--dtype", say("auto, the model's own")),
    "tensor_parallel_size": ("--tp-size", "1"),
    "data_parallel_size": ("--dp-size", "1"),
    "max_model_length": ("--context-length", say("the model's own length")),
    "max_batch_size": ("--max-running-requests", say("what the KV cache holds")),
    "max_tokens_per_step": ("--chunked-prefill-size", say("by GPU: 2048 to 16384")),
    "kv_block_size": ("--page-size", "1"),
    "kv_dtype": ("--kv-cache-dtype", say("auto, the model's own")),
    "gpu_memory_fraction": ("--mem-fraction-static", say("by GPU: about 0.85 of it")),
    "kv_cache_tokens": ("--max-total-tokens", say("what the memory fraction leaves")),
    "prefix_caching": ("--disable-radix-cache", say("on")),
    "chunked_prefill": ("--chunked-prefill-size", say("on")),
    "cuda_graphs": ("--disable-decode-cuda-graph", say("on")),
    "async_scheduling": ("--disable-overlap-schedule", say("on, where the set-up allows it")),
    "seed": ("--random-seed", say("a random one")),
}
OFF: dict[str, Value] = {
    "prefix_caching": True,
    "chunked_prefill": -1,
    "cuda_graphs": True,
    "async_scheduling": True,
}
"""What the flags of what is on by default are given to switch it off."""
WHOLE_PROMPTS = "--max-prefill-tokens"
PREFILL_GRAPHS = "--disable-prefill-cuda-graph"
"""Goes with the flag of the decode steps' graphs."""


class SGLang(Engine):
    """SGLang. It serves `/metrics` only where it was started with `--enable-metrics`."""

    kind = "sglang"
    default_api = "completions"
    accepts_token_ids = True
    version_path = "/server_info"
    tokenize_path = "/tokenize"
    metrics_path = "/metrics"
    cache_reset_path = "/flush_cache"

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """Fix the length from both sides and go on past an end-of-sequence token."""
        return {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True}

    def tokenize_body(self, model: str, text: str) -> dict[str, Any]:
        """The same form as vLLM's."""
        return {"model": model, "prompt": text, "add_special_tokens": True}

    def is_named_by(self, model: dict[str, Any]) -> bool:
        """The model list says `owned_by: sglang`."""
        return model.get("owned_by") == "sglang"


def translate(block: Block) -> list[NativeSetting]:
    """Return all settings as SGLang takes them."""
    return [_native(setting, block) for setting in SETTINGS]


def _native(setting: str, block: Block) -> NativeSetting:
    flag, words = FLAGS[setting]
    asked = block.get(setting)
    if asked is None:
        return NativeSetting(setting, None, flag, None, "default", say("SGLang's default: {value}", value=words))
    value: Value | None = asked
    outcome: Outcome = "honoured"
    note: str = ""
    if setting in OFF:
        value, note = (None, say("SGLang's default")) if asked else (OFF[setting], "")
    elif setting == "max_tokens_per_step":
        flag = WHOLE_PROMPTS if block.get("chunked_prefill") is False else flag
        outcome, note = "differs", say("prompt tokens only: a step of SGLang's holds prompts or answers, not both")
    elif setting == "gpu_memory_fraction":
        outcome, note = "differs", say("weights and KV cache only: what a step computes with comes on top")
    return NativeSetting(setting, asked, flag, value, outcome, note)


def api_server(
    model: str, served_name: str | None, host: str, port: int, settings: Sequence[NativeSetting]
) -> list[str]:
    """The command line of SGLang's server, for the Python that runs this; it tells its figures at `/metrics`."""
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", model]
    command += ["--served-model-name", served_name] if served_name else []
    return [*command, "--host", host, "--port", str(port), "--enable-metrics", *arguments(settings)]


def arguments(settings: Sequence[NativeSetting]) -> list[str]:
    """The settings as a part of SGLang's command line."""
    found = []
    for setting in settings:
        for flag, value in setting.told().items():
            found += [flag] if value is True else [flag, str(value)]
            found += [PREFILL_GRAPHS] if setting.setting == "cuda_graphs" else []
    return found
