"""The figures of one engine's cell, worked out again from `requests.jsonl` with plain Python.

It shares no code with what it checks: no record class, no window, no numpy.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any


def percentile(values: list[float], percent: int) -> float:
    """Linear between order statistics, from its definition."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def figures(path: Path, blocks: list[str], users: int, wanted: int) -> dict[str, float]:
    """Figures over some complete blocks with one warm-up request a user."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    measured: list[dict[str, Any]] = []
    seconds = output = finished = 0.0
    for block in blocks:
        own = [line for line in lines if line["block"] == block]
        first_ends = sorted(line["t_done"] for line in own if line["index"] == 0)
        opened = first_ends[users - 1]
        chosen = sorted((r for r in own if r["t_send"] >= opened), key=lambda r: r["t_send"])[:wanted]
        closed = max(r["t_done"] for r in chosen)
        seconds += (closed - opened) / 1e9
        finished += sum(r["error"] is None and opened < r["t_done"] <= closed for r in own)
        for r in own:
            arrivals = [r["t_send"] + offset for offset in r["event_offsets_ns"]]
            inside = [at for at in arrivals if opened < at <= closed]
            if r["output_tokens"] is not None:
                output += len(inside) * r["output_tokens"] / len(arrivals)
        measured += chosen
    good = [r for r in measured if r["error"] is None]
    ttft = [(r["t_first"] - r["t_send"]) / 1e6 for r in good]
    tpot = [(r["t_last"] - r["t_first"]) / 1e6 / (r["output_tokens"] - 1) for r in good]
    return {
        "requests": len(measured),
        "window_s": seconds,
        "ttft_ms.mean": statistics.fmean(ttft),
        **{f"ttft_ms.p{p}": percentile(ttft, p) for p in (50, 90, 95, 99)},
        "ttft_ms.max": max(ttft),
        "tpot_ms.mean": statistics.fmean(tpot),
        **{f"tpot_ms.p{p}": percentile(tpot, p) for p in (50, 90, 95, 99)},
        "output_tokens_per_s": output / seconds,
        "requests_per_s": finished / seconds,
        "tokens_per_event": sum(r["output_tokens"] for r in good) / sum(r["events"] for r in good),
        "output_tokens": sum(r["output_tokens"] for r in good),
    }
