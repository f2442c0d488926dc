"""Why two engines count the tokens of the same texts differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from loadgen.message import joined, say
from loadgen.preflight.finding import all_of
from loadgen.preflight.questions import TOLD

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
        silent = all_of(name for name, counts in ((name_a, a), (name_b, b)) if None in counts.values())
        text = say("{engines} did not tell the prompt tokens of every text", engines=silent or name_b)
        return CountDifference("not told", text)
    more = {text: (theirs or 0) - (ours or 0) for text, (ours, theirs) in both.items()}
    sizes = set(more.values())
    if sizes == {0}:
        return CountDifference("equal", say("the same for {count} kinds of text", count=len(more)))
    offset = max(sizes, key=abs)
    least = min(abs(size) for size in sizes)
    if len(sizes) == 1 or (max(sizes) - min(sizes) == 1 and least > 1):
        longer = name_b if offset > 0 else name_a
        if least == 1:
            words = say("{engine} adds one token to every text: a BOS, most likely", engine=longer)
            return CountDifference("BOS", words)
        most = abs(offset)
        amount = most if least == most else say("{least} or {most}", least=least, most=most)
        words = say(
            "{engine} adds {count} tokens to every text, short or long: a chat template or system prompt",
            engine=longer,
            count=amount,
        )
        return CountDifference("chat template", words)
    told = joined(
        "{a}, {b}", [say(TOLD.get(text, f"{text} {{told}}"), told=f"{offset:+d}") for text, offset in more.items()]
    )
    text = say(
        "tokens of {engine} over those of {other}: {counts}: another tokenizer",
        engine=name_b,
        other=name_a,
        counts=told,
    )
    return CountDifference("tokenizer", text)
