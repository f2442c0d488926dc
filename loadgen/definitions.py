"""The definitions of every metric. All other numbers derive from these; the report prints `DEFINITIONS`.

Times are nanoseconds in records and milliseconds in summaries.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from loadgen.record import RequestRecord
from loadgen.window import Window

DEFINITIONS: dict[str, str] = {
    "TTFT": "time to first token: arrival of the first content event minus the moment just before the first "
    "byte of the request was written. An empty role event is never a first token; connection set-up is not in it.",
    "TTFT from intended": "the same, counted from when the schedule wanted the request, so that a client that "
    "starts late cannot hide queueing. Equal to TTFT in a closed loop.",
    "TPOT": "time per output token: (arrival of the last content event - arrival of the first) / (output tokens - 1).",
    "ITL": "inter-token latency: the gaps between successive content events, always to be read with tokens per "
    "event, because an engine may put several tokens into one event.",
    "E2E": "end-to-end latency: arrival of the last content event minus the moment of sending.",
    "output tokens": "the server's usage.completion_tokens; where it sends none, the model's tokenizer over the text.",
    "output throughput": "output tokens that arrived inside the window / the window's length. Each request's tokens "
    "are spread evenly over its content events and counted by the event's arrival.",
    "total throughput": "output throughput plus the prompt tokens of the requests whose first content event arrived "
    "inside the window / the window's length.",
    "requests per second": "requests that finished inside the window without an error / the window's length.",
    "window": "from the moment when every user has finished its warm-up requests until the last measured request "
    "ends; all users stay busy throughout.",
    "measured request": "the first N requests sent inside the window, failures included.",
}

PERCENTILES = (50, 90, 95, 99)
Floats = npt.NDArray[np.float64]
NS_PER_MS = 1e6


def ttft_ms(record: RequestRecord) -> float | None:
    """Time to first token in ms, or None when no content event arrived."""
    return None if record.t_first is None else (record.t_first - record.t_send) / NS_PER_MS


def ttft_from_intended_ms(record: RequestRecord) -> float | None:
    """Time to first token in ms counted from the schedule, or None when no content event arrived."""
    return None if record.t_first is None else (record.t_first - record.t_intended) / NS_PER_MS


def tpot_ms(record: RequestRecord) -> float | None:
    """Time per output token in ms; None when there are fewer than two tokens or they are not known."""
    if record.t_first is None or record.t_last is None or record.output_tokens is None or record.output_tokens < 2:
        return None
    return (record.t_last - record.t_first) / NS_PER_MS / (record.output_tokens - 1)


def e2e_ms(record: RequestRecord) -> float | None:
    """End-to-end latency in ms, or None when no content event arrived."""
    return None if record.t_last is None else (record.t_last - record.t_send) / NS_PER_MS


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


def _values(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def tokens_per_event(records: Iterable[RequestRecord]) -> float | None:
    """Mean output tokens a content event, over the requests whose token count is known."""
    tokens = events = 0
    for record in records:
        if record.output_tokens is not None and record.events:
            tokens += record.output_tokens
            events += record.events
    return tokens / events if events else None


def tokens_in_window(records: Sequence[RequestRecord], window: Window) -> tuple[float, float]:
    """Return (output tokens, prompt tokens) that fall inside the window; see `DEFINITIONS`.

    A request that was cut off has no token count: its events are taken to carry the tokens that the other
    requests' events carried on average.
    """
    usual = tokens_per_event(records) or 1.0
    output = prompt = 0.0
    for record in records:
        if not record.event_offsets_ns or record.t_first is None:
            continue
        arrivals = np.asarray(record.event_offsets_ns, dtype=np.int64) + (record.t_send + record.wall_offset_ns)
        inside = int(np.count_nonzero((arrivals >= window.start_ns) & (arrivals <= window.end_ns)))
        each = usual if record.output_tokens is None else record.output_tokens / len(arrivals)
        output += inside * each
        if window.start_ns <= arrivals[0] <= window.end_ns:
            prompt += record.prompt_tokens if record.prompt_tokens is not None else record.prompt_tokens_wanted
    return output, prompt


def summarise(
    blocks: Sequence[tuple[Sequence[RequestRecord], Sequence[RequestRecord], Window | None]],
) -> CellSummary:
    """Summarise one or more blocks of the same engine and cell.

    Args:
        blocks: for each block (all its records, its measured records, its window). Latencies come from the
            measured records that succeeded; throughput from all records, clipped to the window.
    """
    measured = [record for _, chosen, _ in blocks for record in chosen]
    good = [record for record in measured if record.ok]
    seconds = output = prompt = finished = 0.0
    for every, _, window in blocks:
        if window is None or window.end_ns <= window.start_ns:
            continue
        seconds += (window.end_ns - window.start_ns) / 1e9
        block_output, block_prompt = tokens_in_window(every, window)
        output += block_output
        prompt += block_prompt
        finished += sum(r.ok and window.start_ns <= r.t_done + r.wall_offset_ns <= window.end_ns for r in every)
    gaps = [itl_ms(record) for record in good if record.events > 1]
    return CellSummary(
        requests=len(measured),
        errors=dict(Counter(record.error for record in measured if record.error is not None)),
        window_s=seconds or None,
        ttft_ms=Distribution.of(_values(map(ttft_ms, good))),
        ttft_from_intended_ms=Distribution.of(_values(map(ttft_from_intended_ms, good))),
        tpot_ms=Distribution.of(_values(map(tpot_ms, good))),
        itl_ms=Distribution.of(np.concatenate(gaps) if gaps else []),
        e2e_ms=Distribution.of(_values(map(e2e_ms, good))),
        output_tokens_per_s=output / seconds if seconds else None,
        total_tokens_per_s=(output + prompt) / seconds if seconds else None,
        requests_per_s=finished / seconds if seconds else None,
        tokens_per_event=tokens_per_event(good),
        prompt_tokens=sum(record.prompt_tokens or 0 for record in good),
        output_tokens=sum(record.output_tokens or 0 for record in good),
    )
