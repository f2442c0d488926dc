"""Greedy texts: where two of them part, and what a broken engine's look like."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence

from loadgen.endpoints.answers import Answer
from loadgen.message import Message, say

MIN_REPEATS = 6
"""So many of the same in a row may be a model's own doing less than they may be a broken engine's."""
SHARE = 0.9
MOST_OF_A_CYCLE = 4
MIN_CYCLED = 24
"""A cycle of so many tokens at most, over so many or more, is no text; shorter texts may be lists."""


@dataclasses.dataclass(frozen=True, slots=True)
class Divergence:
    """How far two texts agree. White space in front does not count: engines decode the first token with or without."""

    same: bool
    at_start: bool
    """Whether they part at the very first token."""
    characters: int
    """Characters in common before they part."""
    tokens: int | None
    """Tokens in common before they part; None where an engine tells none."""


def divergence(a: Answer, b: Answer) -> Divergence:
    """Where two answers part."""
    one, other = a.text.lstrip(), b.text.lstrip()
    characters = _common(one, other)
    same = one == other
    tokens = None
    if a.tokens and b.tokens:
        tokens = _common(_token_texts(a), _token_texts(b))
    at_start = not same and (tokens == 0 if tokens is not None else characters < len(_first_word(one, other)))
    return Divergence(same, at_start, characters, tokens)


def logprob_gaps(a: Answer, b: Answer) -> list[float]:
    """Absolute differences of the log probabilities of the tokens that both chose, up to where they part."""
    gaps = []
    for ours, theirs in zip(a.tokens, b.tokens, strict=False):
        if ours.text.strip() != theirs.text.strip() or ours.logprob is None or theirs.logprob is None:
            break
        gaps.append(abs(ours.logprob - theirs.logprob))
    return gaps


def describe_divergences(found: Sequence[Divergence], engine: str | None) -> list[Message]:
    """All of them in words; `engine` is whose they are, if that has to be said."""
    same = sum(each.same for each in found)
    parted = [each for each in found if not each.same]
    words = say("{same} of {all} texts are the same", same=same, all=len(found))
    if parted:
        at_start = sum(each.at_start for each in parted)
        words = say("{what}, {first} part at the first token", what=words, first=at_start)
    if engine is not None:
        words = say("{engine}: {what}", engine=engine, what=words)
    if not parted:
        return [words]
    shared = say("{count} characters", count=f"{statistics.median(each.characters for each in parted):g}")
    tokens = [each.tokens for each in parted if each.tokens is not None]
    if tokens:
        shared = say("{shared} ({tokens} tokens)", shared=shared, tokens=f"{statistics.median(tokens):g}")
    return [words, say("those that part share {shared} (median) before", shared=shared)]


def degenerate(answer: Answer) -> str | None:
    """What is wrong with a text, if it is no language at all: empty, one token over and over, or a few in turn."""
    text = answer.text.strip()
    if not text:
        return say("no text")
    counted = Counter(token.text for token in answer.tokens)
    if counted and len(answer.tokens) >= MIN_REPEATS:
        token, times = counted.most_common(1)[0]
        if times >= SHARE * len(answer.tokens):
            return say("{token} over and over", token=repr(token))
        unit = short_cycle([token.text for token in answer.tokens], "")
    else:
        unit = repeated_unit(text) or short_cycle(text.split(), " ")
    return say("{token} over and over", token=repr(unit)) if unit is not None else None


def short_cycle(tokens: Sequence[str], between: str) -> str | None:
    """The few tokens that a text of many goes round in, but for its first tenth; None if it does not."""
    if len(tokens) < MIN_CYCLED:
        return None
    for size in range(1, MOST_OF_A_CYCLE + 1):
        same = sum(token == former for token, former in zip(tokens[size:], tokens, strict=False))
        if same >= SHARE * (len(tokens) - size):
            return between.join(tokens[-size:])
    return None


def repeated_unit(text: str) -> str | None:
    """The unit that a text repeats `MIN_REPEATS` times or more, with nothing else in it; None if it does not.

    Words count where there are several, else characters: `!!!!!!!!` and `the the the the the the` are repetitions.
    """
    words = text.split()
    if len(words) >= MIN_REPEATS:
        word, times = Counter(words).most_common(1)[0]
        return word if times >= SHARE * len(words) else None
    # The shortest period of a text: where it first occurs in itself doubled, shifted.
    period = (text + text).find(text, 1)
    return text[:period] if len(text) // period >= MIN_REPEATS else None


def judge_texts(answers: Sequence[Answer]) -> str | None:
    """What is wrong with an engine's texts as a whole; None if nothing is.

    Half of all texts being degenerate is more than a small model's own loops. One text for all prompts is an engine
    that does not read them.
    """
    if not answers:
        return None
    wrong = Counter(filter(None, (degenerate(answer) for answer in answers)))
    if wrong.total() * 2 >= len(answers):
        kind, times = wrong.most_common(1)[0]
        if kind.startswith(("'!'", "'<unk>'", "'<pad>'")):
            kind = say("{kind} (token 0 of many vocabularies)", kind=kind)
        if wrong.total() == times:
            return say("{kind} in {count} of {all} texts", kind=kind, count=times, all=len(answers))
        return say(
            "{kind} in {count} of {all} texts, and other degenerate text in {others}",
            kind=kind,
            count=times,
            all=len(answers),
            others=wrong.total() - times,
        )
    if len(answers) > 1 and len({answer.text for answer in answers}) == 1:
        return say("the same text to all {count} prompts", count=len(answers))
    return None


def _first_word(one: str, other: str) -> str:
    """What stands for the first token where tokens are not told: the shorter first word, or the first sign.

    Scripts without spaces have no short words, so at most three characters are looked at.
    """
    words = [text.split(maxsplit=1)[0] if text.split() else "" for text in (one, other)]
    return min(words, key=len)[:3] or "?"


def _token_texts(answer: Answer) -> list[str]:
    """Texts of the tokens; the first one without white space in front, and none that is only such."""
    texts = [token.text for token in answer.tokens]
    while texts and not texts[0].strip():
        texts.pop(0)
    return [texts[0].lstrip(), *texts[1:]] if texts else []


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
