"""How a run can be repeated: its command, seed, code, packages and machine."""

from __future__ import annotations

import shlex
from typing import Any

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


def _gpu(gpu: Any) -> str:
    return plain(list(gpu.values()) if isinstance(gpu, dict) else gpu)
