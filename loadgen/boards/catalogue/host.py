"""Panels of what engines use of their host, shown on more than one board."""

from __future__ import annotations

from loadgen.boards.catalogue import reasons
from loadgen.boards.catalogue.queries import ENGINE, chosen
from loadgen.boards.model import Panel

HOST_MEMORY = Panel(
    "Host memory",
    "Memory of the engine's whole process tree, shared pages counted once (PSS). Flat is good; a slow "
    "rise that never ends is a leak.",
    "bytes",
    (chosen(f'sum by (engine) (bakeoff_engine_memory_bytes{{{ENGINE},kind="pss"}})'),),
    reasons.NO_EXPORTER,
)
CPU_CORES = Panel(
    "CPU cores in use",
    "CPU time of the engine's whole process tree, per second. A GPU engine that keeps a core full is "
    "limited by its host; a CPU engine should use all that it was given.",
    "short",
    (chosen(f"sum by (engine) (rate(bakeoff_engine_cpu_seconds_total{{{ENGINE}}}[30s]))"),),
    reasons.NO_EXPORTER,
)
