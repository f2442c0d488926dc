"""What is known of the engines, as Prometheus' metric families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from exporters.engine_watch import EngineWatch

UNKNOWN = "unknown"


def metrics(watches: Sequence[EngineWatch]) -> Iterator[Metric]:
    """Yield the metric families, without waiting. A figure that is not known is absent, never zero."""
    reachable = _gauge("reachable", "Whether something accepts connections where the engine is to be")
    up = _gauge("up", "Whether the engine's health check answers")
    ready = _gauge("ready", "Whether the engine is up and lists a model: it takes requests")
    info = InfoMetricFamily("bakeoff_engine", "Version and model, as the engine tells them", labels=["engine"])
    context = _gauge("context_tokens", "Prompt and output tokens that a request may have together")
    memory = _gauge(
        "memory_bytes",
        "Memory of the engine. Of its whole process tree: pss counts shared pages once, rss once per process. Of "
        "its container: all that is charged to it, and working_set without files that were not used of late",
        "kind",
    )
    cpu = CounterMetricFamily(
        "bakeoff_engine_cpu_seconds",
        "CPU time of the engine's whole process tree, or of its container since that was started",
        labels=["engine"],
    )
    processes = _gauge("processes", "Processes in the engine's process tree")
    errors = CounterMetricFamily(
        "bakeoff_engine_scrape_errors",
        "Probes that failed though the engine was reached (late or broken answers), and failed usage readings",
        labels=["engine"],
    )
    for watch in watches:
        name, sample, container, identity = watch.target.name, watch.sample, watch.container, watch.identity
        seconds = watch.cpu_seconds
        for family, value in ((reachable, watch.reachable), (up, watch.up), (ready, watch.ready)):
            family.add_metric([name], float(value))
        errors.add_metric([name], watch.errors)
        if identity is not None:
            info.add_metric([name], {"version": identity.version or UNKNOWN, "model": identity.model or UNKNOWN})
            if identity.context_tokens is not None:
                context.add_metric([name], identity.context_tokens)
        by_kind: dict[str, int | None] = {}
        if container is not None:
            by_kind = {"container": container.memory_bytes, "working_set": container.working_set_bytes}
        if sample is not None:
            by_kind |= {"rss": sample.rss_bytes, "pss": sample.pss_bytes}
            processes.add_metric([name], sample.processes)
        for kind, known in by_kind.items():
            if known is not None:
                memory.add_metric([name, kind], known)
        if seconds is not None:
            cpu.add_metric([name], seconds)
    yield from (reachable, up, ready, info, context, memory, cpu, processes, errors)


def _gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"bakeoff_engine_{name}", text, labels=["engine", *more])
