"""The `serving:` block of a scenario: how the engines are to be set up, declared once for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_serializer, model_validator

from loadgen.engines.serving import RESET, SETTINGS, Value
from loadgen.scenario.together import alone_name
from loadgen.validation import Name, Strict, wrong_value

Positive = Annotated[int, Field(ge=1)]


class Serving(Strict):
    """Every setting is optional: one that is absent is left to the engine's own default.

    What an engine makes of it is in `loadgen/engines/`, and on the report's fairness page.
    """

    dtype: Literal["auto", "bfloat16", "float16"] | None = Field(
        default=None, description="type of weights and activations; auto: the model's own"
    )
    tensor_parallel_size: Positive | None = Field(default=None, description="GPUs that share each layer")
    data_parallel_size: Positive | None = Field(
        default=None, description="whole copies of the model behind one address, each on GPUs of its own"
    )
    max_model_length: Positive | None = Field(default=None, description="longest prompt plus output, in tokens")
    max_batch_size: Positive | None = Field(default=None, description="most sequences in one step")
    max_tokens_per_step: Positive | None = Field(
        default=None, description="most tokens, of prompts and of outputs, computed in one step"
    )
    kv_block_size: Positive | None = Field(default=None, description="tokens in one block of the KV cache")
    kv_dtype: Literal["auto", "bfloat16", "float16", "fp8_e4m3", "fp8_e5m2"] | None = Field(
        default=None, description="type of the KV cache; auto: that of the model"
    )
    gpu_memory_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of each GPU's memory that the engine may take"
    )
    kv_cache_tokens: Positive | None = Field(
        default=None,
        description="tokens that the KV cache holds; the one size of memory that is the same for all engines",
    )
    prefix_caching: bool | None = Field(default=None, description="whether a prompt may profit from an earlier one")
    chunked_prefill: bool | None = Field(default=None, description="whether a prompt may be cut over several steps")
    cuda_graphs: bool | None = Field(default=None, description="whether steps may be replayed as CUDA graphs")
    async_scheduling: bool | None = Field(
        default=None, description="whether a step is planned while the one before is computed"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = Field(default=None, description="of sampling")

    @model_validator(mode="after")
    def _check(self) -> Self:
        step, length, batch = self.max_tokens_per_step, self.max_model_length, self.max_batch_size
        if step is not None and batch is not None and step < batch:
            raise ValueError(f"`max_tokens_per_step` must be at least `max_batch_size` ({batch}): a token a sequence")
        if self.chunked_prefill is False and step is not None and length is not None and step < length:
            raise ValueError(
                f"`max_tokens_per_step` must be at least `max_model_length` ({length}) without chunked prefill: "
                "a whole prompt is one step then"
            )
        if self.kv_cache_tokens is not None and self.kv_cache_tokens < max(length or 1, self.kv_block_size or 1):
            raise ValueError(
                f"`kv_cache_tokens` must be at least `max_model_length` ({length}) and one block: "
                "the cache has to hold the longest sequence"
            )
        return self

    def asked(self) -> dict[str, Value]:
        """The settings that were given, in order."""
        return self.model_dump(exclude_none=True)


class Variant(Strict):
    """An engine of the stack with settings of its own: a seat of its own in a race."""

    engine: Name = Field(description="a seat of the stack, or the kind of its only engine of that kind")
    serving: Serving = Field(
        default=Serving(), description="over the scenario's `serving:`, key by key; null: the engine's own default"
    )

    @field_serializer("serving")
    def _as_given(self, serving: Serving) -> dict[str, Value | None]:
        """What was given only: a key that was not takes the common block's value."""
        return serving.model_dump(exclude_unset=True)

    def over(self, common: Serving | None) -> Serving:
        """The whole block. Raises ValueError where the two do not go together."""
        asked = common.asked() if common is not None else {}
        try:
            return Serving.model_validate({**asked, **self.serving.model_dump(exclude_unset=True)})
        except ValidationError as error:
            raise ValueError(f"with the common `serving:` block, {wrong_value(error.errors()[0])}") from None


def asked_of(scenario: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The serving settings that a run's scenario, as its manifest keeps it, asks of an engine; whatever it holds."""
    variants = _mapping(scenario.get("variants"))
    variant = _mapping(variants.get(engine, variants.get(alone_name(engine))))
    asked = {**_mapping(scenario.get("serving")), **_mapping(variant.get("serving"))}
    return {setting: value for setting, value in asked.items() if value is not None}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def settings_apart(asked: Iterable[Mapping[str, Any]]) -> list[str]:
    """The settings in which blocks differ, in the usual order."""
    blocks = list(asked)
    return [name for name in SETTINGS if any(block.get(name) != blocks[0].get(name) for block in blocks)]


def serving_json(serving: Serving | None, *, resets: bool = False) -> str:
    """A block as launchers read it (`BAKEOFF_SERVING_FILE`): JSON, empty where nothing is asked for.

    `resets` tells them that engines will be asked to empty their prefix caches.
    """
    asked = {**(serving.asked() if serving is not None else {}), **({RESET: True} if resets else {})}
    return json.dumps(asked) if asked else ""
