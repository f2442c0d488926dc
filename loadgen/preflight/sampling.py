"""Asks one engine all of preflight's questions. About 80 short requests, one at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from loadgen.endpoints.answers import Answer, Refused, StreamAnswer
from loadgen.endpoints.asker import Asker, Prompt
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.engines import Api
from loadgen.preflight.parameters import ask_parameters
from loadgen.preflight.prefix_cache import probe_prefix_cache
from loadgen.preflight.questions import (
    COUNTED_TEXTS,
    GREEDY_TEXTS,
    GREEDY_TOKENS,
    LENGTH_PROMPT_TOKENS,
    LENGTHS,
    OPEN_TEXT,
    UNKNOWN_FIELD,
)
from loadgen.preflight.sample import EngineSample

Tell = Callable[[str], None]


def sample_engine(endpoint: Endpoint, recipe: PromptRecipe, *, text_api: Api, nonce: str, tell: Tell) -> EngineSample:
    """Ask an engine everything. What it does not answer is None; nothing is raised for that.

    Args:
        endpoint: where this process reaches it.
        recipe: how exact prompts are made for it.
        text_api: API for questions whose texts are compared, which must be asked alike of all engines.
        nonce: makes the prompts of this preflight unlike those of any other, which a cache may still hold. The same
            for all engines.
        tell: is told what is being asked.
    """
    closing = contextlib.closing
    with closing(Asker(endpoint, text_api)) as texts, closing(Asker(endpoint)) as traffic:
        session = _Session(endpoint, recipe, texts, traffic, nonce)
        tell("1 of 5, counting tokens")
        counts = session.count_texts()
        tell("2 of 5, greedy texts")
        greedy = session.greedy_texts()
        tell("3 of 5, output lengths")
        lengths = session.lengths()
        tell("4 of 5, sampling parameters")
        parameters = ask_parameters(session.answer_plainly)
        unknown = session.unknown_field()
        tell("5 of 5, prefix caching")
        prefix = session.problem_of(
            lambda: probe_prefix_cache(session.one_token, recipe, nonce, endpoint.context_length)
        )
    return EngineSample(
        engine=endpoint.name,
        model=endpoint.model,
        context_length=endpoint.context_length,
        recipe=recipe,
        text_api=text_api,
        prompt_tokens=counts,
        greedy=greedy,
        lengths=lengths,
        parameters=parameters,
        unknown_fields=unknown,
        prefix=prefix,
        problem=session.problem,
        kind=endpoint.kind,
        kv_cache_tokens=kv_cache_tokens(endpoint),
    )


def kv_cache_tokens(endpoint: Endpoint) -> int | None:
    """What an engine's KV cache holds; None where it does not say."""
    path = endpoint.engine.kv_cache_path
    text = endpoint.client().try_text(path) if path else None
    return endpoint.engine.kv_cache_tokens(text) if text else None


class _Session:
    """The questions to one engine, and the first of its refusals."""

    def __init__(self, endpoint: Endpoint, recipe: PromptRecipe, texts: Asker, traffic: Asker, nonce: str) -> None:
        self.problem: str | None = None
        self._engine = endpoint.engine
        self._recipe = recipe
        self._texts = texts
        self._traffic = traffic
        self._nonce = nonce

    def problem_of(self, ask: Callable[[], Any]) -> Any:
        """What `ask` returns; None if the engine refuses, which is noted."""
        try:
            return ask()
        except Refused as refused:
            self.problem = self.problem or str(refused)
            return None

    def count_texts(self) -> dict[str, int | None]:
        """Prompt tokens of each of `COUNTED_TEXTS`."""
        answers = {kind: self._forced(self._texts, text, 1) for kind, text in COUNTED_TEXTS.items()}
        return {kind: None if answer is None else answer.prompt_tokens for kind, answer in answers.items()}

    def greedy_texts(self) -> tuple[Answer | None, ...]:
        """Continuations of `GREEDY_TEXTS`, with log probabilities unless the engine refuses to give them."""
        more = {"logprobs": True} if self._texts.api == "chat" else {"logprobs": 1}
        try:
            self._texts.ask(GREEDY_TEXTS[0], {**self._fields(GREEDY_TOKENS), **more})
        except Refused:
            more = {}
        return tuple(self._forced(self._texts, text, GREEDY_TOKENS, **more) for text in GREEDY_TEXTS)

    def lengths(self) -> dict[int, StreamAnswer | None]:
        """Streams of each of `LENGTHS`, asked as the race's requests are."""
        factory = PromptFactory(
            self._recipe, prompt_tokens=LENGTH_PROMPT_TOKENS + self._recipe.overhead, seed=f"{self._nonce}/lengths"
        )
        found: dict[int, StreamAnswer | None] = {}
        for number, tokens in enumerate(LENGTHS):
            prompt = json.loads(factory.prompt(number))
            found[tokens] = self.problem_of(partial(self._traffic.stream, prompt, self._fields(tokens)))
        return found

    def answer_plainly(self, tokens: int, **fields: Any) -> Answer:
        """A continuation of `OPEN_TEXT` by up to `tokens` tokens, greedy unless `fields` say otherwise."""
        greedy = self._engine.sampling_fields()
        return self._texts.ask(OPEN_TEXT, {**greedy, "max_tokens": tokens, **fields})

    def unknown_field(self) -> str:
        """Whether a field that no server knows is accepted."""
        try:
            self.answer_plainly(1, **{UNKNOWN_FIELD: 1})
        except Refused as refused:
            return "refused" if refused.by_status else "cannot tell"
        return "accepted"

    def one_token(self, prompt: Prompt) -> Answer:
        """An answer of one token, asked by the race's API. Raises Refused."""
        return self._traffic.ask(prompt, self._fields(1))

    def _forced(self, asker: Asker, text: str, tokens: int, **more: Any) -> Answer | None:
        """A greedy answer of exactly so many tokens, where the engine can be told."""
        answer: Answer | None = self.problem_of(lambda: asker.ask(text, {**self._fields(tokens), **more}))
        return answer

    def _fields(self, tokens: int) -> dict[str, Any]:
        return {**self._engine.sampling_fields(), **self._engine.length_fields(tokens)}
