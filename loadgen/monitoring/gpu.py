"""What the GPUs of an engine went through while a block ran, by what their exporter told Prometheus."""

from __future__ import annotations

import math

from loadgen.contention.reading import Gpu
from loadgen.monitoring.prometheus import Prometheus, PrometheusError, Series, quoted

HZ_PER_MHZ = 1e6
OTHER = "other"
"""Whose processes are no engine's, as the exporter calls them."""


def gpus_of(engine: str, url: str | None, start: float, end: float) -> tuple[Gpu, ...]:
    """The GPUs that an engine's processes were on between two moments (seconds since the Unix epoch), or all where that
    is not known; none for a Prometheus that is gone or knows of none."""
    if url is None:
        return ()
    prometheus, span = Prometheus(url), f"[{max(1, math.ceil(end - start))}s]"
    try:
        processes = "max by (gpu) (bakeoff_gpu_engine_processes{{engine={}}})"
        ours, theirs = processes.format(quoted(engine)), processes.format(quoted(OTHER))
        own = _by_gpu(prometheus.instant(f"max_over_time(({ours} > 0){span[:-1]}:1s])", end))
        clocks = prometheus.instant(f'avg by (gpu) (avg_over_time(bakeoff_gpu_clock_hertz{{clock="sm"}}{span}))', end)
        if not clocks:
            return ()
        held = prometheus.instant(f"avg by (gpu, reason) (avg_over_time(bakeoff_gpu_throttle{span})) > 0", end)
        # Where the engine's own are not known yet, they are among the others.
        others = prometheus.instant(f"max_over_time(({theirs} and on (gpu) {ours} > 0){span[:-1]}:1s])", end)
    except PrometheusError:
        return ()
    megahertz, strangers = _by_gpu(clocks), _by_gpu(others)
    return tuple(
        Gpu(
            gpu=gpu,
            megahertz=value / HZ_PER_MHZ,
            held_down={each.labels.get("reason", ""): each.points[-1][1] for each in held if each.labels["gpu"] == gpu},
            other_processes=int(strangers[gpu]) if gpu in strangers else None,
        )
        for gpu, value in sorted(megahertz.items())
        if gpu in own or not own
    )


def _by_gpu(found: list[Series]) -> dict[str, float]:
    return {series.labels.get("gpu", ""): series.points[-1][1] for series in found}
