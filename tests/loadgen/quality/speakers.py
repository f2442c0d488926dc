"""Engines without sockets: what the simulator's toy model says, as the load generator would have heard it."""

from __future__ import annotations

import dataclasses
import random

from loadgen.endpoints.answers import Answer, Token
from loadgen.quality.asking import TOP, Asked
from loadgen.quality.phase import questions_of
from loadgen.quality.questions import Question
from loadgen.quality.result import Weights
from loadgen.quality.said import EngineAnswers
from loadgen.scenario.quality import Quality
from simulator.answers import answer
from simulator.config import Answers

PLAIN = Weights(words="BF16", quantised=False)
FEW = Quality(prompts=20, output_tokens=24, tasks=24, long_words=60)


def asked(seed: int = 1, quality: Quality = FEW) -> Asked:
    return questions_of(quality, seed)


def hear(question: Question, cfg: Answers, *, others: int = 0, seed: int = 0, top: bool = True) -> Answer:
    said = answer(cfg, {}, question.prompt, question.tokens, others=others, rng=random.Random(seed))
    tokens = []
    for raw, rated in zip(said.tokens, said.logprobs, strict=True):
        listed = tuple(sorted(rated.items(), key=lambda pair: -pair[1])[:TOP])
        tokens.append(Token(raw.decode(), rated[raw.decode()], listed if top else ()))
    text = b"".join(said.tokens).decode()
    return Answer(text, tokens=tuple(tokens) if cfg.logprobs else ())


def speak(name: str, what: Asked, *, under_load: dict[str, object] | None = None, **settings: object) -> EngineAnswers:
    """All answers of one engine; `under_load` are settings of the toy model that hold under load only."""
    cfg = Answers(text="prompted", **settings)
    loaded = cfg.model_copy(update=under_load or {})
    said = EngineAnswers(name, "toy", "completions", PLAIN, logprobs=cfg.logprobs)
    for place, question in enumerate(what.questions):
        # Each pass is seeded by itself: an engine that is not deterministic draws anew.
        said.first[place] = hear(question, cfg, seed=3 * place)
        if not question.rule:
            said.again[place] = hear(question, cfg, seed=3 * place + 1, top=False)
        said.loaded[place] = hear(question, loaded, others=15, seed=3 * place + 2, top=False)
    return said


def without(said: EngineAnswers, places: int) -> EngineAnswers:
    """The same with the first so many answers of the first pass only."""
    return dataclasses.replace(said, first={p: a for p, a in said.first.items() if p < places})
