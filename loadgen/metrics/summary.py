"""The figures of a block, or of an engine's cell, over all its requests; `definitions` says what each one means."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from loadgen.metrics.batches import Batch, batches_of
from loadgen.metrics.definitions import (
    NS_PER_MS,
    answer_ms,
    e2e_ms,
    no_tpot,
    tokens_per_event,
    tpots_ms,
    ttft_from_intended_ms,
    ttft_ms,
)
from loadgen.metrics.pairs import behind_pairs
from loadgen.metrics.slo import Slo, SloFigures, meets, slo_figures
from loadgen.metrics.window import Window
from loadgen.record import RequestRecord

PERCENTILES = (50, 90, 95, 99)
Floats = npt.NDArray[np.float64]


def itl_ms(record: RequestRecord) -> Floats:
    """Gaps between successive content events in ms, shape (events - 1,)."""
    return np.diff(np.asarray(record.event_offsets_ns, dtype=np.float64)) / NS_PER_MS


@dataclasses.dataclass(frozen=True, slots=True)
class Distribution:
    """Summary of one metric over requests (or gaps): milliseconds. `None` everywhere when nothing was measured."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Floats | Sequence[float]) -> Distribution:
        """Summarise raw values. Percentiles interpolate linearly between order statistics (numpy's default)."""
        array = np.asarray(values, dtype=np.float64)
        if array.size == 0:
            return cls(0, None, None, None, None, None, None)
        p50, p90, p95, p99 = (float(p) for p in np.percentile(array, PERCENTILES))
        return cls(int(array.size), float(array.mean()), p50, p90, p95, p99, float(array.max()))


@dataclasses.dataclass(frozen=True, slots=True)
class BatchFigures:
    """What a batch load gave, over the batches in which no request failed."""

    ttft_first_ms: Distribution
    ttft_median_ms: Distribution
    ttft_last_ms: Distribution
    latency_ms: Distribution
    tokens_per_s: Distribution
    """Not ms: output tokens a second of each batch."""
    send_spread_ms: Distribution

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> BatchFigures:
        """Summarise batches."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(Distribution.of([getattr(batch, name) for batch in batches]) for name in names))


@dataclasses.dataclass(frozen=True, slots=True)
class CellSummary:
    """All figures of one block, or of one engine's cell, from its raw records."""

    requests: int
    """Measured requests, failed ones included."""
    errors: dict[str, int]
    """Failed measured requests by error kind."""
    window_s: float | None
    ttft_ms: Distribution
    ttft_from_intended_ms: Distribution
    tpot_ms: Distribution
    itl_ms: Distribution
    e2e_ms: Distribution
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    requests_per_s: float | None
    tokens_per_event: float | None
    prompt_tokens: int
    output_tokens: int
    slo: SloFigures | None = None
    """How it stands to the scenario's SLO; None where that has none."""
    batches: BatchFigures | None = None
    """Of a batch load."""
    no_tpot: str | None = None
    """Why there is no TPOT though answers have two tokens or more, in words."""
    tpot_basis: dict[str, int] = dataclasses.field(default_factory=dict)
    """Requests by what their TPOT is taken over, or why they have none (`TpotBasis`)."""
    finish_reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    """Measured requests by finish reason, failed ones included."""
    answer_ms: Distribution | None = None
    """Time to first answer token, where answers begin with reasoning; None where none does."""
    reasoning_tokens: int = 0
    """Of `output_tokens`, as far as servers tell."""


def _reasoned(record: RequestRecord) -> bool:
    """Whether an answer began with reasoning."""
    return record.t_first is not None and record.t_answer != record.t_first and record.tpot_basis is not None


def _values(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _all_gaps_ms(records: Sequence[RequestRecord]) -> Floats:
    """`itl_ms` of all records in one array, filled in place: there may be millions of gaps."""
    gaps = np.empty(sum(max(len(record.event_offsets_ns) - 1, 0) for record in records))
    filled = 0
    for record in records:
        own = itl_ms(record)
        gaps[filled : filled + len(own)] = own
        filled += len(own)
    return gaps


def tokens_in_window(records: Sequence[RequestRecord], window: Window) -> tuple[float, float]:
    """Return (output tokens, prompt tokens) that fall inside the window; see `definitions.DEFINITIONS`.

    A request that was cut off has no token count: its events are taken to carry the tokens that the other
    requests' events carried on average.
    """
    usual = tokens_per_event(records) or 1.0
    output = prompt = 0.0
    for record in records:
        if not record.event_offsets_ns or record.t_first is None:
            continue
        arrivals = np.asarray(record.event_offsets_ns, dtype=np.int64) + (record.t_send + record.wall_offset_ns)
        inside = int(np.count_nonzero((arrivals > window.start_ns) & (arrivals <= window.end_ns)))
        each = usual if record.output_tokens is None else record.output_tokens / len(arrivals)
        output += inside * each
        if window.start_ns < arrivals[0] <= window.end_ns:
            prompt += record.prompt_tokens if record.prompt_tokens is not None else record.prompt_tokens_wanted
    return output, prompt


def summarise(
    blocks: Sequence[tuple[Sequence[RequestRecord], Sequence[RequestRecord], Window | None]],
    slo: Slo | None = None,
) -> CellSummary:
    """Summarise one or more blocks of the same engine and cell.

    Args:
        blocks: for each block (all its records, its measured records, its window). Latencies come from the
            measured records that succeeded; throughput from all records, clipped to the window.
        slo: the scenario's, where it has one.
    """
    measured = [record for _, chosen, _ in blocks for record in chosen]
    good = [record for record in measured if record.ok]
    seconds = output = prompt = finished = 0.0
    finished_met = 0
    batches: list[Batch] = []
    for every, chosen, window in blocks:
        if window is None or window.end_ns <= window.start_ns:
            continue
        seconds += window.seconds
        if window.batches:
            batches += batches_of(chosen)
        block_output, block_prompt = tokens_in_window(every, window)
        output += block_output
        prompt += block_prompt
        # The warm-up request whose end opens the window is not in it, or n requests would count as n + 1.
        ended = [r for r in every if r.ok and window.start_ns < r.t_done + r.wall_offset_ns <= window.end_ns]
        finished += len(ended)
        if slo is not None:
            finished_met += sum(meets(r, slo) for r in behind_pairs(ended))
    return CellSummary(
        requests=len(measured),
        errors=dict(Counter(record.error for record in measured if record.error is not None)),
        window_s=seconds or None,
        ttft_ms=Distribution.of(_values(map(ttft_ms, good))),
        ttft_from_intended_ms=Distribution.of(_values(map(ttft_from_intended_ms, good))),
        tpot_ms=Distribution.of(tpots_ms(good)),
        itl_ms=Distribution.of(_all_gaps_ms(good)),
        e2e_ms=Distribution.of(_values(map(e2e_ms, good))),
        output_tokens_per_s=output / seconds if seconds else None,
        total_tokens_per_s=(output + prompt) / seconds if seconds else None,
        requests_per_s=finished / seconds if seconds else None,
        tokens_per_event=tokens_per_event(good),
        prompt_tokens=sum(record.prompt_tokens or 0 for record in good),
        output_tokens=sum(record.output_tokens or 0 for record in good),
        no_tpot=no_tpot(good),
        tpot_basis=dict(Counter(str(record.tpot_basis) for record in good if record.tpot_basis)),
        finish_reasons=dict(Counter(record.finish_reason for record in measured if record.finish_reason is not None)),
        answer_ms=Distribution.of(_values(map(answer_ms, good))) if any(map(_reasoned, good)) else None,
        reasoning_tokens=sum(record.reasoning_tokens or 0 for record in good),
        batches=BatchFigures.of(batches) if any(window and window.batches for *_, window in blocks) else None,
        slo=slo_figures(measured, finished_met, seconds, slo) if slo is not None else None,
    )
