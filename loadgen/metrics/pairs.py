"""Answers whose first two events arrive together: by chance, or because the server always sends them so. Pure.

One answer cannot tell, so its record has a TPOT over the n - 1 tokens behind the first. The answers of a block can:
where nearly all begin so, the second token takes no time of its own, and the span holds n - 2 of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loadgen.record import RequestRecord, together_ns

LEAST_ANSWERS = 3
"""Of a block, before they can tell."""
HABIT_SHARE = 0.75
"""Share of them that begins with a pair, from which on it is no chance."""
LEAST_EVENTS = 4
"""Of an answer whose beginning can be told from the rest."""


def behind_pairs(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    """A block's records, with the tokens behind the first arrival as divisor where its answers begin with pairs."""
    timed = [r for r in records if r.ok and r.tpot_tokens is not None and len(r.event_offsets_ns) >= LEAST_EVENTS]
    pairs = {id(r) for r in timed if _begins_with_a_pair(r)}
    if len(timed) < LEAST_ANSWERS or len(pairs) < HABIT_SHARE * len(timed):
        return list(records)
    return [_without_second(r) if id(r) in pairs else r for r in records]


def _begins_with_a_pair(record: RequestRecord) -> bool:
    offsets = record.event_offsets_ns
    apart = together_ns(offsets)
    return offsets[1] - offsets[0] < apart <= offsets[2] - offsets[1]


def _without_second(record: RequestRecord) -> RequestRecord:
    """The record, less the tokens of the second event: one, or as many as the events behind the first hold each."""
    tokens = record.tpot_tokens or 0
    return dataclasses.replace(record, tpot_tokens=tokens - max(1, round(tokens / (len(record.event_offsets_ns) - 1))))
