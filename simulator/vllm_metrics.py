"""vLLM's own `/metrics`: the names, help, labels and buckets that version 0.24 serves, from cheap counters."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.batching import Step
    from simulator.truth import RequestTruth

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
E2E = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
# Name without `vllm:`, help, bounds; in vLLM's order.
HISTOGRAMS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("request_prompt_tokens", "Number of prefill tokens processed.", TOKENS),
    ("request_generation_tokens", "Number of generation tokens processed.", TOKENS),
    ("iteration_tokens_total", "Histogram of number of tokens per engine_step.", ITERATION),
    ("request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", TOKENS),
    ("request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20)),
    ("request_params_max_tokens", "Histogram of the max_tokens request parameter.", TOKENS),
    ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", TTFT),
    ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", ITL),
    ("request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", ITL),
    ("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", E2E),
    ("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", E2E),
    ("request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", E2E),
    ("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", E2E),
    ("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", E2E),
    ("request_prefill_kv_computed_tokens",
     "Histogram of new KV tokens computed during prefill (excluding cached tokens).", TOKENS),
)  # fmt: skip
REASONS = ("stop", "length", "abort", "error", "repetition")


class Histogram:
    """Counts by bucket and a sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class VllmMetrics:
    """Fed by streams and steps, rendered on a scrape."""

    def __init__(self, model: str, block_tokens: int, kv_blocks: int) -> None:
        self.created = time.time()
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.preemptions = self.cache_queries = self.cache_hits = 0
        self.finished_by = dict.fromkeys(REASONS, 0)
        self.histograms = {name: Histogram(bounds) for name, _, bounds in HISTOGRAMS}
        self._ttft = self.histograms["time_to_first_token_seconds"]
        self._itl = self.histograms["inter_token_latency_seconds"]
        self._model = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._cache = (block_tokens, kv_blocks)
        self.batching = False

    def first(self, ttft: int, prompt_tokens: int, tokens: int) -> None:
        """Observe a first content event."""
        self.prompt_tokens += prompt_tokens
        self.generation_tokens += tokens
        self._ttft.observe(ttft / 1e9)
        if not self.batching:
            self.histograms["iteration_tokens_total"].observe(prompt_tokens + tokens)

    def gap(self, ns: int, tokens: int, events: int) -> None:
        """Observe further content events."""
        self.generation_tokens += tokens
        self._itl.observe(ns / 1e9)
        if events > 1:
            self._itl.observe(0.0, events - 1)
        if not self.batching and tokens:
            self.histograms["iteration_tokens_total"].observe(tokens / events, events)

    def finished(self, truth: RequestTruth, t_first: int, t_last: int, queued: int, reason: str) -> None:
        """Observe a request's end."""
        self.finished_by[reason] += 1
        if not t_first or reason == "abort":
            return
        tokens = truth.tokens_written
        e2e, queue = (t_last - truth.t_arrived) / 1e9, queued / 1e9
        decode = (t_last - t_first) / 1e9
        values = {
            "request_prompt_tokens": truth.prompt_tokens,
            "request_generation_tokens": tokens,
            "request_max_num_generation_tokens": truth.output_tokens,
            "request_params_n": 1,
            "request_params_max_tokens": truth.output_tokens,
            "request_time_per_output_token_seconds": decode / (tokens - 1) if tokens > 1 else 0.0,
            "e2e_request_latency_seconds": e2e,
            "request_queue_time_seconds": queue,
            "request_inference_time_seconds": e2e - queue,
            "request_prefill_time_seconds": e2e - queue - decode,
            "request_decode_time_seconds": decode,
            "request_prefill_kv_computed_tokens": truth.prompt_tokens,
        }
        for name, value in values.items():
            self.histograms[name].observe(value)

    def step(self, step: Step, running: int, waiting: int, swapped: int) -> None:
        """Observe one step of the batching model."""
        self.preemptions += len(step.plan.preempted)
        for sequence in step.plan.admitted:
            if sequence.ids and not sequence.preemptions:
                self.cache_queries += sequence.prompt
                self.cache_hits += sequence.cached
        self.histograms["iteration_tokens_total"].observe(step.prefill_tokens + len(step.outputs))

    def render(self, running: int, waiting: int, kv_usage: float) -> bytes:
        """Return the page. Well under 2 ms."""
        out: list[str] = []
        base = f'engine="0",model_name="{self._model}"'

        def family(name: str, kind: str, text: str, rows: list[tuple[str, float]], *, created: bool = False) -> None:
            out.append(f"# HELP vllm:{name} {text}\n# TYPE vllm:{name} {kind}\n")
            out.extend(f"vllm:{name}{{{labels}}} {float(value)!r}\n" for labels, value in rows)
            if created:
                stem = name.removesuffix("_total")
                rows = [(labels, self.created) for labels, _ in rows]
                family(f"{stem}_created", "gauge", text, rows)

        def counter(name: str, text: str, value: float) -> None:
            family(name, "counter", text, [(base, value)], created=True)

        family("num_requests_running", "gauge", "Number of requests in model execution batches.", [(base, running)])
        family("num_requests_waiting", "gauge", "Number of requests waiting to be processed.", [(base, waiting)])
        family(
            "num_requests_waiting_by_reason",
            "gauge",
            "Number of waiting requests by reason.",
            [(f'{base},reason="capacity"', waiting), (f'{base},reason="deferred"', 0)],
        )
        family("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", [(base, kv_usage)])
        queries = "Prefix cache queries, in terms of number of queried tokens."
        counter("prefix_cache_queries_total", queries, self.cache_queries)
        counter("prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.", self.cache_hits)
        counter("num_preemptions_total", "Cumulative number of preemption from the engine.", self.preemptions)
        counter("prompt_tokens_total", "Number of prefill tokens processed.", self.prompt_tokens)
        counter("prompt_tokens_cached_total", "Number of cached prompt tokens (local + external).", self.cache_hits)
        counter("generation_tokens_total", "Number of generation tokens processed.", self.generation_tokens)
        rows: list[tuple[str, float]] = [
            (f'engine="0",finished_reason="{reason}",model_name="{self._model}"', count)
            for reason, count in self.finished_by.items()
        ]
        family("request_success_total", "counter", "Count of successfully processed requests.", rows, created=True)
        for name, text, _ in HISTOGRAMS:
            self._render_histogram(name, text, out)
            family(f"{name}_created", "gauge", text, [(base, self.created)])
        block, blocks = self._cache
        info = f'block_size="{block}",enable_prefix_caching="False",engine="0",num_gpu_blocks="{blocks}"'
        family("cache_config_info", "gauge", "Information of the LLMEngine CacheConfig", [(info, 1)])
        return "".join(out).encode()

    def _render_histogram(self, name: str, text: str, out: list[str]) -> None:
        histogram = self.histograms[name]
        out.append(f"# HELP vllm:{name} {text}\n# TYPE vllm:{name} histogram\n")
        total = 0
        ends: list[str] = [repr(float(bound)) for bound in histogram.bounds] + ["+Inf"]
        for bound, count in zip(ends, histogram.counts, strict=True):
            total += count
            labels = f'engine="0",le="{bound}",model_name="{self._model}"'
            out.append(f"vllm:{name}_bucket{{{labels}}} {float(total)!r}\n")
        base = f'{{engine="0",model_name="{self._model}"}}'
        out.append(f"vllm:{name}_count{base} {float(total)!r}\nvllm:{name}_sum{base} {histogram.sum!r}\n")
