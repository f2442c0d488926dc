"""Tencent KsanaLLM's server (read from commit c451219 and a capture of it)."""

from __future__ import annotations

from typing import Any

from loadgen.engines.base import Engine


class KsanaLLM(Engine):
    """KsanaLLM: only chat works, the models are under `/models`, and metrics are pushed, not served."""

    kind = "ksana"
    default_api = "chat"
    apis = ("chat",)
    models_path = "/models"
    checks_model_name = False
    exact_output = True

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """`ignore_eos` and `min_tokens` are honoured at that commit."""
        return {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True}

    def sampling_fields(self) -> dict[str, Any]:
        """None: greedy is its default, and sampling would have to be asked for with `do_sample`."""
        return {}
