"""The JSON that `vllm bench serve --save-result` writes, key by key (vLLM 0.32, `vllm/benchmarks/serve.py`).

What it says of the measured requests is by vLLM's own definitions, which are ours but for the throughputs: those of a
block are ours, of its window, because a block has requests before and behind the measured ones that keep it busy.
`duration` is the window, so `total_output_tokens / duration` is less than `output_throughput`.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadgen.metrics.definitions import e2e_ms, tpots_ms, ttft_ms
from loadgen.metrics.summary import BatchFigures, Floats, summarise
from loadgen.record import RequestRecord
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import Manifest

PERCENTILES = (50, 90, 95, 99)
"""As with `--percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,95,99`."""
BACKENDS = {"chat": "openai-chat", "completions": "openai"}
IN_WINDOW = "tokens and requests inside the window / window, warm-up and drain requests included"
IN_BATCHES = "tokens and requests of the measured batches / the time that these took"
DETAILS = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")
"""What vLLM leaves out without `--save-detailed`."""


def vllm_result(manifest: Manifest, block: BlockData, *, detailed: bool, client_limited: bool) -> dict[str, Any]:
    """Return one block as vLLM would write it. Keys that begin with `bakeoff_` are metadata, as of its `--metadata`."""
    facts, measured, window = block.facts, block.measured, block.cut.window
    if window is None:
        raise ValueError(f"{facts.record_id} has no window")
    engine = next((known for known in manifest.engines if known.name == facts.engine), None)
    model = engine.model if engine is not None else measured[0].model
    backend = BACKENDS.get(measured[0].api, measured[0].api)
    good = [record for record in measured if record.ok]
    figures = summarise([(block.records, measured, window)])
    gaps = [_gaps_s(record) for record in measured]
    good_gaps = [gap for record, own in zip(measured, gaps, strict=True) if record.ok for gap in own]
    result: dict[str, Any] = {
        "date": f"{datetime.datetime.fromtimestamp(facts.started_at, datetime.UTC):%Y%m%d-%H%M%S}",
        "endpoint_type": backend,
        "backend": backend,
        "label": facts.engine,
        "model_id": model,
        "tokenizer_id": model,
        "num_prompts": len(measured),
        "bakeoff_run_id": manifest.run_id,
        "bakeoff_cell": facts.cell,
        "bakeoff_repeat": str(facts.repeat),
        "bakeoff_client_limited": "yes" if client_limited else "no",
        "bakeoff_throughput": IN_BATCHES if facts.batch else IN_WINDOW,
        **_batches(figures.batches),
        "request_rate": facts.rate or "inf",
        "burstiness": _burstiness(manifest, facts.rate),
        "max_concurrency": facts.streams or None,
        "duration": window.seconds,
        "completed": len(good),
        "failed": len(measured) - len(good),
        "total_input_tokens": sum(_prompt_tokens(record) for record in good),
        "total_output_tokens": figures.output_tokens,
        "request_throughput": figures.requests_per_s,
        "request_goodput": None,
        "output_throughput": figures.output_tokens_per_s,
        "total_token_throughput": figures.total_tokens_per_s,
        "input_lens": [_prompt_tokens(record) for record in measured],
        "output_lens": [(record.output_tokens or 0) if record.ok else 0 for record in measured],
        "ttfts": [(ttft_ms(record) or 0.0) / 1e3 for record in measured],
        "itls": gaps,
        "latencies": [(e2e_ms(record) or 0.0) / 1e3 for record in measured],
        "start_times": [(record.t_send + record.wall_offset_ns) / 1e9 for record in measured],
        "queue_times": [(record.t_send - record.t_intended) / 1e9 for record in measured],
        "generated_texts": [record.text or "" for record in measured],
        "errors": ["" if record.ok else f"{record.error}: {record.error_detail or ''}" for record in measured],
        **_peaks(good),
        "rtfx": 0.0,
    }
    for name, values in (
        ("ttft", _values([ttft_ms(record) for record in good])),
        ("tpot", _values(tpots_ms(good))),
        ("itl", np.asarray(good_gaps, dtype=np.float64) * 1e3),
        ("e2el", _values([e2e_ms(record) for record in good])),
    ):
        result.update(_statistics(name, values))
    if figures.no_tpot is not None:
        result |= dict.fromkeys(_statistics("tpot", np.zeros(0))) | {"bakeoff_no_tpot": str(figures.no_tpot)}
    if not detailed:
        for key in DETAILS:
            del result[key]
    return result


def _batches(found: BatchFigures | None) -> dict[str, float | None]:
    """Of a batch load, the medians over its batches; vLLM knows no batches."""
    if found is None:
        return {}
    own = ("ttft_first_ms", "ttft_median_ms", "ttft_last_ms", "latency_ms")
    return {f"bakeoff_batch_{name}": getattr(found, name).p50 for name in own}


def _statistics(name: str, values: Floats) -> dict[str, float]:
    """Of nothing vLLM gives zeros."""
    present = values if values.size else np.zeros(1)
    found = {
        f"mean_{name}_ms": float(present.mean()),
        f"median_{name}_ms": float(np.median(present)),
        f"std_{name}_ms": float(present.std()),
    }
    return found | {f"p{p}_{name}_ms": float(np.percentile(present, p)) for p in PERCENTILES}


def _peaks(good: Sequence[RequestRecord]) -> dict[str, float | int]:
    """Most events and most requests in one of the seconds since the first request; vLLM calls the events tokens."""
    if not good:
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    spans = [((r.t_send + r.wall_offset_ns) / 1e9, (e2e_ms(r) or 0.0) / 1e3) for r in good]
    first = min(start for start, _ in spans)
    last = math.ceil(max(start + length for start, length in spans) - first)
    arrived = [
        np.minimum((start - first + np.asarray(record.event_offsets_ns, dtype=np.float64) / 1e9).astype(int), last)
        for record, (start, _) in zip(good, spans, strict=True)
    ]
    # By the seconds that something is in: a clock may have put years between two requests.
    tokens = np.unique(np.concatenate(arrived), return_counts=True)[1]
    changes: Counter[int] = Counter()
    for start, length in spans:
        changes[int(start - first)] += 1
        changes[int(start + length - first) + 1] -= 1
    running = itertools.accumulate(changes[second] for second in sorted(changes))
    return {
        "max_output_tokens_per_s": float(tokens.max(initial=0)),
        "max_concurrent_requests": max(running),
    }


def _gaps_s(record: RequestRecord) -> list[float]:
    offsets = np.asarray(record.event_offsets_ns, dtype=np.float64)
    return [float(gap) for gap in np.diff(offsets) / 1e9]


def _values(values: Sequence[float | None]) -> Floats:
    return np.asarray([value for value in values if value is not None], dtype=np.float64)


def _prompt_tokens(record: RequestRecord) -> int:
    return record.prompt_tokens if record.prompt_tokens is not None else record.prompt_tokens_wanted


def _burstiness(manifest: Manifest, rate: float) -> float | str:
    """1 is Poisson; vLLM knows no constant rate but as the limit of a burstiness without bound."""
    load = manifest.scenario.get("load")
    constant = isinstance(load, dict) and load.get("arrival") == "constant"
    return "inf" if rate and constant else 1.0
