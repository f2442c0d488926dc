"""How a run can be repeated: its command, seed, code, packages and machine."""

from __future__ import annotations

import shlex
from typing import Any

from loadgen.client_verdict import ClientVerdict
from loadgen.floor import floor_words
from loadgen.report.data import ReportData
from loadgen.report.text import DASH, count, duration, gibibytes, moment, number, plain

Facts = list[tuple[str, str]]


def command(data: ReportData) -> str | None:
    """The command line that made the run, quoted for a shell."""
    return shlex.join(data.manifest.command) or None


def repeat_facts(data: ReportData) -> Facts:
    """Seed, scenario, git commit, packages, host."""
    manifest = data.manifest
    scenario, git, host = manifest.scenario, manifest.git, manifest.host
    commit = plain(git.get("commit"))
    if git.get("dirty"):
        commit += " with uncommitted changes"
    memory = host.get("memory_bytes")
    facts: Facts = [
        ("run", manifest.run_id),
        ("made by", "hand, in the web UI" if manifest.source == "web-ui" else "a campaign"),
        ("started, ended", f"{moment(manifest.started_at)}, {moment(manifest.ended_at)}"),
        ("took", DASH if manifest.ended_at is None else duration(manifest.ended_at - manifest.started_at)),
        ("scenario", plain(scenario.get("name"))),
        ("seed", plain(scenario.get("seed"))),
        ("requests a cell", plain(scenario.get("requests"))),
        ("warm-up requests a user", plain(scenario.get("warmup_requests"))),
        ("repeats", plain(scenario.get("repeats"))),
        ("shared prefix", plain(scenario.get("shared_prefix_tokens"))),
        ("git commit", commit),
        ("packages", plain(manifest.packages)),
        ("stack", plain(manifest.stack)),
        ("operating system", plain(host.get("os"))),
        ("Python", plain(host.get("python"))),
        ("processor", plain(host.get("cpu"))),
        ("cores, usable", f"{plain(host.get('cpus'))}, {plain(host.get('cpus_usable'))}"),
        ("memory", gibibytes(memory) if isinstance(memory, (int, float)) else DASH),
        ("GPUs", "; ".join(_gpu(gpu) for gpu in host.get("gpus") or []) or "none"),
        ("clock", plain(manifest.clock)),
    ]
    return [(name, value) for name, value in facts if value != DASH]


def client_facts(data: ReportData) -> Facts:
    """What the load generator did and how long its connections took."""
    client = data.client
    opened = count(client.connections)
    if client.connections:
        opened += f" (median {number(client.connect_ms_p50)} ms, at most {number(client.connect_ms_max)} ms to open)"
    return [
        ("workers", count(client.workers)),
        ("requests, warm-up and drain included", count(client.requests)),
        ("of these ended by the load generator itself at the end of a block", count(client.aborted)),
        ("content events received", count(client.events)),
        ("connections opened, never counted in TTFT", opened),
        ("client floor on this host", floor_words(data.manifest.floor)),
    ]


def client_blocks(data: ReportData) -> list[dict[str, str | bool]]:
    """Each judged block's verdict and its workers' figures as text; with several workers the worst of them."""
    rows: list[dict[str, str | bool]] = []
    for block in data.blocks:
        verdict = block.client
        if verdict is None:
            continue
        error = None if verdict.tpot_error_share is None else verdict.tpot_error_share * 100
        rows.append(
            {
                "block": block.record_id,
                "limited": verdict.limited,
                "ttft": number(verdict.ttft_error_ms),
                "tpot": number(error),
                "cpu": number(_worst(verdict, "cpu_share", scale=100)),
                "waiting": number(_worst(verdict, "waiting_share", scale=100)),
                "read": number(_worst(verdict, "read_lag_ms", "p99")),
                "loop": number(_worst(verdict, "loop_lag_ms", "p99")),
                "schedule": number(_worst(verdict, "schedule_lag_ms", "p99")),
                "gc": number(_worst(verdict, "gc_max_ms")),
                "events": number(sum(worker.get("events_per_s") or 0.0 for worker in verdict.workers)),
            }
        )
    return rows


def _worst(verdict: ClientVerdict, *path: str, scale: float = 1.0) -> float | None:
    """The greatest value among the workers; None where none has one."""
    found = []
    for worker in verdict.workers:
        value: Any = worker
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return max(found) * scale if found else None


def _gpu(gpu: Any) -> str:
    return plain(list(gpu.values()) if isinstance(gpu, dict) else gpu)
