"""The statistics of a run: its first engine against each of the others, and every figure's own interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadgen.block_samples import most_errors
from loadgen.cell_summary import summarise
from loadgen.report.floors import floors_ms
from loadgen.run_folder import BlockData, RunData
from loadgen.slo import Slo, meets
from loadgen.statistics.compare import compare
from loadgen.statistics.from_run import block_sample, cell_samples
from loadgen.statistics.interval import from_log, jackknife
from loadgen.statistics.measure import measure
from loadgen.statistics.metrics import HEADLINE, METRICS, BlockSample, Metric
from loadgen.statistics.proportion import proportion
from loadgen.statistics.result import Settings, Statistics

Interval = tuple[float, float]
MARGIN: float = Settings().margin


def comparisons(run: RunData, engines: Sequence[str]) -> list[Statistics]:
    """Compare the first engine with each of the others; nothing where only one ran."""
    scenario = run.manifest.scenario
    most, pairs = most_errors(run.manifest), [(engines[0], other) for other in engines[1:]]
    settings = Settings(
        alpha=run.manifest.alpha / max(1, len(pairs)),  # false alarms over all pairs together (Bonferroni)
        margin=scenario.get("margin", MARGIN),
        floors_ms=floors_ms([(run.manifest, run.blocks)]),
    )
    return [compare(a, b, cell_samples(run.blocks, a, b, most_errors=most), settings) for a, b in pairs]


def block_figures(samples: Sequence[BlockSample]) -> list[dict[str, float]]:
    """The headline metrics of each block."""
    metrics = [metric for metric in METRICS if metric.key in HEADLINE]
    return [
        {metric.key: metric.pooled([unit]) for metric in metrics if (unit := metric.unit_of(sample)) is not None}
        for sample in samples
    ]


def samples_of(blocks: Sequence[BlockData]) -> list[BlockSample]:
    """The raw values of blocks, whether or not they decide anything."""
    return [block_sample(block, None) for block in blocks]


def intervals(samples: Sequence[BlockSample]) -> dict[str, Interval]:
    """95% interval of each metric over one engine's blocks of a cell; metrics without one are left out."""
    found = {metric.key: interval(metric, samples) for metric in METRICS}
    return {key: ends for key, ends in found.items() if ends is not None}


def slo_intervals(blocks: Sequence[BlockData], slo: Slo) -> dict[str, Interval]:
    """95% intervals of the goodput and of the share of requests that met the SLO, by column key."""
    found: dict[str, Interval] = {}
    met = [np.array([meets(record, slo) for record in block.measured], dtype=np.float64) for block in blocks]
    share = proportion(met)
    if share is not None:
        low, high = share.interval()
        found["slo.met_share"] = (100 * low, 100 * high)
    each = [summarise([(block.records, block.measured, block.cut.window)], slo) for block in blocks]
    windows = [(one.slo.goodput_per_s, one.window_s) for one in each if one.slo and one.window_s]
    seconds = np.array([window for _, window in windows])
    requests = np.array([(rate or 0.0) * window for rate, window in windows])
    if len(windows) > 1:
        without = (requests.sum() - requests) / (seconds.sum() - seconds)
        low, high = jackknife(float(requests.sum() / seconds.sum()), without).interval()
        found["slo.goodput_per_s"] = (max(0.0, low), high)
    return found


def interval(metric: Metric, samples: Sequence[BlockSample]) -> Interval | None:
    """95% interval of one engine's figure: from the scatter of its blocks, of a single one from that within it."""
    spread = measure(metric, [(sample, sample) for sample in samples]).a
    if spread is None:
        return None
    low, high = spread.interval()
    return from_log(low), from_log(high)
