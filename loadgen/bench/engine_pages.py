"""Where each engine's metrics page is, and the GPU exporter's: as given, else where its kind or the stack has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from loadgen.endpoints.endpoint import tls_context
from loadgen.endpoints.seats import Seat, page_url
from loadgen.engines import GENERIC, get_engine
from loadgen.errors import UserError
from loadgen.monitoring.engine_watch import Pages
from loadgen.monitoring.page_reader import PageReader
from loadgen.runs.manifest import Manifest

KSANA_EXPORTER, GPU_EXPORTER = "ksana-exporter", "gpu-exporter"
"""Services of a stack."""
PUSHES = "ksana"
"""The kind whose figures are at its exporter."""


def pages_of(
    seats: Sequence[Seat], manifest: Manifest, services: Mapping[str, str], gpu_metrics: str | None
) -> Callable[[str], Pages]:
    """How the pages of an engine are found when its block begins.

    Args:
        seats: the engines of the race.
        manifest: of the run; it tells what kind an engine is once it was asked.
        services: URLs of the stack's services by name; empty for endpoints.
        gpu_metrics: the GPU exporter's page, where it is not the stack's.
    """
    by_name = {seat.name: seat for seat in seats}
    gpus = gpu_metrics or (page_url(services[GPU_EXPORTER], GPU_EXPORTER) if GPU_EXPORTER in services else None)
    gpu_reader = PageReader(gpus) if gpus else None
    found: dict[str, Pages] = {}

    def pages(engine: str) -> Pages:
        if engine not in found:
            seat = by_name[engine]
            kind = next((facts.kind for facts in manifest.engines if facts.name == engine), seat.kind) or GENERIC
            url = seat.local_url or seat.base_url
            called = (seat.stack_name, engine, f"port-{urlsplit(url).port or 80}")
            found[engine] = Pages(_reader(seat, kind, services), seat.stack_name, gpu_reader, called)
        return found[engine]

    return pages


def _reader(seat: Seat, kind: str, services: Mapping[str, str]) -> PageReader | None:
    """An engine's own page; its key and headers go to its own address only."""
    if seat.metrics is not None:
        return PageReader(seat.metrics)
    if kind == PUSHES:
        return PageReader(page_url(services[KSANA_EXPORTER], KSANA_EXPORTER)) if KSANA_EXPORTER in services else None
    path = get_engine(kind).metrics_path
    if path is None:
        return None
    try:
        access = seat.headers(), tls_context(seat.needs)
    except UserError:  # whoever sends requests says so
        return None
    return PageReader((seat.local_url or seat.base_url) + path, *access)
