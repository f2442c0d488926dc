"""Engine memory over a run, from Prometheus; kept in the run's folder so that the report outlives Prometheus."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from loadgen.message import joined, say
from loadgen.monitoring.prometheus import Prometheus, PrometheusError, quoted
from loadgen.monitoring.snapshot import Samples, in_order, keep_snapshot, read_snapshot
from loadgen.runs.manifest import Manifest

SNAPSHOT = "metrics.json"
METRIC = "bakeoff_engine_memory_bytes"
POINTS = 800
"""Samples wanted over a run; far below the 11,000 that Prometheus allows a query."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemorySeries:
    """Memory of one engine: of its process tree, or of its container."""

    engine: str
    samples: Samples
    """In bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """What is known of the engines' memory, and what is not and why."""

    series: list[MemorySeries] = dataclasses.field(default_factory=list)
    source: str | None = None
    """Where the series came from, in words."""
    missing: list[str] = dataclasses.field(default_factory=list)


def engine_memory(folder: Path, manifest: Manifest, prometheus_url: str | None) -> Memory:
    """Return the memory of every engine over the run's time span; never raises for a Prometheus that is gone.

    A snapshot in the folder that covers the run and all engines is used as it is. Otherwise Prometheus is asked,
    and its answer is kept once the run has ended; failing that, whatever snapshot there is.
    """
    names = [engine.name for engine in manifest.engines] or sorted({block.engine for block in manifest.blocks})
    span = manifest.span()
    if span[0] == span[1] or not names:
        return Memory(missing=[say("Engine memory: nothing ran, so there is no span of time to show.")])
    path = folder / SNAPSHOT
    snapshot = read_snapshot(path, "memory_bytes")
    kept = [MemorySeries(name, snapshot[name]) for name in names if snapshot.get(name)]
    if len(kept) == len(names):
        return Memory(kept, say("kept in {file}", file=SNAPSHOT))
    problem: str = say("this report was made without a Prometheus")
    found: list[MemorySeries] = []
    if prometheus_url:
        try:
            found = [series for name in names if (series := _asked(manifest, name, prometheus_url, span)).samples]
            problem = say(
                "Prometheus at {url} holds no samples of {metric} for the time of the run",
                url=prometheus_url,
                metric=METRIC,
            )
        except PrometheusError as error:
            problem = str(error)
    source = say("Prometheus at {url}", url=prometheus_url)
    if found and len(found) >= len(kept):
        if manifest.status != "running":
            memory = {one.engine: one.samples for one in found}
            asked = {"prometheus_url": prometheus_url or "", "start": span[0], "end": span[1]}
            keep_snapshot(path, METRIC, **asked, memory_bytes=memory)
    else:
        found, source = kept, say("kept in {file}", file=SNAPSHOT)
    have = {series.engine for series in found}
    lacking = [name for name in names if name not in have]
    missing: list[str] = []
    if lacking:
        missing = [
            say("Memory over time of {engines}: {problem}.", engines=joined("{a}, {b}", lacking), problem=problem)
        ]
    return Memory(found, source if found else None, missing)


def _asked(manifest: Manifest, name: str, url: str, span: tuple[float, float]) -> MemorySeries:
    """An engine's memory; of one that raced with several settings, while each one's blocks ran.

    Raises PrometheusError.
    """
    facts = next((facts for facts in manifest.engines if facts.name == name), None)
    seat = name if facts is None else facts.seat
    found = query_memory(url, seat, *span)
    if sum(facts.seat == seat for facts in manifest.engines) < 2:
        return MemorySeries(name, found.samples)
    turns = [(block.started_at, block.ended_at or span[1]) for block in manifest.blocks if block.engine == name]
    return MemorySeries(name, [(at, value) for at, value in found.samples if any(a <= at <= b for a, b in turns)])


def query_memory(url: str, engine: str, start: float, end: float) -> MemorySeries:
    """Ask Prometheus for one engine's memory between two moments (seconds since the Unix epoch).

    Raises:
        PrometheusError: it does not answer within 5 s, or answers with an error.
    """
    label = quoted(engine)
    step = max(1.0, math.ceil((end - start) / POINTS))
    # Proportional shares add up to what the processes really hold, and a working set is what a container does;
    # resident sizes count shared pages twice.
    query = f'max({METRIC}{{engine={label},kind=~"pss|working_set"}}) or max({METRIC}{{engine={label}}})'
    found = Prometheus(url).range(query, start, end, step)
    return MemorySeries(engine, in_order(found[0].points if found else []))
