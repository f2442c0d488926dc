"""The statistics of a run: its first engine against each of the others, and every figure's own interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadgen.analysis.floors import floors_ms
from loadgen.analysis.samples import block_sample, most_errors, paired, samples_by_cell, with_starts
from loadgen.metrics.slo import Slo, meets
from loadgen.runs.folder import BlockData, RunData
from loadgen.runs.manifest import Manifest
from loadgen.statistics.compare import compare
from loadgen.statistics.interval import from_log
from loadgen.statistics.measure import measure
from loadgen.statistics.metrics import HEADLINE, METRICS, OF_BATCHES, WITH_SLO, BlockSample, Metric
from loadgen.statistics.proportion import proportion
from loadgen.statistics.result import Settings, Statistics

Interval = tuple[float, float]
MARGIN: float = Settings().margin


def comparisons(run: RunData, engines: Sequence[str], slo: Slo | None = None) -> list[Statistics]:
    """Compare the first engine with each of the others, in goodput too where there is an SLO; of one engine nothing.

    An engine's blocks beside others are compared with its own alone (`disturbances`), and not with another engine.
    """
    beside = {facts.name for facts in run.manifest.engines if facts.together_of is not None}
    engines = [engine for engine in engines if engine not in beside]
    if len(engines) < 2:
        return []
    most, (first, *others) = most_errors(run.manifest), engines
    settings = Settings(
        alpha=run.manifest.alpha / len(others),  # false alarms over all pairs together (Bonferroni)
        margin=margin(run.manifest),
        floors_ms=floors_ms([(run.manifest, run.blocks)]),
    )
    metrics = METRICS if slo is None else WITH_SLO
    blocks = with_starts(run.manifest, run.blocks)
    own = {engine: samples_by_cell(blocks, engine, most, slo) for engine in engines}
    return [compare(first, b, paired(own[first], own[b], run.blocks), settings, metrics) for b in others]


def margin(manifest: Manifest) -> float:
    """Up to which share a difference does not matter in this run's scenario."""
    return manifest.scenario_number("margin", MARGIN)


def block_figures(samples: Sequence[BlockSample]) -> list[dict[str, float]]:
    """The headline metrics of each block."""
    metrics = [metric for metric in METRICS if metric.key in HEADLINE]
    return [
        {metric.key: metric.pooled([unit]) for metric in metrics if (unit := metric.unit_of(sample)) is not None}
        for sample in samples
    ]


def samples_of(blocks: Sequence[BlockData], slo: Slo | None) -> list[BlockSample]:
    """The raw values of blocks, whether or not they decide anything."""
    return [block_sample(block, None, slo) for block in blocks]


def intervals(samples: Sequence[BlockSample]) -> dict[str, Interval]:
    """95% interval of each metric over one engine's blocks of a cell; metrics without one are left out."""
    found = {metric.key: interval(metric, samples) for metric in (*WITH_SLO, *OF_BATCHES)}
    return {key: ends for key, ends in found.items() if ends is not None}


def met_interval(blocks: Sequence[BlockData], slo: Slo) -> Interval | None:
    """95% interval of the share of measured requests that met the SLO, 0 to 1; None where none was measured."""
    share = proportion(
        [np.array([meets(record, slo) for record in block.measured], dtype=np.float64) for block in blocks]
    )
    return None if share is None else share.interval()


def interval(metric: Metric, samples: Sequence[BlockSample]) -> Interval | None:
    """95% interval of one engine's figure: from the scatter of its blocks, of a single one from that within it."""
    spread = measure(metric, [(sample, sample) for sample in samples]).a
    if spread is None:
        return None
    low, high = spread.interval()
    return from_log(low), from_log(high)
