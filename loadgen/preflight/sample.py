"""What an engine answered, as plain data: all that the comparison knows of it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from loadgen.endpoints.answers import Answer, StreamAnswer
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.engines import Api
from loadgen.message import mark

Honoured = Literal["honoured", "ignored", "refused", "cannot tell"]
ANSWERS = (
    mark("honoured"),
    mark("ignored"),
    mark("refused"),
    mark("accepted"),
    mark("event of its own"),
    mark("finish event"),
    mark("last content event"),
    mark("every event"),
    mark("nowhere"),
)
"""What of these is shown to people."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrefixProbe:
    """Times of answers of one token, in ms: to short prompts, to long ones, and to the same long ones sent again."""

    prompt_tokens: int
    """Length of the long prompts."""
    short_ms: tuple[float, ...]
    fresh_ms: tuple[float, ...]
    again_ms: tuple[float, ...]
    cached_tokens: tuple[int | None, ...]
    """What the server told of each prompt that was sent again."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSample:
    """All that one engine answered. None in a list: that question was not answered."""

    engine: str
    model: str
    context_length: int | None
    recipe: PromptRecipe
    text_api: Api
    """API by which texts were asked for: the same for all engines where they share one."""
    prompt_tokens: dict[str, int | None]
    """By the kind of text (`COUNTED_TEXTS`)."""
    greedy: tuple[Answer | None, ...]
    """For each of `GREEDY_TEXTS`."""
    lengths: dict[int, StreamAnswer | None]
    """By the output length asked for."""
    parameters: dict[str, Honoured]
    """By sampling parameter: temperature, seed, top-p, stop, max-tokens."""
    unknown_fields: str
    """`accepted`, `refused`, or `cannot tell`."""
    prefix: PrefixProbe | None
    problem: str | None = None
    """The first refusal or failure, in the engine's words."""
    kind: str = ""
    kv_cache_tokens: int | None = None
    """What its KV cache holds, as it says."""
