"""What an engine's metrics page says, under the same names for every engine; and what the GPU exporter's page says.

A page is a stranger's: it is bounded, a value that cannot be is none, and a line that cannot be read is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from loadgen.message import say

MAX_SERIES = 5000
"""Of those that are looked for; an engine has one for each model and rank."""
LARGEST = 1e21
"""NVLink's counters may stand for years of a card's life: a busy one passes 1e18 bytes in weeks."""

Reading = dict[str, float]
"""Values by our names; what a page does not tell is not in it."""
Labelled = tuple[Mapping[str, str], float]

# By engine, our names and the series they are made of, each with its factor; a name's series are summed over models and
# ranks. Names as in docs/metrics.md. vLLM, KsanaLLM and llama.cpp: from their own pages; SGLang: read from its source.
NAMES: dict[str, dict[str, dict[str, int]]] = {
    "vllm": {
        "ttft_s": {"vllm:time_to_first_token_seconds_sum": 1},
        "ttft_n": {"vllm:time_to_first_token_seconds_count": 1},
        "queue_s": {"vllm:request_queue_time_seconds_sum": 1},
        "queue_n": {"vllm:request_queue_time_seconds_count": 1},
        "prompt_tokens": {"vllm:prompt_tokens_total": 1},
        "output_tokens": {"vllm:generation_tokens_total": 1},
        "hits": {"vllm:prefix_cache_hits_total": 1},
        "queries": {"vllm:prefix_cache_queries_total": 1},
        "recomputed": {"vllm:num_preemptions_total": 1},
        "running": {"vllm:num_requests_running": 1},
        "waiting": {"vllm:num_requests_waiting": 1},
        "steps": {"vllm:iteration_tokens_total_count": 1},
        "kv_used": {"vllm:kv_cache_usage_perc": 1},
    },
    "ksana": {
        "ttft_s": {"ksana_time_to_first_token_seconds_sum": 1},
        "ttft_n": {"ksana_time_to_first_token_seconds_count": 1},
        "queue_s": {"ksana_batch_manager_schedule_seconds_sum": 1},
        "queue_n": {"ksana_batch_manager_schedule_seconds_count": 1},
        "prompt_tokens": {"ksana_computed_input_token_num_total": 1},
        "output_tokens": {"ksana_computed_output_token_num_total": 1},
        # What it had is what it did not compute, of all tokens but an answer's first. Its own count of hits rises at
        # every attempt to launch a request.
        "hits": {
            "ksana_computed_input_token_num_total": 1,
            "ksana_computed_output_token_num_total": 1,
            "ksana_batch_manager_schedule_seconds_count": -1,
            "ksana_forwarding_token_num_total": -1,
        },
        "queries": {"ksana_computed_input_token_num_total": 1},
        "recomputed": {"ksana_recompute_request_num_total": 1},
        "swapped": {"ksana_swapout_request_num_total": 1},
        "running_sum": {"ksana_batch_scheduler_batch_size_sum": 1},
        "running_n": {"ksana_batch_scheduler_batch_size_count": 1},
        "waiting_sum": {"ksana_batch_scheduler_waiting_size_sum": 1},
        "waiting_n": {"ksana_batch_scheduler_waiting_size_count": 1},
    },
    "llamacpp": {
        "prompt_tokens": {"llamacpp:prompt_tokens_total": 1, "llamacpp:prompt_tokens_cached_total": 1},
        "output_tokens": {"llamacpp:tokens_predicted_total": 1},
        "hits": {"llamacpp:prompt_tokens_cached_total": 1},
        "queries": {"llamacpp:prompt_tokens_total": 1, "llamacpp:prompt_tokens_cached_total": 1},
        "running": {"llamacpp:requests_processing": 1},
        "waiting": {"llamacpp:requests_deferred": 1},
    },
    "sglang": {
        "ttft_s": {"sglang:time_to_first_token_seconds_sum": 1},
        "ttft_n": {"sglang:time_to_first_token_seconds_count": 1},
        "queue_s": {"sglang:queue_time_seconds_sum": 1},
        "queue_n": {"sglang:queue_time_seconds_count": 1},
        "prompt_tokens": {"sglang:prompt_tokens_total": 1},
        "output_tokens": {"sglang:generation_tokens_total": 1},
        "hits": {"sglang:cached_tokens_total": 1},
        "queries": {"sglang:prompt_tokens_total": 1},
        "running": {"sglang:num_running_reqs": 1},
        "waiting": {"sglang:num_queue_reqs": 1},
        "kv_used": {"sglang:token_usage": 1},
    },
}
FROM_ZERO = {"ksana_recompute_request_num_total", "ksana_swapout_request_num_total", "sglang:cached_tokens_total"}
"""Counters that begin with the first event: a page without one has counted none."""
FULLEST = {"kv_used"}
"""Of several ranks the highest counts, not the sum."""
COUNTERS = frozenset(
    {"ttft_s", "ttft_n", "queue_s", "queue_n", "prompt_tokens", "output_tokens", "queries", "recomputed", "swapped"}
    | {"running_sum", "running_n", "waiting_sum", "waiting_n", "steps"}
)
"""Names that never fall unless the engine was started anew. KsanaLLM's hits are a difference, and may for a moment."""
SERIES = {series: engine for engine, names in NAMES.items() for made_of in names.values() for series in made_of}

HELD = ("power_cap", "hardware_slowdown", "software_thermal", "hardware_thermal", "power_brake", "sync_boost")
"""Reasons for which a GPU's clocks are held down, without those that are settings."""
OF_CARDS = (
    ("gpu_joules", "bakeoff_gpu_energy_joules_total", "", ""),
    ("gpu_watts", "bakeoff_gpu_power_watts", "", ""),
    ("gpu_peak", "bakeoff_gpu_memory_peak_bytes", "", ""),
    ("gpu_sm_hz", "bakeoff_gpu_clock_hertz", "clock", "sm"),
    ("gpu_nvlink_tx", "bakeoff_gpu_nvlink_bytes_total", "direction", "transmit"),
    ("gpu_nvlink_rx", "bakeoff_gpu_nvlink_bytes_total", "direction", "receive"),
    ("gpu_pcie_tx", "bakeoff_gpu_pcie_bytes_per_second", "direction", "transmit"),
    ("gpu_pcie_rx", "bakeoff_gpu_pcie_bytes_per_second", "direction", "receive"),
    *((f"gpu_held_{reason}", "bakeoff_gpu_throttle", "reason", reason) for reason in HELD),
)
"""Of each card: our name, the series, and which value of which label of it."""
GPU_SERIES = {
    "bakeoff_gpu_devices",
    "bakeoff_gpu_engine_memory_bytes",
    "bakeoff_gpu_engine_processes",
    "bakeoff_gpu_memory_used_bytes",
    *(series for _, series, _, _ in OF_CARDS),
}


class PageError(Exception):
    """A page cannot be used; the text says why."""


def read_engine(text: str, label: str) -> Reading:
    """The figures of an engine's page.

    Args:
        text: the page, in Prometheus' text format.
        label: the engine as KsanaLLM's exporter calls it, where its page has several.

    Raises:
        PageError: the page is cut off, is no engine's that we know, or does not say which engine it is of.
    """
    found = _series(text, SERIES)
    engine = next((SERIES[series] for series in found), None)
    if engine is None:
        raise PageError(
            say("it has no figure of vLLM, KsanaLLM (its exporter's page), llama.cpp or SGLang that is known here")
        )
    if engine == "ksana":
        found = _of_engine(found, label)
    reading: Reading = {}
    for name, made_of in NAMES[engine].items():
        if not all(series in found or series in FROM_ZERO for series in made_of):
            continue
        values = {series: [value for _, value in found.get(series, ())] for series in made_of}
        join = (lambda one: max(one, default=0.0)) if name in FULLEST else sum
        reading[name] = float(sum(factor * join(values[series]) for series, factor in made_of.items()))
    return reading


def read_gpus(text: str, labels: Sequence[str]) -> Reading:
    """The figures of the GPU exporter's page.

    `gpu_memory` is of the engine's own processes and absent where the exporter does not tell whose they are;
    `gpu_memory_all` is of all GPUs. By GPU: `gpu_on:N` is 1 where the engine has processes on it, `gpu_own:N` its
    processes' memory there, and all of `OF_CARDS`, such as `gpu_joules:N`.

    Args:
        text: the page.
        labels: what the exporter may call the engine, best first.

    Raises:
        PageError: it is not the GPU exporter's page, or cut off.
    """
    found = _series(text, GPU_SERIES)
    if not found:
        raise PageError(say("it is not the page of Bakeoff's GPU exporter"))
    own = found.get("bakeoff_gpu_engine_processes", [])
    named = {labels_.get("engine") for labels_, value in own if value > 0}
    label = next((label for label in labels if label in named), None)
    reading: Reading = {}
    whole = found.get("bakeoff_gpu_memory_peak_bytes") or found.get("bakeoff_gpu_memory_used_bytes")
    if whole:
        reading["gpu_memory_all"] = sum(value for _, value in whole)
    if label is not None:
        held = [pair for pair in found.get("bakeoff_gpu_engine_memory_bytes", ()) if pair[0].get("engine") == label]
        if held:
            reading["gpu_memory"] = sum(value for _, value in held)
        reading |= {f"gpu_own:{labels_.get('gpu', '')}": value for labels_, value in held}
    for labels_, value in own:
        if labels_.get("engine") == label and value > 0:
            reading[f"gpu_on:{labels_.get('gpu', '')}"] = 1.0
    for name, series, key, wanted in OF_CARDS:
        for labels_, value in found.get(series, ()):
            if labels_.get(key, "") == wanted:
                reading[f"{name}:{labels_.get('gpu', '')}"] = value
    return reading


def _of_engine(found: Mapping[str, list[Labelled]], label: str) -> dict[str, list[Labelled]]:
    """The series of one engine on the page of an exporter that many may push to."""
    names = sorted({labels.get("engine", "") for series in found.values() for labels, _ in series})
    if label not in names:
        if len(names) > 1:
            raise PageError(say("it has figures of {names}, and of no {name}", names=", ".join(names), name=label))
        label = names[0]
    kept = {name: [pair for pair in series if pair[0].get("engine", "") == label] for name, series in found.items()}
    return {name: series for name, series in kept.items() if series}


def _series(text: str, wanted: Iterable[str]) -> dict[str, list[Labelled]]:
    """The series with these names. Raises PageError: the page ends in the middle, or has too many of them."""
    if text and not text.endswith("\n"):
        raise PageError(say("its answer ends in the middle"))
    names, left = frozenset(wanted), MAX_SERIES
    found: dict[str, list[Labelled]] = {}
    for line in text.split("\n"):
        if line.partition("{")[0].partition(" ")[0] not in names:
            continue
        left -= 1
        if left < 0:
            raise PageError(say("it has more than {count} series of one kind", count=MAX_SERIES))
        try:
            samples = [sample for family in text_string_to_metric_families(line + "\n") for sample in family.samples]
        except (ValueError, IndexError, KeyError):
            continue
        for sample in samples:
            value = float(sample.value)
            if math.isfinite(value) and 0 <= value <= LARGEST:
                found.setdefault(sample.name, []).append((sample.labels, value))
    return found
