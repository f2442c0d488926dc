"""Mechanisms that a client sees in its streams: who waits behind whom, long pauses, answers that slow down."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from loadgen.explain.block_figures import ONE_A_TOKEN, Seen, events_a_token, longest_wait, quarters, waits_of_shortest
from loadgen.explain.mechanism import SIDE_BY_SIDE, Figures, Mechanism
from loadgen.message import Message, mark, say
from loadgen.presentation.text import number
from loadgen.record import RequestRecord

SHORT, LONG = 2, 8
"""A prompt is short up to twice the shortest, long from eight times it on."""
FEWEST = 3
"""Requests of each sort without which nothing is said."""
BEHIND = 3.0
"""TTFT behind a long prompt, by the usual one: a step that both share may double it."""
HELD_BACK = 5.0
"""Longest TTFT of the shortest requests, by their median, where others were preempted."""
PART_TOKENS = 1024
"""Prompts from here on are cut into two parts or more, where Bakeoff has KsanaLLM cut them (512)."""
MOST_LONG = 200
"""Of more long prompts, so many are looked at or fewer, at equal distances."""
GROWN = 1.5
"""Growth of pauses: a prompt of two parts that is not cut takes a step twice as long, its fixed part left out."""
LONG_ANSWER = 500
"""Tokens from which on decoding an answer again may show: it takes microseconds for each token."""
SLOWER, MOST_ANSWERS = 1.1, 0.75
"""An answer's last quarter by its first (see experiment 12a), and the share of answers that must slow down at all."""


def head_of_line(seen: Seen) -> Figures | None:
    """Short requests waited until long ones before them had their first token, or for those that were preempted."""
    return _held_back(seen) or _behind_long(seen)


def _behind_long(seen: Seen) -> Figures | None:
    records = [record for record in seen.ok if record.t_first is not None]
    least = min((record.prompt_tokens_wanted for record in records), default=0)
    short = sorted(_prefill(record) for record in records if record.prompt_tokens_wanted <= SHORT * least)
    long = sorted(_prefill(record) for record in records if record.prompt_tokens_wanted >= LONG * least)
    behind: list[int] = []
    free: list[int] = []
    overtaken, begun = 0, 0
    before: list[int] = []
    """When those long ones get their first token that were sent and have none yet; a heap."""
    for sent, first in short:
        while begun < len(long) and long[begun][0] <= sent:
            heapq.heappush(before, long[begun][1])
            begun += 1
        while before and before[0] <= sent:
            heapq.heappop(before)
        (behind if before else free).append(first - sent)
        overtaken += bool(before) and first < before[0]
    if min(len(behind), len(free)) < FEWEST or 2 * overtaken > len(behind):
        return None
    usual, waited = median(free) / 1e6, median(behind) / 1e6
    return {"behind_ms": waited, "usual_ms": usual, "short": len(behind)} if waited >= BEHIND * usual else None


def _prefill(record: RequestRecord) -> tuple[int, int]:
    """When it was sent and when its first token came."""
    return record.t_send + record.wall_offset_ns, (record.t_first or record.t_send) + record.wall_offset_ns


def _held_back(seen: Seen) -> Figures | None:
    if not seen.rises_surely("recomputed", "swapped"):
        return None
    waits, held = waits_of_shortest(seen), longest_wait(seen)
    if held is None or held < HELD_BACK or len(waits) < FEWEST:
        return None
    return {"longest_ms": max(waits), "usual_ms": median(waits), "short": len(waits)}


def _head_of_line(found: Figures) -> Message:
    if "longest_ms" in found:
        return say(
            "the smallest requests waited up to {longest} ms behind those preempted, {usual} ms as a rule",
            longest=number(found["longest_ms"]),
            usual=number(found["usual_ms"]),
        )
    return say(
        "short prompts sent behind long ones had a TTFT of {behind} ms, others of {usual} ms",
        behind=number(found["behind_ms"]),
        usual=number(found["usual_ms"]),
    )


def chunking_lost(seen: Seen) -> Figures | None:
    """After the first shortage of blocks long prompts stop all streams for longer than before it."""
    if seen.kind != "ksana" or seen.asked.get("chunked_prefill") is not True:
        return None
    shortage = _first_shortage(seen)
    if shortage is None:
        return None
    before, after = [], []
    for record, pause in _pauses(seen.ok):
        start, end = (at / 1e9 for at in _prefill(record))
        if end <= shortage[0]:
            before.append(pause)
        elif start >= shortage[1]:
            after.append(pause)
    if not before or not after or median(after) < GROWN * median(before):
        return None
    return {"pause_before_ms": median(before), "pause_after_ms": median(after)}


def _first_shortage(seen: Seen) -> tuple[float, float] | None:
    """The two readings between which a request was first sent out, seconds since the epoch."""
    if not seen.rises_surely("recomputed", "swapped") or seen.samples is None:
        return None
    rows = [(at, row.get("recomputed", 0.0) + row.get("swapped", 0.0)) for at, row in seen.samples.rows]
    return next(((a[0], b[0]) for a, b in itertools.pairwise(rows) if b[1] > a[1]), None)


def _pauses(records: Sequence[RequestRecord]) -> Iterator[tuple[RequestRecord, float]]:
    """Of each long prompt the longest pause of other streams while it was computed, ms: the median over these."""
    long = [record for record in records if record.prompt_tokens_wanted >= PART_TOKENS and record.t_first is not None]
    for record in long[:: len(long) // MOST_LONG + 1]:
        start, end = _prefill(record)
        pauses = []
        for other in records:
            begun = other.t_send + other.wall_offset_ns
            if other is record or other.events < 2 or begun >= end or begun + other.event_offsets_ns[-1] <= start:
                continue
            at = np.asarray(other.event_offsets_ns, dtype=np.int64) + begun
            gaps = np.diff(at)[(at[1:] > start) & (at[:-1] < end)]
            if gaps.size:
                pauses.append(float(gaps.max()) / 1e6)
        if pauses:
            yield record, median(pauses)


def detokenisation(seen: Seen) -> Figures | None:
    """Answers slow down the longer they are, whether or not several tokens share an event.

    Asked of KsanaLLM only, whose front end decodes all of an answer again for each event: elsewhere it would be the
    model, whose attention costs more the more there is to attend to. Where load changes meanwhile, or requests were
    sent out, nobody knows.
    """
    steady = not seen.cell.open_loop and not seen.cell.trace and seen.cell.conversation is None
    if seen.kind != "ksana" or not steady or any(seen.rise(name) for name in ("recomputed", "swapped")):
        return None
    answers = [record for record in seen.ok if (record.output_tokens or 0) >= LONG_ANSWER]
    growth, events = quarters(answers), events_a_token(seen)
    slower = sum(each > 1 for each in growth)
    if not growth or events is None or median(growth) < SLOWER or slower < MOST_ANSWERS * len(growth):
        return None
    return {"slowing_down": median(growth), "events_a_token": events}


def _detokenisation(found: Figures) -> Message:
    if found["events_a_token"] < ONE_A_TOKEN:
        return say(
            "several tokens share an event ({events} events a token), and an answer's last quarter of events takes "
            "{growth} times as long as its first",
            events=number(found["events_a_token"]),
            growth=number(found["slowing_down"]),
        )
    return say(
        "an answer's last quarter takes {growth} times as long as its first", growth=number(found["slowing_down"])
    )


STREAMS = (
    Mechanism(
        "head_of_line",
        mark("Head of line"),
        head_of_line,
        _head_of_line,
        {"": f"{SIDE_BY_SIDE}#when-the-kv-cache-is-full", "vllm": "docs/engines/vllm.md#one-step"}
        | {"ksana": "docs/engines/ksana.md#one-step"},
        mostly=True,
    ),
    Mechanism(
        "chunked_prefill_lost",
        mark("Chunked prefill lost"),
        chunking_lost,
        lambda found: say(
            "long prompts stopped streams for {after} ms after the first shortage of blocks, for {before} ms before",
            after=number(found["pause_after_ms"]),
            before=number(found["pause_before_ms"]),
        ),
        {"": "docs/engines/ksana.md#one-step"},
        mostly=True,
    ),
    Mechanism(
        "detokenisation",
        mark("Detokenisation cost"),
        detokenisation,
        _detokenisation,
        {"": "docs/engines/ksana.md#what-a-client-sees"},
        mostly=True,
    ),
)
