"""All that one engine said, as plain data."""

from __future__ import annotations

import dataclasses

from loadgen.endpoints.answers import Answer, Token
from loadgen.engines import Api
from loadgen.quality.result import Weights

Answers = dict[int, Answer]
"""By the place of the question in `Asked`; what was not answered is not there."""


@dataclasses.dataclass(slots=True)
class EngineAnswers:
    """Filled while it is asked, so that what there is can be judged when that is broken off."""

    engine: str
    model: str
    api: Api
    weights: Weights
    first: Answers = dataclasses.field(default_factory=dict)
    """One request at a time."""
    again: Answers = dataclasses.field(default_factory=dict)
    """The prompts once more, one at a time."""
    loaded: Answers = dataclasses.field(default_factory=dict)
    """Many at once."""
    scored: dict[str, dict[int, tuple[Token, ...]]] = dataclasses.field(default_factory=dict)
    """By the engine that wrote it: prompt and answer as this engine rates their tokens."""
    logprobs: bool = False
    """Whether it gives log probabilities."""
    refusals: dict[str, int] = dataclasses.field(default_factory=dict)
    """What it refused with, and how often."""
    missing: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
