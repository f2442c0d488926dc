"""The benchmark report of llm-d-benchmark, version 0.2.1 (its package `llmd-benchmark-report` validates it).

Latencies are over the measured requests that succeeded; throughputs are those of the block's window. ITL is given only
where each content event carried one token, because the format wants milliseconds a token. What the format has no place
for (client verdict, parity, floor) stays in the run's own folder; whether the load generator was the limit is told.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadgen.engines.parallel import replicas, tensor_size
from loadgen.metrics.definitions import e2e_ms, tpots_ms, ttft_ms
from loadgen.metrics.summary import CellSummary, Floats, itl_ms, summarise
from loadgen.record import RequestRecord
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.serving import asked_of

VERSION = "0.2.1"
PERCENTILES = {"p0p1": 0.1, "p99p9": 99.9} | {f"p{p}": float(p) for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
ONE_TOKEN = 0.001
"""Events carry a token each where their mean is this close to 1: a stream's last token may come alone."""


def llm_d_report(manifest: Manifest, block: BlockData, *, client_limited: bool) -> dict[str, Any]:
    """Return one block as a report."""
    facts, measured, window = block.facts, block.measured, block.cut.window
    if window is None:
        raise ValueError(f"{facts.record_id} has no window")
    engine = next((known for known in manifest.engines if known.name == facts.engine), None)
    good = [record for record in measured if record.ok]
    figures = summarise([(block.records, measured, window)])
    return {
        "version": VERSION,
        "run": {
            "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"bakeoff:{manifest.run_id}/{facts.record_id}")),
            "eid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"bakeoff:{manifest.run_id}")),
            "time": {
                "start": _moment(window.start_ns),
                "end": _moment(window.end_ns),
                "duration": f"PT{window.seconds:.6f}S",
            },
            "description": f"{manifest.run_id}: {facts.engine} at {facts.cell}, repeat {facts.repeat}",
        },
        "scenario": {
            "stack": [_component(manifest, engine)] if engine is not None else [],
            "load": _load(manifest, block),
        },
        "results": {
            "request_performance": {
                "aggregate": {
                    "requests": {
                        "total": len(measured),
                        "failures": len(measured) - len(good),
                        **_lengths("input_length", [record.prompt_tokens for record in good]),
                        **_lengths("output_length", [record.output_tokens for record in good]),
                    },
                    "latency": _latency(good, figures),
                    "throughput": _throughput(figures),
                }
            },
            "observability": {
                "bakeoff_client_limited": client_limited,
                **({"bakeoff_no_tpot": str(figures.no_tpot)} if figures.no_tpot is not None else {}),
                **({"bakeoff_batches": dataclasses.asdict(figures.batches)} if figures.batches is not None else {}),
            },
        },
    }


def _latency(good: Sequence[RequestRecord], figures: CellSummary) -> dict[str, Any]:
    per_token = [
        whole / record.output_tokens
        for record in good
        if record.output_tokens and (whole := e2e_ms(record)) is not None
    ]
    found = {
        "time_to_first_token": _statistics([ttft_ms(record) for record in good], "ms"),
        "normalized_time_per_output_token": _statistics(per_token, "ms/token"),
        "time_per_output_token": _statistics(tpots_ms(good), "ms/token"),
        "request_latency": _statistics([e2e_ms(record) for record in good], "ms"),
    }
    if figures.tokens_per_event is not None and abs(figures.tokens_per_event - 1) < ONE_TOKEN:
        gaps = np.concatenate([itl_ms(record) for record in good]).tolist()
        found["inter_token_latency"] = _statistics(gaps, "ms/token")
    return {key: value for key, value in found.items() if value is not None}


def _throughput(figures: CellSummary) -> dict[str, Any]:
    """Rates have a mean and nothing else: one window, one figure."""
    output, total = figures.output_tokens_per_s, figures.total_tokens_per_s
    rates = {
        "input_token_rate": (None if output is None or total is None else total - output, "tokens/s"),
        "output_token_rate": (output, "tokens/s"),
        "total_token_rate": (total, "tokens/s"),
        "request_rate": (figures.requests_per_s, "queries/s"),
    }
    return {key: {"units": unit, "mean": value} for key, (value, unit) in rates.items() if value is not None}


def _lengths(key: str, values: Sequence[int | None]) -> dict[str, Any]:
    found = _statistics(values, "count")
    return {} if found is None else {key: found}


def _statistics(values: Sequence[float | None], units: str) -> dict[str, Any] | None:
    present: Floats = np.asarray([value for value in values if value is not None], dtype=np.float64)
    if not present.size:
        return None
    percentiles = {name: float(np.percentile(present, p)) for name, p in PERCENTILES.items()}
    ends = {"min": float(present.min()), "max": float(present.max())}
    return {"units": units, "mean": float(present.mean()), "stddev": float(present.std()), **ends, **percentiles}


def _component(manifest: Manifest, engine: EngineFacts) -> dict[str, Any]:
    """The engine: of llm-d's kind `inference_engine` where its GPUs are known, else generic."""
    launch = engine.launch
    shared = {"tool": engine.kind, "tool_version": engine.version or "unknown"}
    gpus = manifest.host.get("gpus") if manifest.stack else None
    standardized: dict[str, Any] = {"kind": "generic", **shared, "model": {"name": engine.model}}
    if gpus:
        asked = asked_of(manifest.scenario, engine.name)
        sizes = {"tp": tensor_size(asked), "dp": replicas(engine.kind, asked)}
        parallel = {name: size for name, size in sizes.items() if name == "tp" or size > 1}
        standardized |= {
            "kind": "inference_engine",
            "role": "replica",
            "replicas": 1,
            "accelerator": {
                "model": str(gpus[0].get("name")),
                "count": math.prod(parallel.values()),
                "parallelism": parallel,
            },
        }
    return {
        "metadata": {"label": engine.name, "cfg_id": _digest({**launch, "version": engine.version})},
        "standardized": standardized,
        "native": {
            "args": {"argv": list(launch.get("argv") or [])},
            "envars": dict(_mapping(launch.get("environment"))),
        },
    }


def _load(manifest: Manifest, block: BlockData) -> dict[str, Any]:
    facts = block.facts
    standardized: dict[str, Any] = {
        "tool": "bakeoff",
        "tool_version": manifest.packages.get("bakeoff", "unknown"),
        "parallelism": len({record.worker for record in block.records}),
        "source": "random",
        "input_seq_len": _wanted([record.prompt_tokens_wanted for record in block.measured]),
        "output_seq_len": _wanted([record.output_tokens_wanted for record in block.measured]),
    }
    if facts.rate:
        standardized["rate_qps"] = facts.rate
    if facts.streams:
        standardized["concurrency"] = facts.streams
    prefix = manifest.scenario.get("shared_prefix_tokens")
    if prefix:
        standardized["prefix"] = {
            "prefix_len": {"distribution": "fixed", "value": prefix},
            "num_groups": 1,
            "num_users_per_group": max(facts.streams, 1),
            "num_prefixes": 1,
        }
    return {
        "metadata": {"cfg_id": _digest({**manifest.scenario, "cell": facts.cell}), "description": facts.cell},
        "standardized": standardized,
        "native": {"args": {"argv": list(manifest.command)}, "config": dict(manifest.scenario)},
    }


def _wanted(lengths: Sequence[int]) -> dict[str, Any]:
    """Lengths asked for: one, or several in conversations and traces."""
    low, high = min(lengths), max(lengths)
    if low == high:
        return {"distribution": "fixed", "value": low}
    return {"distribution": "other", "value": float(np.mean(lengths)), "min": low, "max": high}


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def _moment(nanoseconds: int) -> str:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.UTC).isoformat()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
