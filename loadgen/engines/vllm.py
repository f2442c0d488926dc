"""vLLM's OpenAI-compatible server (read from vLLM 0.24 and 0.32)."""

from __future__ import annotations

from typing import Any

from loadgen.engines.base import Engine


class VLLM(Engine):
    """vLLM."""

    kind = "vllm"
    default_api = "completions"
    accepts_token_ids = True
    version_path = "/version"
    tokenize_path = "/tokenize"
    metrics_path = "/metrics"
    exact_output = True

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """Fix the length from both sides and go on past an end-of-sequence token."""
        return {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True}

    def tokenize_body(self, model: str, text: str) -> dict[str, Any]:
        """vLLM adds special tokens by default."""
        return {"model": model, "prompt": text, "add_special_tokens": True}

    def is_named_by(self, model: dict[str, Any]) -> bool:
        """The model list says `owned_by: vllm`."""
        return model.get("owned_by") == "vllm"
