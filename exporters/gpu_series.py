"""What is known of the GPUs, as Prometheus metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporters.gpu_monitor import GpuState

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]

READINGS: dict[str, tuple[Family, str, str]] = {
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

    up = _family(GaugeMetricFamily, "up", "Whether the GPU answers; 0 when it fell off the bus")
    errors = _family(CounterMetricFamily, "nvml_errors", "Readings that failed, by NVML's name of the error", "error")
    total = _family(GaugeMetricFamily, "memory_total_bytes", "Memory of the GPU")
    used = _family(GaugeMetricFamily, "memory_used_bytes", "Memory that processes hold, without what is reserved")
    reserved = _family(GaugeMetricFamily, "memory_reserved_bytes", "Memory that driver and firmware keep")
    peak = _family(GaugeMetricFamily, "memory_peak_bytes", "Most memory in use at once since the previous scrape")
    engine_memory = _family(GaugeMetricFamily, "engine_memory_bytes", "Memory of the engine's processes", "engine")
    processes = _family(GaugeMetricFamily, "engine_processes", "The engine's processes on the GPU", "engine")
    readings = {name: _family(kind, name, text, label) for name, (kind, label, text) in READINGS.items()}

    for gpu in gpus:
        labels = [str(gpu.index), gpu.uuid, gpu.name]
        up.add_metric(labels, float(gpu.up))
        for error, count in sorted(gpu.errors.items()):
            errors.add_metric([*labels, error], count)
        if gpu.memory is not None:
            total.add_metric(labels, gpu.memory.total)
            used.add_metric(labels, gpu.memory.used)
            if gpu.memory.reserved is not None:
                reserved.add_metric(labels, gpu.memory.reserved)
        if gpu.peak is not None:
            peak.add_metric(labels, gpu.peak)
        for engine, use in sorted(gpu.engines.items()):
            processes.add_metric([*labels, engine], use.processes)
            if use.memory is not None:
                engine_memory.add_metric([*labels, engine], use.memory)
        for (name, label), value in gpu.readings.items():
            readings[name].add_metric([*labels, label] if READINGS[name][1] else labels, value)
    yield from (up, errors, total, used, reserved, peak, engine_memory, processes, *readings.values())


def _family(kind: Family, name: str, text: str, label: str = "") -> GaugeMetricFamily | CounterMetricFamily:
    return kind(f"bakeoff_gpu_{name}", text, labels=["gpu", "uuid", "name", *([label] if label else [])])
