"""What is counted over a whole run: failed requests by kind, and the load generator's own work."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from loadgen.record import RequestRecord
from loadgen.runs.folder import BlockData


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorRow:
    """Failed requests of one engine by kind, with the first detail seen."""

    engine: str
    kind: str
    measured: int
    all: int
    """Warm-up and drain requests included."""
    cells: list[str]
    example: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class ClientFacts:
    """What the load generator did."""

    workers: int
    requests: int
    events: int
    aborted: int
    connections: int
    connect_ms_p50: float | None
    connect_ms_max: float | None


def error_rows(blocks: Sequence[BlockData]) -> list[ErrorRow]:
    """Failed requests by engine and kind, the most frequent first."""
    found: dict[tuple[str, str], list[tuple[RequestRecord, bool]]] = {}
    for block in blocks:
        for record, phase in zip(block.records, block.cut.phases, strict=True):
            if record.error is not None and not record.aborted:
                found.setdefault((block.facts.engine, record.error), []).append((record, phase == "measure"))
    rows = [
        ErrorRow(
            engine=engine,
            kind=kind,
            measured=sum(measured for _, measured in entries),
            all=len(entries),
            cells=sorted({record.cell for record, _ in entries}),
            example=next((record.error_detail for record, _ in entries if record.error_detail), None),
        )
        for (engine, kind), entries in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.all, row.engine, row.kind))


def client_facts(blocks: Sequence[BlockData]) -> ClientFacts:
    """The load generator's work over all blocks."""
    records = [record for block in blocks for record in block.records]
    opened = np.asarray([record.connect_ns / 1e6 for record in records if record.connect_ns > 0])
    outcomes = Counter("aborted" if record.aborted else "ended" for record in records)
    return ClientFacts(
        workers=len({record.worker for record in records}),
        requests=len(records),
        events=sum(record.events for record in records),
        aborted=outcomes["aborted"],
        connections=int(opened.size),
        connect_ms_p50=float(np.median(opened)) if opened.size else None,
        connect_ms_max=float(opened.max()) if opened.size else None,
    )
