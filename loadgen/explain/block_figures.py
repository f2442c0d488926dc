"""Figures of one block that mechanisms and experiments are told by: of its records and what the engine said. Pure.

Counters are taken over the whole block, from the reading before its first request to the one behind its last, since
what an experiment asks begins with a cold engine. None is what cannot be told.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.metrics.definitions import tpot_ms, ttft_ms
from loadgen.monitoring.engine_figures import EngineFigures
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.record import RequestRecord
from loadgen.scenario.cell import Cell
from loadgen.scenario.experiment import Figure
from loadgen.scenario.script import Part, arrivals

COUNTED_APART = 0.05
"""Prompt tokens that an engine counted may differ by this share from what was sent; beyond it others used it too, or
its figures came late."""
ONE_A_TOKEN = 0.95
"""Events a token below which nobody knows when each token came."""
QUARTER_EVENTS = 10
"""Events that a quarter of an answer must have."""
PUSHES, LATE_S = {"ksana"}, 2.5
"""Engines that push their figures each 2 s, and how late those may be."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """All that is known of one block."""

    records: Sequence[RequestRecord]
    samples: BlockSamples | None
    cell: Cell
    script: Sequence[Part] = ()
    first: Sequence[RequestRecord] = ()
    """The same block of the race's first engine."""
    kind: str = ""
    """What engine it is, such as `vllm`; empty where nobody asks."""
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The serving settings that the scenario asks of it."""
    own: EngineFigures | None = None
    """What the engine said over the window."""
    shared_tokens: int = 0
    """How many tokens open every prompt alike, as the scenario asks."""
    disturbed: bool = False
    """Whether the load generator was its limit, or something else took the machine: its times tell nothing."""
    best: tuple[str, float] | None = None
    """The engine of this cell whose prefix cache had the most of its prompts, and what share."""

    @property
    def ok(self) -> list[RequestRecord]:
        """The requests that succeeded, in the order of their sending."""
        return sorted((r for r in self.records if r.ok), key=lambda r: (r.t_send + r.wall_offset_ns, r.index))

    def rise(self, *names: str) -> float | None:
        """By how much a counter rose, the first of these that is told."""
        points = next((found for name in names if self.samples and len(found := self.samples.points(name)) > 1), [])
        values = [value for _, value in points]
        return values[-1] - values[0] if values and all(a <= b for a, b in itertools.pairwise(values)) else None

    def sent(self) -> list[RequestRecord]:
        """The requests that the engine's counters are of: with those that the block's end cut off, or without."""
        queries = self.rise("queries")
        every, whole = list(self.records), [r for r in self.records if not r.aborted]
        if queries is None:
            return every
        return min(every, whole, key=lambda records: abs(queries - sum(r.prompt_tokens_wanted for r in records)))

    def computed(self) -> float | None:
        """Tokens of prompts that were computed; None where the engine's count is not of this block's requests."""
        queries, sent = self.rise("queries"), sum(r.prompt_tokens_wanted for r in self.sent())
        if queries is None or self.samples is None or abs(queries - sent) > COUNTED_APART * sent:
            return None
        hits = [value for _, value in self.samples.points("hits")]
        return sent - (hits[-1] - hits[0]) if len(hits) > 1 else None

    def rises_surely(self, *names: str) -> float | None:
        """By how much these counters rose together, at least; None where none is told.

        Of an engine that pushes its figures, what rose in the first seconds may be of the block before, unless its
        count of prompts is that of this block.
        """
        found = [self.samples.points(name) for name in names] if self.samples is not None else []
        found = [points for points in found if len(points) > 1]
        if not found:
            return None
        late = self.kind in PUSHES and self.computed() is None
        rises = []
        for points in found:
            values = [value for at, value in points if not late or at >= points[0][0] + LATE_S]
            if any(b < a for a, b in itertools.pairwise(values)):
                return None
            rises.append(values[-1] - values[0] if values else 0.0)
        return sum(rises)

    def again(self) -> tuple[int, int]:
        """(Requests whose prefix was sent before, tokens of all prompts that were not)."""
        shape, repeats, fresh = self.cell.prefixes, 0, 0
        seen: set[int | None] = set()
        for number in range(len(self.sent())):
            which = shape.which(number) if shape is not None else None
            if which is not None and which in seen:
                repeats += 1
            else:
                fresh += self.cell.prompt_tokens
                seen.add(which)
        return repeats, fresh


def found_again(seen: Seen) -> float | None:
    """Of the prefixes' tokens that were sent before, the share that the cache had."""
    shape, computed = seen.cell.prefixes, seen.computed()
    repeats, _ = seen.again()
    if shape is None or computed is None or not repeats:
        return None
    sent = sum(r.prompt_tokens_wanted for r in seen.sent())
    return (sent - computed) / (repeats * min(shape.tokens, seen.cell.prompt_tokens))


def computed_again(seen: Seen) -> float | None:
    """Tokens that were computed of each prompt whose prefix was sent before, beyond what is its own."""
    shape, computed = seen.cell.prefixes, seen.computed()
    repeats, fresh = seen.again()
    if shape is None or computed is None or not repeats:
        return None
    return (computed - fresh) / repeats - max(0, seen.cell.prompt_tokens - shape.tokens)


def copies_computed(seen: Seen) -> float | None:
    """How many of a script's equal prompts were computed, in prompts."""
    computed, copies = seen.computed(), [part for part in seen.script if part.same]
    if computed is None or not copies:
        return None
    others = sum(part.requests * part.prompt_tokens for part in seen.script if not part.same)
    return (computed - others) / copies[0].prompt_tokens


def requests_a_step(seen: Seen) -> float | None:
    """Requests for each pass through the model."""
    steps = seen.rise("steps", "running_n")
    return len(seen.ok) / steps if steps else None


def prompt_tokens_a_step(seen: Seen) -> float | None:
    """Tokens of prompts that were computed, for each pass through the model."""
    steps, computed = seen.rise("steps", "running_n"), seen.computed()
    return computed / steps if steps and computed is not None else None


def preemptions(seen: Seen) -> float | None:
    """Requests that lost their KV cache, or had it moved to the host."""
    rises = [rise for name in ("recomputed", "swapped") if (rise := seen.rise(name)) is not None]
    return sum(rises) if rises else None


def gap_by_arrival(seen: Seen) -> float | None:
    """Spearman's rank correlation of a request's longest gap between tokens with its arrival; longest answers only."""
    most = max((r.output_tokens_wanted for r in seen.ok), default=0)
    gaps = [
        max(b - a for a, b in itertools.pairwise(r.event_offsets_ns))
        for r in seen.ok
        if r.output_tokens_wanted == most and r.events > 1
    ]
    if len(gaps) < QUARTER_EVENTS or len(set(gaps)) < 2:
        return None
    return float(np.corrcoef(np.arange(len(gaps)), _ranks(gaps))[0, 1])


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Ranks, of equal values their mean."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[which], dtype=np.float64)


def waits_of_shortest(seen: Seen) -> list[float]:
    """TTFT of the requests that have the fewest tokens, ms; empty where all have as many."""
    sizes = [record.prompt_tokens_wanted + record.output_tokens_wanted for record in seen.ok]
    least = min(sizes, default=0)
    if least == max(sizes, default=0):
        return []
    shortest = (record for record, size in zip(seen.ok, sizes, strict=True) if size == least)
    return [wait for record in shortest if (wait := ttft_ms(record)) is not None]


def longest_wait(seen: Seen) -> float | None:
    """The longest TTFT of the shortest requests, by the median of those: how long some were held back."""
    waits = waits_of_shortest(seen)
    return max(waits) / median(waits) if waits and median(waits) > 0 else None


def burst_gap_growth(seen: Seen) -> float | None:
    """Gaps (90th percentile) of the longest answers during the last burst of a script, by those during its first.

    A burst is what is sent at one instant beside the longest answers, until its last first token.
    """
    by_part = arrivals(seen.script)
    most = max((part.output_tokens for part in seen.script), default=0)
    bursts: dict[int, list[RequestRecord]] = {}
    streams = []
    for record in seen.ok:
        if record.index >= len(by_part):
            return None
        arrival = by_part[record.index]
        if seen.script[arrival.part].output_tokens == most:
            streams.append(record)
        else:
            bursts.setdefault(arrival.at_ns, []).append(record)
    if len(bursts) < 2:
        return None
    first, last = (_gap_within(streams, bursts[at]) for at in (min(bursts), max(bursts)))
    return last / first if first and last else None


def _gap_within(streams: Sequence[RequestRecord], burst: Sequence[RequestRecord]) -> float | None:
    """The 90th percentile of the streams' gaps that reach into the time until a burst's last first token, ns."""
    start = min(r.t_send + r.wall_offset_ns for r in burst)
    end = max((r.t_first or r.t_send) + r.wall_offset_ns for r in burst)
    gaps = []
    for record in streams:
        begin = record.t_send + record.wall_offset_ns
        for a, b in itertools.pairwise(record.event_offsets_ns):
            if begin + b > start and begin + a < end:
                gaps.append(b - a)
    return float(np.percentile(gaps, 90)) if gaps else None


def tpot_to_first(seen: Seen) -> float | None:
    """Median TPOT, by that of the race's first engine."""
    mine, first = (
        [value for r in records if r.ok and (value := tpot_ms(r)) is not None] for records in (seen.records, seen.first)
    )
    return median(mine) / median(first) if mine and first and median(first) > 0 else None


def slowing_down(seen: Seen) -> float | None:
    """Time that the last quarter of an answer's tokens took, by that of the first; the median over answers."""
    share = events_a_token(seen)
    if share is None or share < ONE_A_TOKEN:
        return None
    found = quarters(seen.ok)
    return median(found) if found else None


def quarters(records: Sequence[RequestRecord]) -> list[float]:
    """Time that the last quarter of each answer's events took, by that of the first; of those that have enough."""
    found = []
    for record in records:
        at, quarter = record.event_offsets_ns, len(record.event_offsets_ns) // 4
        if quarter >= QUARTER_EVENTS and at[quarter] > at[0]:
            found.append((at[-1] - at[-1 - quarter]) / (at[quarter] - at[0]))
    return found


def events_a_token(seen: Seen) -> float | None:
    """Content events for each token of the answers."""
    tokens = sum(r.output_tokens or 0 for r in seen.ok)
    return sum(r.events for r in seen.ok) / tokens if tokens else None


FIGURES: Mapping[Figure, Callable[[Seen], float | None]] = {
    "found_again": found_again,
    "copies_computed": copies_computed,
    "computed_again": computed_again,
    "requests_a_step": requests_a_step,
    "prompt_tokens_a_step": prompt_tokens_a_step,
    "preemptions": preemptions,
    "gap_by_arrival": gap_by_arrival,
    "longest_wait": longest_wait,
    "burst_gap_growth": burst_gap_growth,
    "tpot_to_first": tpot_to_first,
    "slowing_down": slowing_down,
    "events_a_token": events_a_token,
}
