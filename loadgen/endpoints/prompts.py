"""Prompts of an exact length in tokens, unique from their first token (or sharing a prefix on purpose).

A prompt is a sequence of *pieces*, each known to be exactly one token: words, or token ids where the engine takes
them. Making one costs a slice of a prepared string, so that a long prompt does not hold up the worker.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any, Literal

from loadgen.errors import UserError

MIN_PIECES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class PromptRecipe:
    """All that a worker needs to make prompts of an exact length for one endpoint."""

    mode: Literal["ids", "text"]
    overhead: int
    """Tokens that stand around the pieces: special tokens and the chat template."""
    pieces: tuple[str, ...]
    """Words, or token ids in decimal; each is one token."""
    head_ids: tuple[int, ...] = ()
    """Special tokens that open an ids prompt (BOS), where there is room for them."""
    source: str = ""
    """Where the counts came from, in words, for the manifest."""
    tokenizer: str = ""
    """File of the tokenizer that counted, where one was given."""
    tokenizer_sha256: str = ""

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "mode": "token ids" if self.mode == "ids" else "text",
            "overhead_tokens": self.overhead,
            "bos": list(self.head_ids),
            "distinct_pieces": len(self.pieces),
            "counted_by": self.source,
            **({"tokenizer": self.tokenizer, "tokenizer_sha256": self.tokenizer_sha256} if self.tokenizer else {}),
        }


class PromptFactory:
    """Makes the prompts of one cell."""

    def __init__(
        self,
        recipe: PromptRecipe,
        *,
        prompt_tokens: int,
        seed: str,
        shared_prefix_tokens: int = 0,
        prefix_tokens: int = 0,
        shortest: int | None = None,
    ) -> None:
        """Prepare prompts of `prompt_tokens` tokens, of which the first `shared_prefix_tokens` pieces are the same.

        Of a cell whose prompts differ in length that is the longest one, and `shortest` the shortest. `prefix_tokens`
        are those of each prefix that `prompt` can be asked for.

        Raises:
            UserError: the recipe cannot make a prompt so short, or has too few pieces.
        """
        if len(recipe.pieces) < MIN_PIECES:
            raise UserError(
                f"Only {len(recipe.pieces)} one-token words were found for prompts; {MIN_PIECES} are needed."
            )
        self._recipe = recipe
        # BOS opens the prompt where there is room for it beside at least one other token.
        least_wanted = prompt_tokens if shortest is None else shortest
        head = recipe.head_ids if recipe.mode == "ids" and least_wanted > len(recipe.head_ids) else ()
        around = len(head) if recipe.mode == "ids" else recipe.overhead
        self._longest = prompt_tokens
        self._prefix_tokens = prefix_tokens
        self._own = prompt_tokens - around - shared_prefix_tokens
        if least_wanted - around - shared_prefix_tokens < 1:
            least = around + shared_prefix_tokens + 1
            if not head and least > len(recipe.head_ids):
                least += len(recipe.head_ids)  # a prompt so long is opened by BOS
            raise UserError(
                f"A prompt of {least_wanted} tokens cannot be made: this endpoint adds {around} tokens of its own"
                + (f" and {shared_prefix_tokens} are shared" if shared_prefix_tokens else "")
                + f". Ask for {least} or more."
            )
        rng = random.Random(seed)
        self._firsts = list(recipe.pieces[: _largest_prime(len(recipe.pieces))])
        rng.shuffle(self._firsts)
        self._separator = "," if recipe.mode == "ids" else " "
        # The shared prefix depends on nothing but its length, so that every block shares the same one.
        shared = random.Random("shared prefix").choices(recipe.pieces, k=shared_prefix_tokens)
        self._opening = self._separator.join([*(str(i) for i in head), *shared])
        if self._opening:
            self._opening += self._separator
        stock = rng.choices(recipe.pieces, k=self._own + 4 * len(recipe.pieces))
        self._stock = self._separator.join(stock) + self._separator
        self._starts = [0]
        for piece in stock:
            self._starts.append(self._starts[-1] + len(piece) + 1)
        self._span = len(self._starts) - 1 - max(self._own - 2, 0)

    def prompt(self, number: int, prompt_tokens: int | None = None, prefix: int | None = None) -> str:
        """Return prompt `number` as JSON text: an array of ids, or a string.

        Of `prompt_tokens` tokens where they are given; a shorter one is the beginning of the longer ones of its number.
        All with the same `prefix` open with the same tokens, which no other prompt opens with; what follows is their
        own. Where that prefix leaves no room they are equal.

        With p the largest prime not above the number of pieces: any p numbers in a row, or at a stride that p does
        not divide, differ in their first own token, and p * p of them within their first two.
        """
        length = self._own if prompt_tokens is None else self._own - (self._longest - prompt_tokens)
        parts = []
        if prefix is not None:
            # The beginning of a prompt whose number no request has.
            parts.append(self._text(-1 - prefix, min(self._prefix_tokens, length)))
            length -= self._prefix_tokens
        if length > 0:
            parts.append(self._text(number, length))
        body = self._opening + self._separator.join(parts)
        return f"[{body}]" if self._recipe.mode == "ids" else f'"{body}"'

    def _text(self, number: int, length: int) -> str:
        """The first `length` pieces of a number's own text."""
        firsts = self._firsts
        own = [firsts[number % len(firsts)], firsts[(number // len(firsts)) % len(firsts)]][:length]
        text = self._separator.join(own)
        rest = length - len(own)
        if rest:
            # A multiplier coprime to the range spreads the starts over the stock.
            start = (number * 7919) % self._span
            text += self._separator + self._stock[self._starts[start] : self._starts[start + rest] - 1]
        return text


def _largest_prime(limit: int) -> int:
    """Largest prime not above `limit`: coprime to any stride by which workers share out the numbers."""
    for candidate in range(limit, 2, -1):
        if all(candidate % divisor for divisor in range(2, int(candidate**0.5) + 1)):
            return candidate
    return max(limit, 1)
