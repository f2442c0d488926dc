"""What is known of the GPUs, as Prometheus metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporters.gpu_monitor import GpuState

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]

FAMILIES: dict[str, tuple[Family, str, str]] = {
    "up": (GaugeMetricFamily, "", "Whether the GPU answers; 0 when it fell off the bus"),
    "nvml_errors": (
        CounterMetricFamily,
        "error",
        "Readings that failed, by NVML's name of the error, no_answer, or impossible",
    ),
    "memory_total_bytes": (GaugeMetricFamily, "", "Memory of the GPU"),
    "memory_used_bytes": (GaugeMetricFamily, "", "Memory that processes hold, without what is reserved"),
    "memory_reserved_bytes": (GaugeMetricFamily, "", "Memory that driver and firmware keep"),
    "memory_peak_bytes": (GaugeMetricFamily, "", "Most memory in use at once since the previous scrape"),
    "engine_memory_bytes": (GaugeMetricFamily, "engine", "Memory of the engine's processes"),
    "engine_processes": (GaugeMetricFamily, "engine", "The engine's processes on the GPU"),
    "utilization_ratio": (GaugeMetricFamily, "", "Share of the last sample period in which a kernel ran"),
    "memory_bandwidth_utilization_ratio": (
        GaugeMetricFamily,
        "",
        "Share of the last sample period in which device memory was read or written",
    ),
    "power_watts": (GaugeMetricFamily, "", "Power that the board draws, as the driver averages it"),
    "power_limit_watts": (GaugeMetricFamily, "", "Power limit that is enforced"),
    "energy_joules": (CounterMetricFamily, "", "Energy since the driver was loaded"),
    "temperature_celsius": (GaugeMetricFamily, "sensor", "Temperature of the chip and of its memory"),
    "clock_hertz": (GaugeMetricFamily, "clock", "Clock of the SMs and of the memory"),
    "throttle": (GaugeMetricFamily, "reason", "Whether the clocks are held down for this reason"),
    "ecc_errors": (CounterMetricFamily, "kind", "ECC errors since the driver was loaded"),
    "nvlink_bytes": (CounterMetricFamily, "direction", "Payload over all NVLinks since the driver was loaded"),
    "pcie_bytes_per_second": (GaugeMetricFamily, "direction", "PCIe traffic, measured for 20 ms about once a second"),
}
"""Metric name after `bakeoff_gpu_` -> kind, label beside those of the GPU, help."""


def metrics(devices: int, gpus: Sequence[GpuState]) -> Iterator[Metric]:
    """Yield the metric families. A figure that is not known is absent, never zero."""
    yield GaugeMetricFamily("bakeoff_gpu_devices", "GPUs that the NVIDIA driver knows; 0 without driver", devices)
    families = {
        name: kind(f"bakeoff_gpu_{name}", text, labels=["gpu", "uuid", "name", *([label] if label else [])])
        for name, (kind, label, text) in FAMILIES.items()
    }
    for gpu in gpus:
        for (name, label), value in _figures(gpu).items():
            if value is not None:
                own = [label] if FAMILIES[name][1] else []
                families[name].add_metric([str(gpu.index), gpu.uuid, gpu.name, *own], value)
    yield from families.values()


def _figures(gpu: GpuState) -> dict[tuple[str, str], float | None]:
    """All that is known of a GPU, by metric and own label."""
    memory = gpu.memory
    return {
        ("up", ""): float(gpu.up),
        **{("nvml_errors", error): count for error, count in sorted(gpu.errors.items())},
        ("memory_total_bytes", ""): memory.total if memory else None,
        ("memory_used_bytes", ""): memory.used if memory else None,
        ("memory_reserved_bytes", ""): memory.reserved if memory else None,
        ("memory_peak_bytes", ""): gpu.peak,
        **{("engine_memory_bytes", engine): use.memory for engine, use in sorted(gpu.engines.items())},
        **{("engine_processes", engine): use.processes for engine, use in sorted(gpu.engines.items())},
        **gpu.readings,
    }
