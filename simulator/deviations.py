"""What an answer says and how long it is, where the configuration has it stray from the plain counting of words."""

from __future__ import annotations

import random
from typing import Any

from simulator.config import Answers
from simulator.errors import BadRequestError
from simulator.tokenizer import WORD_BYTES, WORDS

KNOWN_FIELDS = frozenset(
    {"model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens", "min_tokens"}
    | {"ignore_eos", "temperature", "top_p", "seed", "stop", "logprobs", "top_logprobs", "n", "echo", "user"}
    | {"prompt_logprobs", "add_generation_prompt", "continue_final_message"}
)
SURE = 0.5
"""With less probability mass than this (`top_p`) only the likeliest token is left."""


def check_fields(cfg: Answers, body: dict[str, Any]) -> None:
    """Raise BadRequestError for a field that is not known, if such are refused."""
    if cfg.known_fields_only and (unknown := sorted(set(body) - KNOWN_FIELDS)):
        raise BadRequestError(f"Extra inputs are not permitted: {', '.join(unknown)}")


def words_skipped(cfg: Answers, body: dict[str, Any]) -> int:
    """Return by how many words the text is moved on: by other weights, or by sampling at a temperature."""
    hot = cfg.sampling and (body.get("temperature") or 0) > 0 and (body.get("top_p") or 1) >= SURE
    if not hot:
        return cfg.first_word
    # A seed fixes the text; without one every request is sampled anew.
    return cfg.first_word + random.Random(body.get("seed")).randrange(1, len(WORDS))


def tokens_before_stop(cfg: Answers, body: dict[str, Any], first_word: int, output: int) -> int:
    """Return the length of an answer that begins with word `first_word`, ended before its stop string, at least 1."""
    stop = body.get("stop")
    if not cfg.sampling or not isinstance(stop, str) or not stop:
        return output
    text = b"".join(WORDS[(first_word + i) % len(WORDS)] for i in range(output)).decode()
    found = text.find(stop)
    return output if found < 0 else max(1, found // WORD_BYTES)
