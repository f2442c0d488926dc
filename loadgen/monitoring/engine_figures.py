"""An engine's own figures over a block, and over the blocks of a cell, from what was read of it meanwhile.

Counters are read at both ends of the window on a straight line between readings, as energy is. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loadgen.metrics.definitions import ttft_ms
from loadgen.metrics.summary import tokens_in_window
from loadgen.metrics.window import Window
from loadgen.monitoring.card_figures import SCOPES, CardFigures, GpuScope, card_figures, gpu_tally, of_gpus
from loadgen.monitoring.engine_page import COUNTERS
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.monitoring.tally import Tally, fell, integral, mean, near, peak, reached, rise
from loadgen.record import RequestRecord
from loadgen.runs.folder import BlockData


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
    cards: tuple[CardFigures, ...] = ()
    """Each of these GPUs."""


def tally(block: BlockData, samples: BlockSamples) -> Tally | None:
    """Sum up a block; None where its window or readings of it are missing."""
    window = block.cut.window
    if window is None or window.end_ns <= window.start_ns:
        return None
    start, end = window.start_ns / 1e9, window.end_ns / 1e9
    own, gpu = _own(block.records, samples, start, end), gpu_tally(samples, start, end)
    if own is None and gpu is None:
        return None
    own, gpu = own or Tally({}, {}, 0.0), gpu or Tally({}, {}, 0.0)
    sums, peaks = {**own.sums, **gpu.sums}, {**own.peaks, **gpu.peaks}
    return Tally(sums, peaks, own.seconds or end - start, 1, own.restarted, gpu.cards)


def figures(found: Tally) -> EngineFigures:
    """Make figures of sums."""
    sums, peaks = found.sums, found.peaks
    ttft, client = mean(sums, "ttft_s", "ttft_n", 1000), mean(sums, "client_ttft_ms", "client_ttft_n")
    scope: GpuScope | None = next((each for each in SCOPES if f"watts_s:{each}" in sums or each in peaks), None)
    hits = mean(sums, "block_hits", "block_queries")
    return EngineFigures(
        seconds=found.seconds,
        blocks=found.blocks,
        ttft_ms=ttft,
        client_ttft_ms=None if ttft is None else client,
        residual_ms=None if ttft is None or client is None else client - ttft,
        queue_ms=mean(sums, "queue_s", "queue_n", 1000),
        prefix_hits=None if hits is None else min(max(hits, 0.0), 1.0),
        preemptions=sums.get("recomputed"),
        swaps=sums.get("swapped"),
        waiting=mean(sums, "waiting_sum", "waiting_n") if "waiting_n" in sums else mean(sums, "waiting", "gauge_s"),
        waiting_peak=peaks.get("waiting"),
        running=mean(sums, "running_sum", "running_n") if "running_n" in sums else mean(sums, "running", "gauge_s"),
        kv_used_peak=peaks.get("kv_used"),
        prompt_tokens=sums.get("prompt_tokens"),
        output_tokens=sums.get("output_tokens"),
        client_prompt_tokens=sums.get("client_prompt_tokens"),
        client_output_tokens=sums.get("client_output_tokens"),
        gpu_memory_peak_bytes=peaks.get(scope or ""),
        gpu_power_watts=mean(sums, f"watts_s:{scope}", f"gpu_s:{scope}"),
        gpu_scope=scope,
        cards=card_figures(found.cards),
    )


def _own(records: Sequence[RequestRecord], samples: BlockSamples, start: float, end: float) -> Tally | None:
    """Of the engine's own page, and of the client over the very same time."""
    moments = [at for at, reading in samples.rows if not of_gpus(next(iter(reading), ""))]
    span = reached(moments, start, end)
    if span is None:
        return None
    sums = _client(records, *span)
    peaks: dict[str, float] = {}
    restarted = any(fell(near(samples.points(name), *span)) for name in COUNTERS)
    for name in sorted(samples.names):
        if of_gpus(name):
            continue
        points = samples.points(name)
        if name in COUNTERS and not restarted:
            risen = rise(points, *span)
            if risen is not None:
                sums[name] = risen
        elif name not in COUNTERS and name != "hits":
            sums[name] = integral(points, *span)
            most = peak(points, *span)
            peaks |= {} if most is None else {name: most}
    sums["gauge_s"] = span[1] - span[0]
    hits, queries = samples.points("hits"), samples.points("queries")
    if len(hits) > 1 and len(queries) > 1 and not fell(queries):
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
