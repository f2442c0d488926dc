"""Why two engines count the tokens of the same texts differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Cause = Literal["equal", "BOS", "chat template", "tokenizer", "not told"]


@dataclasses.dataclass(frozen=True, slots=True)
class CountDifference:
    """What the differences of all counts look like, and what does that."""

    cause: Cause
    words: str


def explain_counts(
    a: Mapping[str, int | None], b: Mapping[str, int | None], name_a: str, name_b: str
) -> CountDifference:
    """Compare counts by text.

    One token more on every text is a BOS (or another single special token); several more, but always as many, are a
    chat template or system prompt, whose borders may join one token with the text; anything else is another tokenizer.
    """
    both = {text: (a[text], b[text]) for text in a if a[text] is not None and b.get(text) is not None}
    if len(both) < len(a):
        silent = " and ".join(name for name, counts in ((name_a, a), (name_b, b)) if None in counts.values())
        return CountDifference("not told", f"{silent or name_b} did not tell the prompt tokens of every text")
    more = {text: (theirs or 0) - (ours or 0) for text, (ours, theirs) in both.items()}
    sizes = set(more.values())
    if sizes == {0}:
        return CountDifference("equal", f"the same for {len(more)} kinds of text")
    offset = max(sizes, key=abs)
    least = min(abs(size) for size in sizes)
    if len(sizes) == 1 or (max(sizes) - min(sizes) == 1 and least > 1):
        longer = name_b if offset > 0 else name_a
        if least == 1:
            words = f"{longer} adds one token to every text: a BOS, most likely"
            return CountDifference("BOS", words)
        amount = f"{abs(offset)}" if least == abs(offset) else f"{least} or {abs(offset)}"
        words = f"{longer} adds {amount} tokens to every text, short or long: a chat template or system prompt"
        return CountDifference("chat template", words)
    told = ", ".join(f"{text} {offset:+d}" for text, offset in more.items())
    return CountDifference("tokenizer", f"tokens of {name_b} over those of {name_a}: {told}: another tokenizer")
