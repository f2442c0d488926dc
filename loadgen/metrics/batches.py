"""The figures of a batch load: of N requests that were sent at the same instant, and ended together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from statistics import median

from loadgen.metrics.definitions import NS_PER_MS
from loadgen.metrics.window import batch_span, by_batch
from loadgen.record import RequestRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """One batch whose requests all succeeded. Times are ms, counted from when its first request was sent."""

    ttft_first_ms: float
    ttft_median_ms: float
    ttft_last_ms: float
    latency_ms: float
    """Until the last token of its last request."""
    output_tokens: int
    send_spread_ms: float
    """From the first request's sending to the last one's."""

    @property
    def tokens_per_s(self) -> float:
        """Output tokens of all its requests over its latency; 0 where that is no time at all."""
        return self.output_tokens / self.latency_ms * 1e3 if self.latency_ms > 0 else 0.0


def batches_of(measured: Iterable[RequestRecord]) -> list[Batch]:
    """The batches of one block's measured requests, in order, without those in which a request failed."""
    made = (_batch(records) for records in by_batch(measured).values())
    return [batch for batch in made if batch is not None]


def send_spreads_ms(measured: Iterable[RequestRecord]) -> list[float]:
    """How far apart the requests of each batch were sent, ms, failures included; batches in order."""
    return [_spread_ms(batch) for batch in by_batch(measured).values()]


def _spread_ms(batch: Sequence[RequestRecord]) -> float:
    sent = [r.t_send + r.wall_offset_ns for r in batch]
    return (max(sent) - min(sent)) / NS_PER_MS


def _batch(records: Sequence[RequestRecord]) -> Batch | None:
    start, end = batch_span(records)
    firsts = [(r.t_first + r.wall_offset_ns - start) / NS_PER_MS for r in records if r.ok and r.t_first is not None]
    if len(firsts) < len(records):
        return None
    return Batch(
        ttft_first_ms=min(firsts),
        ttft_median_ms=median(firsts),
        ttft_last_ms=max(firsts),
        latency_ms=(end - start) / NS_PER_MS,
        output_tokens=sum(r.output_tokens or 0 for r in records),
        send_spread_ms=_spread_ms(records),
    )
