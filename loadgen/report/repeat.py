"""How a run can be repeated: its command, seed, code, packages and machine."""

from __future__ import annotations

import shlex
from typing import Any

from loadgen.client.floor import floor_words
from loadgen.client.verdict import ClientVerdict
from loadgen.message import mark, say
from loadgen.presentation.text import DASH, count, duration, gibibytes, moment, number, plain
from loadgen.report.data import ReportData

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
        commit = say("{commit} with uncommitted changes", commit=commit)
    memory = host.get("memory_bytes")
    facts: Facts = [
        (mark("run"), manifest.run_id),
        (mark("made by"), say("hand, in the web UI") if manifest.source == "web-ui" else say("a campaign")),
        (mark("started, ended"), f"{moment(manifest.started_at)}, {moment(manifest.ended_at)}"),
        (mark("took"), DASH if manifest.ended_at is None else duration(manifest.ended_at - manifest.started_at)),
        (mark("scenario"), plain(scenario.get("name"))),
        (mark("seed"), plain(scenario.get("seed"))),
        (mark("requests a cell"), plain(scenario.get("requests"))),
        (mark("warm-up requests a user"), plain(scenario.get("warmup_requests"))),
        (mark("repeats"), plain(scenario.get("repeats"))),
        (mark("shared prefix"), plain(scenario.get("shared_prefix_tokens"))),
        (mark("git commit"), commit),
        (mark("packages"), plain(manifest.packages)),
        (mark("stack"), plain(manifest.stack)),
        (mark("operating system"), plain(host.get("os"))),
        (mark("Python"), plain(host.get("python"))),
        (mark("processor"), plain(host.get("cpu"))),
        (mark("cores, usable"), f"{plain(host.get('cpus'))}, {plain(host.get('cpus_usable'))}"),
        (mark("memory"), gibibytes(memory) if isinstance(memory, (int, float)) else DASH),
        (mark("GPUs"), "; ".join(_gpu(gpu) for gpu in host.get("gpus") or []) or say("none")),
        (mark("clock"), plain(manifest.clock)),
    ]
    return [(name, value) for name, value in facts if value != DASH]


def client_facts(data: ReportData) -> Facts:
    """What the load generator did and how long its connections took."""
    client = data.client
    opened = count(client.connections)
    if client.connections:
        opened = say(
            "{count} (median {median} ms, at most {most} ms to open)",
            count=opened,
            median=number(client.connect_ms_p50),
            most=number(client.connect_ms_max),
        )
    return [
        (mark("workers"), count(client.workers)),
        (mark("requests, warm-up and drain included"), count(client.requests)),
        (mark("of these ended by the load generator itself at the end of a block"), count(client.aborted)),
        (mark("content events received"), count(client.events)),
        (mark("connections opened, never counted in TTFT"), opened),
        (mark("client floor on this host"), floor_words(data.manifest.floor)),
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
