"""Panels of what engines use of their host, shown on more than one board."""

from __future__ import annotations

from grafana.boards import reasons
from grafana.boards.board import Panel, Query
from grafana.boards.queries import ENGINE, chosen

HOST_MEMORY = Panel(
    title="Host memory",
    about="Memory of the engine's whole process tree, shared pages counted once (PSS). Flat is good; a slow "
    "rise that never ends is a leak.",
    unit="bytes",
    queries=(Query(chosen(f'sum by (engine) (bakeoff_engine_memory_bytes{{{ENGINE},kind="pss"}})')),),
    no_data=reasons.NO_EXPORTER,
    minimum=0,
)
CPU_CORES = Panel(
    title="CPU cores in use",
    about="CPU time of the engine's whole process tree, per second. A GPU engine that keeps a core full is "
    "limited by its host; a CPU engine should use all that it was given.",
    unit="short",
    queries=(Query(chosen(f"sum by (engine) (rate(bakeoff_engine_cpu_seconds_total{{{ENGINE}}}[30s]))")),),
    no_data=reasons.NO_EXPORTER,
    minimum=0,
)
