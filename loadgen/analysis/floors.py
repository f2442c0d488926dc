"""The load generator's own error in a run: from its calibration, at as many streams as were in flight."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import ValidationError

from loadgen.client.floor import Floor, FloorStep
from loadgen.message import Message, say
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import Manifest


def floors_ms(runs: Sequence[tuple[Manifest, Sequence[BlockData]]]) -> dict[str, float]:
    """The load generator's own error by source, from its calibration at the highest load of these blocks.

    Of several runs the largest, where all know theirs; beyond the calibrated loads that of the highest of them. TTFT
    only: the p99 of one request's error, which is the most that a percentile may be off by. TPOT is off by a share of
    a per mille, far less than any margin.

    Args:
        runs: manifests, each with the blocks that are looked at.
    """
    found = []
    # Two runs are held against each other: the more loaded one's streams count for both.
    streams = max((streams_of(block) for _, blocks in runs for block in blocks), default=1)
    for manifest, _ in runs:
        steps = _steps(manifest)
        if not steps:
            return {}
        step = next((step for step in steps if step.streams >= streams), steps[-1])
        found.append(step.ttft_error_ms.p99)
    return {"ttft_ms": max(found)} if found else {}


def beyond_calibration(manifest: Manifest, blocks: Sequence[BlockData]) -> Message | None:
    """Say that more streams were in flight than the load generator was calibrated with; None where it reaches."""
    steps = _steps(manifest)
    streams = max(map(streams_of, blocks), default=1)
    if not steps or streams <= steps[-1].streams:
        return None
    return say(
        "Up to {streams} streams were in flight, and the load generator is calibrated up to {most} only: its own error "
        "is taken from there, and may be larger.",
        streams=streams,
        most=steps[-1].streams,
    )


def streams_of(block: BlockData) -> int:
    """Requests in flight: a closed loop's users, a batch; in an open loop the mean, by Little's law, rounded up."""
    if block.facts.rate <= 0:
        return block.facts.streams
    measured = block.measured
    if not measured:
        return 0
    starts = [record.t_send + record.wall_offset_ns for record in measured]
    span = max(record.t_done + record.wall_offset_ns for record in measured) - min(starts)
    return math.ceil(sum(record.t_done - record.t_send for record in measured) / span) if span > 0 else 1


def _steps(manifest: Manifest) -> list[FloorStep]:
    """The loads that were calibrated, lowest first; empty where nothing is known."""
    try:
        floor = Floor.model_validate(manifest.floor)
    except ValidationError:
        return []
    return sorted((step for step in floor.steps if step.valid), key=lambda step: step.streams)
