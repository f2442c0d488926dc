"""Made-up samples: an engine that answers everything, and whatever differs."""

from __future__ import annotations

import dataclasses
from typing import Any

from loadgen.endpoints.answers import Answer, StreamAnswer, Token
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.preflight.questions import COUNTED_TEXTS, GREEDY_TEXTS, LENGTHS
from loadgen.preflight.sample import EngineSample, PrefixProbe


def answer(text: str, logprob: float | None = None) -> Answer:
    """An answer of words; with a log probability, told token by token."""
    words = [f" {word}" for word in text.split()]
    return Answer(text, tokens=tuple(Token(word, logprob) for word in words) if logprob is not None else ())


def stream(tokens: int, **fields: Any) -> StreamAnswer:
    made = StreamAnswer(
        " x" * tokens, tokens, tokens, "event of its own", None, tuple(float(10 * i) for i in range(tokens))
    )
    return dataclasses.replace(made, **fields)


def probe(again_ms: float, *, cached: int | None = None) -> PrefixProbe:
    """A long prompt takes 100 ms, a short one 20."""
    return PrefixProbe(256, (20.0,) * 5, (100.0,) * 5, (again_ms,) * 5, (cached,) * 5)


OFF, ON = probe(99.0), probe(21.0)
SAMPLE = EngineSample(
    engine="a",
    model="m",
    context_length=4096,
    recipe=PromptRecipe("text", 1, ("x", "y"), (), "tokenizer"),
    text_api="completions",
    prompt_tokens={kind: len(text) for kind, text in COUNTED_TEXTS.items()},
    greedy=tuple(answer(f"text {number} goes on and on", -0.5) for number in range(len(GREEDY_TEXTS))),
    lengths={tokens: stream(tokens) for tokens in LENGTHS},
    parameters=dict.fromkeys(("temperature", "seed", "top-p", "stop", "max-tokens"), "honoured"),
    unknown_fields="accepted",
    prefix=OFF,
    kv_cache_tokens=65536,
)


def other(**fields: Any) -> EngineSample:
    """Engine b: the same as a but for these fields."""
    return dataclasses.replace(SAMPLE, engine="b", **fields)
