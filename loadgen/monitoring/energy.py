"""Energy that the GPUs used while each engine was measured, and the output tokens that a joule bought.

The counter is read at both ends of every block's window, on a straight line between its samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadgen.message import say
from loadgen.metrics.summary import summarise
from loadgen.monitoring.card_figures import own_gpus
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.monitoring.prometheus import Prometheus, PrometheusError
from loadgen.monitoring.snapshot import Samples, in_order, keep_snapshot, read_snapshot
from loadgen.runs.folder import BlockData, RunData

Gpus = Mapping[str, Collection[str]]
"""Of each block, by its record's id: the GPUs that its engine had, as the counters name them."""
SNAPSHOT = "gpu_energy.json"
METRIC = "bakeoff_gpu_energy_joules_total"
STEP_S = 1.0
AROUND_S = 5.0
"""How far beyond a window samples are asked for, so that both its ends lie between two."""
WIDEST_GAP_S = 10.0
MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class EnergyRow:
    """What one engine's blocks of a cell used."""

    engine: str
    cell: str
    joules: float
    seconds: float
    output_tokens: float
    blocks: int

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds

    @property
    def tokens_per_joule(self) -> float | None:
        """Output tokens that a joule bought; None where none was used."""
        return self.output_tokens / self.joules if self.joules > 0 else None


@dataclasses.dataclass(frozen=True, slots=True)
class Energy:
    """What is known of energy; without rows, why."""

    rows: list[EnergyRow] = dataclasses.field(default_factory=list)
    gpus: int = 0
    """How many told theirs."""
    own: bool = False
    """Whether it is of each engine's own GPUs, and not of all."""
    missing: str | None = None


def engine_energy(
    folder: Path, run: RunData, prometheus_url: str | None, samples: Mapping[str, BlockSamples]
) -> Energy:
    """Work out the energy of every complete block; never raises for a Prometheus that is gone.

    It is of the engines' own GPUs where the exporter told of every block which these were, else of all. Prometheus'
    answer is kept in the folder once the run has ended.

    Args:
        folder: the run's.
        run: its blocks, and its machine.
        prometheus_url: None for nobody.
        samples: what was read of the engines' and the exporter's pages, by block.
    """
    blocks, ended = run.blocks, run.manifest.status != "running"
    spans = {block.facts.record_id: _span(block) for block in blocks if block.facts.status == "complete"}
    windows = [span for span in spans.values() if span is not None]
    if not windows:
        return Energy(missing=say("Energy: no block was completed."))
    kept = read_snapshot(folder / SNAPSHOT, "energy_joules")
    if not kept:
        if not prometheus_url:
            return Energy(missing=say("Energy: this report was made without a Prometheus."))
        try:
            kept = query_energy(prometheus_url, min(start for start, _ in windows), max(end for _, end in windows))
        except PrometheusError as error:
            return Energy(missing=say("Energy: {problem}.", problem=str(error)))
        if kept and ended:
            keep_snapshot(folder / SNAPSHOT, METRIC, energy_joules=kept)
    if not kept:
        return Energy(missing=say("Energy: Prometheus holds no {metric}, so no GPU told what it used.", metric=METRIC))
    own = _own(blocks, samples, run.manifest.host.get("gpus"), kept)
    return Energy(energy_rows(blocks, kept, own), len(kept), own=bool(own))


def _own(
    blocks: Sequence[BlockData], samples: Mapping[str, BlockSamples], told: Any, counters: Collection[str]
) -> Gpus:
    """The GPUs of each complete block; none at all where those of one are not known: energies would not compare."""
    uuids = [
        str(gpu.get("uuid")) if isinstance(gpu, Mapping) else "" for gpu in (told if isinstance(told, list) else [])
    ]
    found: dict[str, list[str]] = {}
    for block in blocks:
        span, read = _span(block), samples.get(block.facts.record_id)
        if block.facts.status != "complete" or span is None:
            continue
        places = own_gpus(read, *span) if read is not None else frozenset()
        known = [uuids[int(gpu)] if gpu.isdecimal() and int(gpu) < len(uuids) else gpu for gpu in places]
        if not known or not set(known) <= set(counters):
            return {}
        found[block.facts.record_id] = known
    return found


def query_energy(url: str, start: float, end: float) -> dict[str, Samples]:
    """Ask Prometheus for every GPU's energy counter. Raises PrometheusError."""
    found: dict[str, Samples] = {}
    prometheus = Prometheus(url)
    at, end = start - AROUND_S, end + AROUND_S
    while at < end:
        until = min(end, at + MOST_STEPS * STEP_S)
        for series in prometheus.range(METRIC, at, until, STEP_S):
            name = series.labels.get("uuid") or series.labels.get("gpu", "")
            found.setdefault(name, []).extend(series.points)
        at = until + STEP_S
    return {name: in_order(set(samples)) for name, samples in found.items()}


def energy_rows(blocks: Sequence[BlockData], gpus: Mapping[str, Samples], own: Gpus) -> list[EnergyRow]:
    """Sum up by engine and cell; a block whose window the samples do not cover is left out.

    Args:
        blocks: all of a run.
        gpus: the counter of each GPU.
        own: whose count; empty for all. Of blocks that ran together all are nobody's, and shared ones neither.
    """
    sums: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for block in blocks:
        span = _span(block)
        mine = own.get(block.facts.record_id, gpus)
        shared = (
            block.facts.beside if not own else [one for one in block.facts.beside if set(mine) & set(own.get(one, ()))]
        )
        if block.facts.status != "complete" or span is None or shared:
            continue
        used = [joules(gpus[name], *span) for name in mine]
        if any(one is None for one in used):
            continue
        summary = summarise([(block.records, block.measured, block.cut.window)])
        seconds = span[1] - span[0]
        tokens = (summary.output_tokens_per_s or 0.0) * seconds
        total = sum(one for one in used if one is not None)
        sums.setdefault((block.facts.engine, block.facts.cell), []).append((total, seconds, tokens))
    rows = []
    for (engine, cell), parts in sums.items():
        total, seconds, tokens = (float(one) for one in np.sum(parts, axis=0))
        rows.append(EnergyRow(engine, cell, total, seconds, tokens, len(parts)))
    return rows


def joules(samples: Samples, start: float, end: float) -> float | None:
    """Joules by which a counter rose between two moments; None where samples are too far apart, or it began again."""
    at = np.array([moment for moment, _ in samples])
    value = np.array([reading for _, reading in samples])
    if not at.size or at[0] > start or at[-1] < end:
        return None
    first, last = int(np.searchsorted(at, start, side="right")) - 1, int(np.searchsorted(at, end))
    if (np.diff(at[first : last + 1]) > WIDEST_GAP_S).any() or (np.diff(value[first : last + 1]) < 0).any():
        return None
    low, high = np.interp([start, end], at, value)
    return float(high - low)


def _span(block: BlockData) -> tuple[float, float] | None:
    window = block.cut.window
    return None if window is None or window.end_ns <= window.start_ns else (window.start_ns / 1e9, window.end_ns / 1e9)
