"""A run's blocks as thresholds look at them: what the statistics take, and which requests failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from loadgen.analysis import from_run
from loadgen.metrics.definitions import ttft_from_intended_ms
from loadgen.metrics.slo import Slo
from loadgen.runs.folder import BlockData, RunData
from loadgen.runs.manifest import Manifest
from loadgen.statistics.metrics import BlockSample

FAILED = "failed"
"""Source of zeros and ones: whether a measured request failed."""
FROM_INTENDED = "ttft_from_intended_ms"
ALL = 1.0


def block_samples(run: RunData, engine: str) -> dict[str, list[BlockSample]]:
    """One engine's blocks by cell, those that decide nothing included."""
    found: dict[str, list[BlockSample]] = {}
    most = most_errors(run.manifest)
    for block in run.blocks:
        if block.facts.engine == engine:
            found.setdefault(block.facts.cell, []).append(block_sample(block, most))
    return found


def most_errors(manifest: Manifest) -> float:
    """The share of failed requests beyond which a block of this run decides nothing."""
    return manifest.scenario_number("max_error_share", from_run.MOST_ERRORS)


def block_sample(block: BlockData, most: float = from_run.MOST_ERRORS, slo: Slo | None = None) -> BlockSample:
    """One block's raw values. Failures are known also of a block that decides nothing because so many failed."""
    invalid = from_run.why_invalid(block, most)
    sample = from_run.block_sample(block, invalid, slo)
    requests = dict(sample.requests)
    if invalid is None:
        waits = [ttft_from_intended_ms(record) for record in block.measured if record.ok]
        requests[FROM_INTENDED] = np.array([wait for wait in waits if wait is not None], dtype=np.float64)
    if from_run.why_invalid(block, ALL) is None:
        requests[FAILED] = np.array([not record.ok for record in block.measured], dtype=np.float64)
    return dataclasses.replace(sample, requests=requests, failed=block.facts.status == "failed")


def lost_repeats(blocks: Sequence[BlockSample]) -> set[int]:
    """The repeats of one engine's cell whose block failed, and that no other attempt made up for."""
    known = {block.repeat for block in blocks if FAILED in block.requests}
    return {block.repeat for block in blocks if block.failed} - known
