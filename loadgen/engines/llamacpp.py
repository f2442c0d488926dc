"""llama.cpp's server (read from build 11549)."""

from __future__ import annotations

from typing import Any

from loadgen.engines.base import Engine


class LlamaCpp(Engine):
    """llama.cpp."""

    kind = "llamacpp"
    default_api = "completions"
    accepts_token_ids = True
    version_path = "/props"
    tokenize_path = "/tokenize"
    metrics_path = "/metrics"
    exact_output = True

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

    def is_named_by(self, model: dict[str, Any]) -> bool:
        """The model list says `owned_by: llamacpp`."""
        return model.get("owned_by") == "llamacpp"
