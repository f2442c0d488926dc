"""What an engine says that reads its prompt: a toy language model, which does sums, copies, looks up and writes JSON.

The model is a function of the prompt and the token before, so that the same text is rated the same wherever it comes
from. What it solves is written in pieces of `WORD_BYTES` characters, for every token of a stream is of one width.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

from simulator.config import Answers
from simulator.errors import BadRequestError
from simulator.tokenizer import WORD_BYTES, WORDS

CANDIDATES = 8
REST = 0.02
"""Share of all tokens that are no candidates."""
UNLIKELY = math.log(REST / len(WORDS))
LEAD_NATS = 2.0
"""Mean lead of the likeliest candidate over the next."""
SUM = re.compile(r"What is (\d+) ([+*-]) (\d+)\?\s*Answer:$")
COPY = re.compile(r'Text: "([^"\n]*)"\s*Copy:$')
CODE = re.compile(r"Answer: The code of (.+) is$")
FACTS = re.compile(r"Facts: (\w+) is (\d+) years old and lives in (\w+)\.\s*JSON:$")
OWN_WORDS = re.compile(r"((?:\s*\bw\d{3}\b)*)\s*$")


@dataclass(slots=True)
class Saying:
    """An answer's tokens."""

    tokens: list[bytes]
    ends: bool
    """Whether it ends by itself."""
    logprobs: list[dict[str, float]] = field(default_factory=list)
    """By token: itself first, then the likeliest ones with it among them."""


def solve(prompt: str, *, wrong_sums: bool = False) -> str | None:
    """The answer to what can be solved; None for all else."""
    prompt = prompt.strip()
    if found := SUM.search(prompt):
        a, b = int(found[1]), int(found[3])
        result = a + b if found[2] == "+" else a - b if found[2] == "-" else a * b
        return f" {result + wrong_sums}\n"
    if found := COPY.search(prompt):
        return f" {found[1]}\n"
    if found := FACTS.search(prompt):
        return f" {json.dumps({'name': found[1], 'age': int(found[2]), 'city': found[3]})}\n"
    if found := CODE.search(prompt):
        told = re.search(rf"the code of {re.escape(found[1])} is (\d+)", prompt[: found.start()])
        return f" {told[1]}.\n" if told else None
    return None


def answer(cfg: Answers, body: dict[str, Any], prompt: str, output: int, *, others: int, rng: random.Random) -> Saying:
    """What is said to a prompt in at most `output` tokens, while `others` streams are open.

    Raises BadRequestError where log probabilities are asked for that the configuration does not give.
    """
    solved = solve(prompt, wrong_sums=cfg.wrong_sums)
    saying = _pieces(solved, output) if solved is not None else _words(cfg, prompt, output)
    if cfg.swap_every is not None and others >= cfg.swap_over:
        for place in range(len(saying.tokens)):
            if rng.random() < 1 / cfg.swap_every:
                saying.tokens[place] = rng.choice(WORDS)
                text = saying.tokens[place].decode()
                saying.logprobs[place] = {text: UNLIKELY} | saying.logprobs[place] | {text: UNLIKELY}
    if body.get("logprobs") not in (None, False) and not cfg.logprobs:
        raise BadRequestError("logprobs are not supported")
    return saying


def rated_prompt(cfg: Answers, prompt: str, continuation: str | None, count: int) -> list[dict[str, Any] | None]:
    """`prompt_logprobs` of a prompt of `count` tokens that ends with an answer of this model.

    Args:
        cfg: how the model rates.
        prompt: all of it, or what a chat's user said.
        continuation: what a chat's assistant said; None: the words of this model at the end of `prompt`.
        count: tokens of both together.
    """
    if continuation is None:
        found = OWN_WORDS.search(prompt)
        continuation = found[1] if found else ""
        prompt = prompt[: len(prompt) - len(continuation)] if continuation else prompt
    said = [f" {word}" for word in continuation.split()]
    rated: list[dict[str, Any] | None] = [None]
    rated += [_told({"": -9.0}) for _ in range(count - 1 - len(said))]
    before = ""
    for text in said:
        likely = _likely(cfg, prompt, before)
        value = likely.get(text, UNLIKELY)
        rated.append(_told({text: value, **likely}))
        before = text
    return rated[:count]


def logprobs_field(saying: Saying, body: dict[str, Any], *, chat: bool) -> dict[str, Any] | None:
    """The `logprobs` of a choice, as vLLM tells them; None where they are not asked for."""
    asked = body.get("logprobs")
    if asked in (None, False):
        return None
    most = body.get("top_logprobs") or 0 if chat else int(asked)
    texts = [token.decode() for token in saying.tokens]
    own = [rated[text] for text, rated in zip(texts, saying.logprobs, strict=True)]
    tops = [dict(sorted(rated.items(), key=lambda pair: -pair[1])[:most]) for rated in saying.logprobs]
    if not chat:
        return {"text_offset": [], "token_logprobs": own, "tokens": texts, "top_logprobs": tops}
    listed = [[{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in top.items()] for top in tops]
    return {
        "content": [
            {"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": top}
            for text, value, top in zip(texts, own, listed, strict=True)
        ]
    }


def _pieces(text: str, output: int) -> Saying:
    width = -(-len(text) // WORD_BYTES) * WORD_BYTES
    data = text.ljust(width).encode()
    pieces = [data[at : at + WORD_BYTES] for at in range(0, width, WORD_BYTES)]
    rated = [{piece.decode(): -0.01, " w000": -5.0, " w001": -6.0} for piece in pieces]
    return Saying(pieces[:output], len(pieces) <= output, rated[:output])


def _words(cfg: Answers, prompt: str, output: int) -> Saying:
    saying, before = Saying([], False), ""
    for _ in range(output):
        likely = _likely(cfg, prompt, before)
        before = next(iter(likely))
        saying.tokens.append(before.encode())
        saying.logprobs.append(likely)
    return saying


def _likely(cfg: Answers, prompt: str, before: str) -> dict[str, float]:
    """The candidates for the next token and their log probabilities, likeliest first."""
    place = zlib.crc32(f"{prompt.strip()}\0{before}\0{cfg.first_word}".encode())
    return _rated(place, cfg.rounding_nats, cfg.rounding_seed)


@functools.lru_cache(maxsize=65_536)
def _rated(place: int, rounding_nats: float, rounding_seed: int) -> dict[str, float]:
    rng = random.Random(place)
    words = [word.decode() for word in rng.sample(WORDS, CANDIDATES)]
    steps = [0.0, rng.expovariate(1 / LEAD_NATS), *(rng.expovariate(1.0) for _ in words[2:])]
    scores = [-behind for behind in itertools.accumulate(steps)]
    if rounding_nats:
        noise = random.Random(f"{place}/{rounding_seed}")
        scores = [each + noise.gauss(0, rounding_nats) for each in scores]
    total = math.log(sum(map(math.exp, scores))) - math.log(1 - REST)
    found = {word: each - total for word, each in zip(words, scores, strict=True)}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _told(rated: dict[str, float]) -> dict[str, Any]:
    return {
        str(100 + place): {"logprob": value, "rank": place + 1, "decoded_token": text}
        for place, (text, value) in enumerate(rated.items())
    }
