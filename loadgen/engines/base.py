"""What the load generator must know of an engine. A new engine subclasses `Engine` and overrides what differs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Api = Literal["chat", "completions", "responses"]


class Engine:
    """How an engine is asked, probed and read. Stateless; the defaults are plain OpenAI."""

    kind: ClassVar[str]
    default_api: ClassVar[Api] = "chat"
    apis: ClassVar[tuple[Api, ...]] = ("chat", "completions")
    accepts_token_ids: ClassVar[bool] = False
    """Whether `/v1/completions` takes a prompt as a list of token ids."""
    paths: ClassVar[dict[Api, str]] = {
        "chat": "/v1/chat/completions",
        "completions": "/v1/completions",
        "responses": "/v1/responses",
    }
    models_path: ClassVar[str] = "/v1/models"
    health_path: ClassVar[str] = "/health"
    version_path: ClassVar[str | None] = None
    tokenize_path: ClassVar[str | None] = None
    metrics_path: ClassVar[str | None] = None
    kv_cache_path: ClassVar[str | None] = None
    """Route that tells how much the KV cache holds."""
    cache_reset_path: ClassVar[str | None] = None
    """Route that empties its prefix cache when POST is sent to it."""
    cache_reset_variable: ClassVar[str | None] = None
    """The variable of its environment without which that route is not there."""
    checks_model_name: ClassVar[bool] = True
    """Whether a model name that is not listed is refused."""
    prompt_logprobs: ClassVar[bool] = False
    """Whether it tells the log probabilities of a prompt's own tokens."""

    def length_fields(self, output_tokens: int) -> dict[str, Any]:
        """Fields that fix the output length in tokens."""
        return {"max_tokens": output_tokens}

    def sampling_fields(self) -> dict[str, Any]:
        """Fields that ask for greedy decoding and leave prompt caches to the engine's own configuration."""
        return {"temperature": 0}

    def request_fields(self, model: str, output_tokens: int) -> dict[str, Any]:
        """All fields of a streaming request except the prompt."""
        return {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.sampling_fields(),
            **self.length_fields(output_tokens),
        }

    def tokenize_body(self, model: str, text: str) -> dict[str, Any]:
        """Body of a request to `tokenize_path` that counts special tokens as a completion would."""
        raise NotImplementedError(f"{self.kind} has no tokenize route")

    def token_ids(self, reply: dict[str, Any]) -> list[int]:
        """Token ids in the answer of `tokenize_path`. Raises KeyError or TypeError when it is of another form."""
        return [int(token) for token in reply["tokens"]]

    def kv_cache_tokens(self, text: str) -> int | None:
        """Tokens that the KV cache holds, from the answer of `kv_cache_path`; None where it does not say."""
        return None

    def weights(self, model: dict[str, Any]) -> tuple[str, float] | None:
        """How weights are stored and in how many bits each, from one entry of the model list; None: it does not say."""
        return None

    def version(self, reply: dict[str, Any]) -> str | None:
        """Version in the answer of `version_path`."""
        value = reply.get("version")
        return None if value is None else str(value)

    def context_length(self, model: dict[str, Any]) -> int | None:
        """Served context length in tokens from one entry of the model list, where the engine says it."""
        value = model.get("max_model_len")
        return value if isinstance(value, int) else None

    def is_named_by(self, model: dict[str, Any]) -> bool:
        """Whether one entry of the model list tells that this engine made it."""
        return False
