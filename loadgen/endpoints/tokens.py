"""Finds out how an endpoint counts tokens, so that prompts come out at exactly the length asked for.

In this order: token ids, where the engine takes them and its own tokenizer is at hand; else words that are one token
each. Counts come from the model's tokenizer, the engine's tokenize route, or `usage.prompt_tokens` of a few probe
requests. Every measured request is checked against `usage` again: a wrong guess shows as an error, not as a number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from loadgen.endpoints.endpoint import Client, Endpoint
from loadgen.endpoints.prompts import MIN_PIECES, PromptRecipe
from loadgen.endpoints.settle import prompt_tokens, whole_answer
from loadgen.endpoints.tokenizer import ModelTokenizer
from loadgen.errors import UserError

WORDS_FILE = Path(__file__).with_name("words.txt")
PROBE_WORDS = 96
MAX_COUNTS = 64


@cache
def words() -> tuple[str, ...]:
    """Common English words, most of them one token in any large vocabulary."""
    listed = WORDS_FILE.read_text(encoding="ascii").split()
    # A fixed shuffle, so that a part of the list is no alphabetic corner of it.
    random.Random("words").shuffle(listed)
    return tuple(listed)


def make_recipe(endpoint: Endpoint) -> PromptRecipe:
    """Return the way to make exact prompts for this endpoint.

    Raises:
        UserError: the endpoint does not answer, or its counts cannot be understood.
    """
    client = endpoint.client()
    given = None if endpoint.tokenizer is None else ModelTokenizer(endpoint.tokenizer)
    named = () if given is None else (str(given.file), given.sha256)
    encode, source = _encoder(endpoint, client) if given is None else (given.encode, "the given tokenizer")
    if endpoint.api == "completions" and endpoint.engine.accepts_token_ids and encode is not None:
        head, body = _split_special(encode(""), encode(" " + " ".join(words())))
        ids = tuple(str(token) for token in dict.fromkeys(body))
        return PromptRecipe("ids", len(head), ids, tuple(head), source, *named)
    chosen: Sequence[str] = words()
    if encode is not None:
        plain = encode
        chosen = one_token_words(chosen, lambda text: len(plain(text)))
        if endpoint.tokenizer is not None:
            # The word that opens a prompt has no space before it, which is another token; here looking is cheap.
            special = len(plain(""))
            chosen = [word for word in chosen if len(plain(word)) == special + 1]
    else:
        chosen = one_token_words(chosen[:PROBE_WORDS], lambda text: _count_by_usage(endpoint, client, text))
        source = "usage of probe requests"
    if len(chosen) < MIN_PIECES:
        raise UserError(f"Only {len(chosen)} words of one token each were found by {source}; {MIN_PIECES} are needed.")
    count: Callable[[str], int] = lambda text: _count_by_usage(endpoint, client, text)  # noqa: E731
    if encode is not None and endpoint.api == "completions" and _usage_of(endpoint, client, "a") is None:
        # A completion's prompt is the text alone, so the tokenizer tells all. (Chat wraps it in a template.)
        plain, source = encode, f"{source}, not confirmed: the server reports no usage"
        count = lambda text: len(plain(text))  # noqa: E731
    sample = chosen[:MIN_PIECES]
    overhead = count(" ".join(sample)) - len(sample)
    longer = [*chosen, *chosen][: 4 * MIN_PIECES]
    check = count(" ".join(longer)) - len(longer)
    if check != overhead or overhead < 0:
        raise UserError(
            f"{endpoint.base_url} counts {overhead + len(sample)} prompt tokens for {len(sample)} words but "
            f"{check + len(longer)} for {len(longer)}: its token counts cannot be predicted. "
            + ("Is the tokenizer really this model's?" if encode else "Give the model's tokenizer with --tokenizer.")
        )
    return PromptRecipe("text", overhead, tuple(chosen), (), source, *named)


def one_token_words(candidates: Sequence[str], count: Callable[[str], int]) -> list[str]:
    """Return the candidates that cost exactly one token each when joined by spaces.

    Args:
        candidates: words to try.
        count: tokens of a text, with a constant overhead; it is called at most about `MAX_COUNTS` times.

    Raises:
        UserError: too few such words were found.
    """
    excess: dict[tuple[int, int], int] = {}

    def measure(start: int, stop: int) -> int:
        if (start, stop) not in excess:
            excess[start, stop] = count(" ".join(candidates[start:stop])) - (stop - start)
        return excess[start, stop]

    spans = [(0, len(candidates))]
    kept: list[tuple[int, int]] = []
    while spans:
        start, stop = spans.pop()
        middle = (start + stop) // 2
        left, right = measure(start, middle), measure(middle, stop)
        if left == right == measure(start, stop):
            kept.append((start, stop))
        elif stop - start >= 2 * MIN_PIECES // 4 and len(excess) < MAX_COUNTS:
            spans += [(start, middle), (middle, stop)]
    if kept:
        # A part in which every half has a surplus of its own looks consistent; the least overhead is the true one.
        least = min(excess[span] for span in kept)
        kept = [span for span in kept if excess[span] == least]
    found = [word for start, stop in sorted(kept) for word in candidates[start:stop]]
    if len(found) < MIN_PIECES:
        raise UserError(
            f"Only {len(found)} words of one token each were found for this model. Give its tokenizer with --tokenizer."
        )
    return found


def count_tokens(endpoint: Endpoint, text: str) -> int:
    """Prompt tokens of a text as the endpoint itself reports them in `usage`. Raises UserError when it does not."""
    return _count_by_usage(endpoint, endpoint.client(), text)


def _encoder(endpoint: Endpoint, client: Client) -> tuple[Callable[[str], list[int]] | None, str]:
    """The tokenizer that the engine lends, as a function, and its name; None when it lends none."""
    engine, path = endpoint.engine, endpoint.engine.tokenize_path
    if path is None:
        return None, ""

    def encode(text: str) -> list[int]:
        reply = client.call("POST", path, engine.tokenize_body(endpoint.model, text))
        try:
            return engine.token_ids(reply)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{endpoint.base_url}{path}: the answer holds no token ids: {client.hidden(str(reply))[:120]}"
            ) from None

    if client.try_call("POST", path, engine.tokenize_body(endpoint.model, "a")) is None:
        return None, ""
    return encode, f"the engine's {path}"


def _split_special(empty: list[int], full: list[int]) -> tuple[list[int], list[int]]:
    """Part the encoding of a text from the special tokens around it: (those in front, the text's own)."""
    front = 0
    while front < len(empty) and front < len(full) and empty[front] == full[front]:
        front += 1
    behind = len(empty) - front
    return empty[:front], full[front : len(full) - behind]


def _count_by_usage(endpoint: Endpoint, client: Client, text: str) -> int:
    count = _usage_of(endpoint, client, text)
    if count is None:
        raise UserError(
            f"{endpoint.base_url} reports no usage.prompt_tokens, so prompt lengths cannot be checked. "
            "Turn usage reporting on in the server, or use --api completions with the model's --tokenizer."
        )
    return count


def _usage_of(endpoint: Endpoint, client: Client, text: str) -> int | None:
    """`usage.prompt_tokens` of a request with this prompt; None when the server reports none."""
    return prompt_tokens(whole_answer(endpoint, client, {**endpoint.fields(1), **endpoint.prompt(text)}))
