"""How many tokens an answer had, and over which of them its TPOT is taken. Pure; once a request.

TPOT is the time from the first arrival to the last over the n - 1 tokens behind the first. Where the first event holds
several, or was held back together with others, that is the wrong divisor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from loadgen.record import TOGETHER_NS, RequestRecord, TpotBasis, int64s, together_ns
from loadgen.stream.event_reader import EventReader

AT_ONCE_NS = 50_000
"""An answer whose events are no more apart in the mean than a sender needs to write them came at once."""
CLUMPED_SHARE = 0.45
"""Share of an answer's gaps between which events arrive together, from which on they come in clumps."""
LEAST_CLUMPED = 4
"""Events of an answer in which clumps can be told from chance."""
HELD_BACK = 3
"""So many events in the first arrival were held back on their way; two may have come together by chance, and a block
of answers tells (`loadgen.metrics.pairs`)."""
LATE_SHARE = 0.1
"""Where this process read later than this share of the gap between arrivals, clumps may be its own doing."""
TOLERANCE = 0.02
"""By how much a TPOT may be off."""
BYTES_A_TOKEN = 4
"""A first event's text has no more tokens than one for so many bytes, or for a word."""

Basis = tuple[TpotBasis, int | None]


def settle_tokens(
    record: RequestRecord, events: EventReader, count_tokens: Callable[[str], int] | None, *, whole: bool = False
) -> None:
    """Write an answer's tokens, and what its TPOT is taken over, into its record.

    `whole`: the server is of a kind that sends every token that it counts, but those that mark reasoning.
    """
    whole = whole and not events.parsed
    record.reasoning_tokens = events.reasoning_tokens
    if record.output_tokens is None and record.text is not None and count_tokens is not None:
        record.output_tokens, record.token_source = count_tokens(record.text), "tokenizer"
    elif record.output_tokens is not None:
        record.output_tokens = _with_reasoning(record, events, record.output_tokens)
    if record.output_tokens is not None and record.events:
        visible = _visible(record, events, record.output_tokens)
        record.tpot_basis, record.tpot_tokens = tpot_basis(record, events, visible, count_tokens, whole=whole)


def _with_reasoning(record: RequestRecord, events: EventReader, told: int) -> int:
    """The output tokens, with those of streamed reasoning that the server left out of its count.

    More events than tokens give it away, or more tokens of reasoning than of all.
    """
    reasoning = events.reasoning_tokens or 0
    streamed = events.answer_at is None or events.answer_at > 0
    if record.events <= told and not (streamed and reasoning > told):
        return told
    total = (events.total_tokens or 0) - (record.prompt_tokens or 0) if record.prompt_tokens else 0
    return next((tokens for tokens in (total, told + reasoning) if tokens >= record.events), told)


def _visible(record: RequestRecord, events: EventReader, tokens: int) -> int:
    """The tokens that were streamed: without reasoning that was counted and not sent."""
    sent = tokens - (events.reasoning_tokens or 0)
    return sent if events.answer_at == 0 and sent >= record.events else tokens


def tpot_basis(
    record: RequestRecord, events: EventReader, tokens: int, count_tokens: Callable[[str], int] | None, *, whole: bool
) -> Basis:
    """Over how many of an answer's streamed `tokens` its TPOT is taken; None and why where nobody knows."""
    offsets = record.event_offsets_ns
    count, span = len(offsets), offsets[-1] - offsets[0]
    if tokens < 2 or span <= AT_ONCE_NS * (count - 1):
        few = TpotBasis.ONE_EVENT if count == 1 else TpotBasis.ONE_ARRIVAL
        return TpotBasis.ONE_TOKEN if tokens < 2 else few, None
    apart = together_ns(offsets)
    held, together = 1, gaps_below(apart, offsets)
    if together:
        first = next(n for n in range(1, count) if offsets[n] - offsets[n - 1] >= apart)
        held = first if first >= HELD_BACK else 1
        often = count >= LEAST_CLUMPED and together >= CLUMPED_SHARE * (count - 1)
        if often and not _late(record.read_lags_ns, span / (count - together)):
            return TpotBasis.CLUMPS, None
    if count >= tokens:
        more = count > tokens + max(1, TOLERANCE * tokens)
        return (TpotBasis.MORE_EVENTS, None) if more else (TpotBasis.EVENTS, count - held)
    told, every = events.first_counts[:held], record.output_tokens or tokens
    if told and held <= told[-1] < every:
        return TpotBasis.USAGE, every - told[-1]
    counted = count_tokens("".join(events.texts[:held])) if count_tokens is not None and events.texts else 0
    if held <= counted < tokens:
        return TpotBasis.TOKENIZER, tokens - counted
    return _guessed(events.first_text, tokens, count, held, whole=whole)


def gaps_below(least_ns: int, offsets: Sequence[int]) -> int:
    """How many gaps between successive offsets are shorter than `least_ns`.

    A loop would cost each request as much as reading ten more events, so all are done at once: the offsets are the
    64-bit digits of one integer, which is subtracted from itself one digit on; a digit's highest bit then tells that
    its gap is too short. What a digit borrows from the next is one nanosecond.
    """
    gaps = len(offsets) - 1
    every = _ones(gaps)
    digits = int.from_bytes(int64s(offsets), "little")
    apart = (digits >> 64) - (digits & ((1 << 64 * gaps) - 1))
    return ((apart - least_ns * every) & (every << 63)).bit_count()


@functools.lru_cache(8)
def _ones(digits: int) -> int:
    """The integer whose 64-bit digits are all 1. Answers of a block are often of one length."""
    return int.from_bytes(int64s((1,)) * digits, "little")


def _guessed(first_text: str, tokens: int, count: int, first: int, *, whole: bool) -> Basis:
    """As `tpot_basis`, where the first arrival's tokens are only known within bounds."""
    words = max(1, len(first_text.split()))
    most = max(words, math.ceil(len(first_text.encode("utf-8", "replace")) / BYTES_A_TOKEN))
    each, least = tokens / count, first - 1 + words
    bounds = []  # how many tokens the first arrival may hold
    if first == 1 and abs(words - each) <= TOLERANCE * each:  # as many words as events hold tokens
        bounds.append(float(least))
    if words == 1 and tokens - count <= TOLERANCE * tokens:  # hardly any event holds more than one
        bounds.append(first * each)
    if whole:  # else the tokens beyond the events may not have been sent at all
        bounds += [most + (first - 1) * each, first * each if words == 1 else math.inf]
    close = any(bound - least <= TOLERANCE * (tokens - least) for bound in bounds)
    return (TpotBasis.FIRST_EVENT, tokens - least) if close else (TpotBasis.TOKENS_PER_EVENT, None)


def _late(lags_ns: Sequence[int], gap_ns: float) -> bool:
    """Whether this process was so late that what it read together may have come apart."""
    return bool(lags_ns) and sorted(lags_ns)[len(lags_ns) // 2] > max(TOGETHER_NS, LATE_SHARE * gap_ns)
