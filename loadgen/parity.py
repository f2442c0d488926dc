"""Compares the engines before they race: the same tokens in, and the same text out for a start.

Speed means nothing where the engines do not do the same work.
"""

from __future__ import annotations

import dataclasses

from loadgen.endpoint import Client, Endpoint
from loadgen.errors import UserError
from loadgen.manifest import ParityFact
from loadgen.prompts import PromptRecipe

TEXTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "One, two, three, four,",
    "def add(a, b):",
    "Water boils at a temperature of",
)
GREEDY_TOKENS = 16


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSample:
    """What one engine answers to the same few questions."""

    engine: str
    model: str
    context_length: int | None
    prompt_tokens: list[int | None]
    """Prompt tokens of each of `TEXTS`, as the engine counts them."""
    completions: list[str | None]
    """Greedy text of `GREEDY_TOKENS` tokens after each of `TEXTS`."""
    recipe: PromptRecipe


def sample_engine(endpoint: Endpoint, recipe: PromptRecipe) -> EngineSample:
    """Ask an engine the questions; what it does not answer is None."""
    client = Client(endpoint.base_url, endpoint.api_key)
    counts: list[int | None] = []
    completions: list[str | None] = []
    for text in TEXTS:
        fields = {**endpoint.engine.request_fields(endpoint.model, GREEDY_TOKENS), "stream": False}
        fields.pop("stream_options", None)
        prompt = {"messages": [{"role": "user", "content": text}]} if endpoint.api == "chat" else {"prompt": text}
        completion = count = None
        try:
            reply = client.call("POST", endpoint.engine.paths[endpoint.api], {**fields, **prompt})
            choice = reply["choices"][0]
            completion = str(choice["message"]["content"] if endpoint.api == "chat" else choice["text"])
            count = int(reply["usage"]["prompt_tokens"])
        except (UserError, KeyError, IndexError, TypeError, ValueError):
            pass  # not answered: the comparison says so
        completions.append(completion)
        counts.append(count)
    return EngineSample(endpoint.name, endpoint.model, endpoint.context_length, counts, completions, recipe)


def common_words(one: str, other: str) -> int:
    """How many leading words two texts share."""
    count = 0
    for a, b in zip(one.split(), other.split(), strict=False):
        if a != b:
            break
        count += 1
    return count


def compare(a: EngineSample, b: EngineSample) -> list[ParityFact]:
    """Name what is equal between two engines and what is not."""

    def fact(check: str, equal: bool, detail: str, of_a: object, of_b: object) -> ParityFact:
        return ParityFact(check=check, equal=equal, detail=detail, values={a.engine: str(of_a), b.engine: str(of_b)})

    facts = [
        fact("model name", a.model == b.model, "the name that each engine serves", a.model, b.model),
        fact(
            "context length",
            a.context_length == b.context_length,
            "served context in tokens, as the engine says it",
            a.context_length or "not told",
            b.context_length or "not told",
        ),
        fact(
            "prompt tokens",
            a.prompt_tokens == b.prompt_tokens and None not in a.prompt_tokens,
            f"tokens of {len(TEXTS)} texts; a difference is a BOS, a chat template or another tokenizer",
            a.prompt_tokens,
            b.prompt_tokens,
        ),
        fact(
            "measured prompts",
            a.recipe.pieces == b.recipe.pieces and a.recipe.head_ids == b.recipe.head_ids,
            "whether both engines get the very same prompts in the race",
            f"{a.recipe.mode}, {len(a.recipe.pieces)} pieces, {a.recipe.overhead} of overhead",
            f"{b.recipe.mode}, {len(b.recipe.pieces)} pieces, {b.recipe.overhead} of overhead",
        ),
    ]
    pairs = [(x, y) for x, y in zip(a.completions, b.completions, strict=True) if x is not None and y is not None]
    shared = [common_words(x, y) for x, y in pairs]
    same = sum(x == y for x, y in pairs)
    start = sum(n > 0 for n in shared)
    facts.append(
        fact(
            "greedy text",
            bool(pairs) and same == len(TEXTS),
            f"{same} of {len(TEXTS)} greedy continuations of {GREEDY_TOKENS} tokens are the same, {start} start "
            f"with the same word; leading words in common: {shared}. "
            "Other weights, quantisation or arithmetic make texts part.",
            a.completions[0],
            b.completions[0],
        )
    )
    return facts
