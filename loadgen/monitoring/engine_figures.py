"""An engine's own figures over a block, and over the blocks of a cell, from what was read of it meanwhile.

Counters are read at both ends of the window on a straight line between readings, as energy is. Pure.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from loadgen.metrics.definitions import ttft_ms
from loadgen.metrics.summary import tokens_in_window
from loadgen.metrics.window import Window
from loadgen.monitoring.engine_page import COUNTERS
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.record import RequestRecord
from loadgen.runs.folder import BlockData

COVERED = 0.9
"""Share of a window that readings must reach over."""
WIDEST_GAP_S, WIDEST_GAP_SHARE = 10.0, 0.25
"""Widest pause between two readings, the longer of both: beyond it nobody knows what was between."""

Points = Sequence[tuple[float, float]]
GpuScope = Literal["engine", "all"]


@dataclasses.dataclass(frozen=True, slots=True)
class EngineFigures:
    """What an engine says of itself over some time. None is what it does not tell, or could not be had."""

    seconds: float
    """How long it was looked at."""
    blocks: int = 1
    ttft_ms: float | None = None
    """Mean over the requests that got their first token meanwhile."""
    client_ttft_ms: float | None = None
    """The client's mean over the requests whose first content arrived meanwhile."""
    residual_ms: float | None = None
    """The client's less the engine's."""
    queue_ms: float | None = None
    """Mean wait of a request until it was scheduled."""
    prefix_hits: float | None = None
    """Share of the prompt tokens that the prefix cache had, over the whole block."""
    preemptions: float | None = None
    """Requests whose KV cache was taken and computed again later."""
    swaps: float | None = None
    """Requests whose KV cache was moved to host memory."""
    waiting: float | None = None
    """Mean number of requests in its queue."""
    waiting_peak: float | None = None
    running: float | None = None
    """Mean number of requests in its batch."""
    kv_used_peak: float | None = None
    """Highest share of the KV cache in use."""
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    client_prompt_tokens: float | None = None
    client_output_tokens: float | None = None
    """What the client counted meanwhile."""
    gpu_memory_peak_bytes: float | None = None
    gpu_power_watts: float | None = None
    gpu_scope: GpuScope | None = None
    """Whether the GPU figures are of the engine's own processes and GPUs, or of all GPUs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tally:
    """What figures are made of: sums, which add up over blocks, and peaks."""

    sums: Mapping[str, float]
    """Of counters their rise, of gauges their integral over time; and what the client counted."""
    peaks: Mapping[str, float]
    seconds: float
    blocks: int = 1
    restarted: bool = False
    """Whether a counter began again, so that there are none."""

    def plus(self, other: Tally) -> Tally:
        """Both together: what one of them does not have is not known of both."""
        return Tally(
            {name: self.sums[name] + other.sums[name] for name in self.sums if name in other.sums},
            {name: max(self.peaks[name], other.peaks[name]) for name in self.peaks if name in other.peaks},
            self.seconds + other.seconds,
            self.blocks + other.blocks,
            self.restarted or other.restarted,
        )


def tally(block: BlockData, samples: BlockSamples) -> Tally | None:
    """Sum up a block; None where its window or readings of it are missing."""
    window = block.cut.window
    if window is None or window.end_ns <= window.start_ns:
        return None
    start, end = window.start_ns / 1e9, window.end_ns / 1e9
    own, gpu = _own(block.records, samples, start, end), _gpus(samples, start, end)
    if own is None and gpu is None:
        return None
    own, gpu = own or Tally({}, {}, 0.0), gpu or Tally({}, {}, 0.0)
    return Tally({**own.sums, **gpu.sums}, {**own.peaks, **gpu.peaks}, own.seconds or end - start, 1, own.restarted)


def figures(found: Tally) -> EngineFigures:
    """Make figures of sums."""
    sums, peaks = found.sums, found.peaks
    ttft, client = _mean(sums, "ttft_s", "ttft_n", 1000), _mean(sums, "client_ttft_ms", "client_ttft_n")
    scope: GpuScope | None = next((each for each in _scopes if f"watts_s:{each}" in sums or each in peaks), None)
    hits = _mean(sums, "block_hits", "block_queries")
    return EngineFigures(
        seconds=found.seconds,
        blocks=found.blocks,
        ttft_ms=ttft,
        client_ttft_ms=None if ttft is None else client,
        residual_ms=None if ttft is None or client is None else client - ttft,
        queue_ms=_mean(sums, "queue_s", "queue_n", 1000),
        prefix_hits=None if hits is None else min(max(hits, 0.0), 1.0),
        preemptions=sums.get("recomputed"),
        swaps=sums.get("swapped"),
        waiting=_mean(sums, "waiting_sum", "waiting_n") if "waiting_n" in sums else _mean(sums, "waiting", "gauge_s"),
        waiting_peak=peaks.get("waiting"),
        running=_mean(sums, "running_sum", "running_n") if "running_n" in sums else _mean(sums, "running", "gauge_s"),
        kv_used_peak=peaks.get("kv_used"),
        prompt_tokens=sums.get("prompt_tokens"),
        output_tokens=sums.get("output_tokens"),
        client_prompt_tokens=sums.get("client_prompt_tokens"),
        client_output_tokens=sums.get("client_output_tokens"),
        gpu_memory_peak_bytes=peaks.get(scope or ""),
        gpu_power_watts=_mean(sums, f"watts_s:{scope}", f"gpu_s:{scope}"),
        gpu_scope=scope,
    )


_scopes: tuple[GpuScope, ...] = ("engine", "all")


def _mean(sums: Mapping[str, float], above: str, below: str, factor: float = 1.0) -> float | None:
    """A quotient; None where there is nothing to divide by."""
    if above not in sums or sums.get(below, 0.0) <= 0:
        return None
    return factor * sums[above] / sums[below]


def _own(records: Sequence[RequestRecord], samples: BlockSamples, start: float, end: float) -> Tally | None:
    """Of the engine's own page, and of the client over the very same time."""
    moments = [at for at, reading in samples.rows if not _of_gpus(next(iter(reading), ""))]
    span = _span(moments, start, end)
    if span is None:
        return None
    sums = _client(records, *span)
    peaks: dict[str, float] = {}
    restarted = any(_fell(_near(samples.points(name), *span)) for name in COUNTERS)
    for name in sorted(samples.names):
        if _of_gpus(name):
            continue
        points = samples.points(name)
        if name in COUNTERS and not restarted:
            rise = _rise(points, *span)
            if rise is not None:
                sums[name] = rise
        elif name not in COUNTERS and name != "hits":
            sums[name] = _integral(points, *span)
            peak = _peak(points, *span)
            peaks |= {} if peak is None else {name: peak}
    sums["gauge_s"] = span[1] - span[0]
    hits, queries = samples.points("hits"), samples.points("queries")
    if len(hits) > 1 and len(queries) > 1 and not _fell(queries):
        sums |= {"block_hits": hits[-1][1] - hits[0][1], "block_queries": queries[-1][1] - queries[0][1]}
    return Tally(sums, peaks, span[1] - span[0], 1, restarted)


def _client(records: Sequence[RequestRecord], start: float, end: float) -> dict[str, float]:
    """What the client saw between two moments."""
    window = Window(round(start * 1e9), round(end * 1e9))
    output, prompt = tokens_in_window(records, window)
    first = [
        value
        for record in records
        if record.t_first is not None
        and window.start_ns < record.t_first + record.wall_offset_ns <= window.end_ns
        and (value := ttft_ms(record)) is not None
    ]
    return {
        "client_ttft_ms": sum(first),
        "client_ttft_n": len(first),
        "client_prompt_tokens": prompt,
        "client_output_tokens": output,
    }


def _of_gpus(name: str) -> bool:
    return name.startswith("gpu_")


def _gpus(samples: BlockSamples, start: float, end: float) -> Tally | None:
    """Of the GPU exporter's page: of the GPUs that the engine has processes on, and of all."""
    moments = [at for at, reading in samples.rows if _of_gpus(next(iter(reading), ""))]
    span = _span(moments, start, end)
    if span is None:
        return None
    sums: dict[str, float] = {}
    peaks: dict[str, float] = {}
    known = {name.partition(":")[2] for name in samples.names if name.startswith(("gpu_joules:", "gpu_watts:"))}
    own = {gpu for gpu in known if _peak(samples.points(f"gpu_on:{gpu}"), *span) is not None}
    for scope, memory, gpus in (("engine", "gpu_memory", own), ("all", "gpu_memory_all", known)):
        peak = _peak(samples.points(memory), *span)
        if peak is not None:
            peaks[scope] = peak
        joules = [_joules(samples, gpu, *span) for gpu in sorted(gpus)]
        if joules and all(one is not None for one in joules):
            sums |= {
                f"watts_s:{scope}": sum(one for one in joules if one is not None),
                f"gpu_s:{scope}": span[1] - span[0],
            }
    return Tally(sums, peaks, span[1] - span[0])


def _joules(samples: BlockSamples, gpu: str, start: float, end: float) -> float | None:
    """Energy by the counter, else by the power over time."""
    counted = samples.points(f"gpu_joules:{gpu}")
    if len(counted) > 1 and not _fell(_near(counted, start, end)):
        return _rise(counted, start, end)
    watts = samples.points(f"gpu_watts:{gpu}")
    return _integral(watts, start, end) if watts else None


def _span(moments: Sequence[float], start: float, end: float) -> tuple[float, float] | None:
    """The part of a window that readings reach over; None where that is not nearly all of it."""
    if len(moments) < 2:
        return None
    low, high = max(start, moments[0]), min(end, moments[-1])
    if high - low < COVERED * (end - start):
        return None
    inside = [at for at in moments if low < at < high]
    before = max((at for at in moments if at <= low), default=low)
    after = min((at for at in moments if at >= high), default=high)
    gap = max(np.diff([before, *inside, after]))
    return None if gap > max(WIDEST_GAP_S, WIDEST_GAP_SHARE * (end - start)) else (low, high)


def _near(points: Points, start: float, end: float) -> Points:
    """The readings between two moments, and the ones next to these."""
    at = [moment for moment, _ in points]
    first, last = int(np.searchsorted(at, start, side="right")) - 1, int(np.searchsorted(at, end))
    return points[max(first, 0) : last + 1]


def _fell(points: Points) -> bool:
    return any(after < before for (_, before), (_, after) in itertools.pairwise(points))


def _rise(points: Points, start: float, end: float) -> float | None:
    """By how much a counter rose; None where fewer than two readings have it."""
    if len(points) < 2:
        return None
    low, high = np.interp([start, end], [at for at, _ in points], [value for _, value in points])
    return float(high - low)


def _integral(points: Points, start: float, end: float) -> float:
    """A gauge times seconds, on straight lines between readings."""
    at, value = [moment for moment, _ in points], [reading for _, reading in points]
    moments = [start, *(moment for moment in at if start < moment < end), end]
    return float(np.trapezoid(np.interp(moments, at, value), moments))


def _peak(points: Points, start: float, end: float) -> float | None:
    """The highest reading between two moments; of none there, the higher of those next to them."""
    inside = [value for at, value in points if start <= at <= end]
    return max(inside or [value for _, value in _near(points, start, end)], default=None)
