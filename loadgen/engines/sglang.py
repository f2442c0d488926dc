"""SGLang's OpenAI-compatible server (read from the wheel of 0.5.23, and run on a CPU)."""

from __future__ import annotations

from typing import Any

from loadgen.engines.base import Engine


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
