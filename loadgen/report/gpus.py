"""How many GPUs each engine of a run has, and what each of them and each user gets."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from loadgen.engines import GENERIC
from loadgen.metrics.summary import CellSummary
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.cost import Cost
from loadgen.scenario.serving import asked_of
from loadgen.scenario.together import alone_name

PARALLEL = ("tensor_parallel_size", "data_parallel_size")
"""Settings whose product is the number of GPUs."""
MS = 1000.0


def gpus_of(manifest: Manifest, engines: Sequence[str], cost: Cost | None = None) -> dict[str, int]:
    """How many GPUs each engine uses: as `cost` tells, else as it was set up; 1 where nobody asked for more."""
    found = {}
    for engine in engines:
        asked, refused = asked_of(manifest.scenario, engine), _not_honoured(manifest, engine)
        used = 1
        for setting in PARALLEL:
            size = asked.get(setting)
            used *= size if isinstance(size, int) and size > 0 and setting not in refused else 1
        found[engine] = used if cost is None else cost.engine_gpus.get(engine, cost.gpus or used)
    return found


def facts_of(manifest: Manifest, engine: str) -> EngineFacts | None:
    """The manifest's facts of an engine, which ran together with others maybe."""
    by_name = {facts.name: facts for facts in manifest.engines}
    return by_name.get(engine, by_name.get(alone_name(engine)))


def kind_of(manifest: Manifest) -> Callable[[str], Hashable]:
    """What two engines of a run have in common if they differ in their number of GPUs alone."""
    kinds = {facts.name: (facts.kind if facts.kind != GENERIC else facts.seat) for facts in manifest.engines}

    def kind(engine: str) -> Hashable:
        asked = asked_of(manifest.scenario, engine)
        others = sorted((name, repr(value)) for name, value in asked.items() if name not in PARALLEL)
        alone = alone_name(engine)
        return kinds.get(engine, kinds.get(alone, alone)), engine == alone, tuple(others)

    return kind


def per_gpu(summary: CellSummary, gpus: int) -> float | None:
    """Output tokens a second of each GPU."""
    return None if summary.output_tokens_per_s is None else summary.output_tokens_per_s / gpus


def per_user(summary: CellSummary) -> float | None:
    """Output tokens a second that a user sees: 1 / mean TPOT."""
    return MS / summary.tpot_ms.mean if summary.tpot_ms.mean else None


def _not_honoured(manifest: Manifest, engine: str) -> set[str]:
    """The settings that the engine could not honour, by its launch record."""
    facts = facts_of(manifest, engine)
    told: Any = facts.launch.get("serving") if facts is not None else None
    rows = [row for row in told if isinstance(row, Mapping)] if isinstance(told, list) else []
    return {str(row.get("setting")) for row in rows if row.get("outcome") == "not honoured"}
