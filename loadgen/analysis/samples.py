"""From a run's blocks to what statistics and thresholds take: raw values, and why a block decides nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from loadgen.client.verdict import BLOCK_LIMITED
from loadgen.contention.rule import reasons
from loadgen.message import joined, say
from loadgen.metrics.batches import Batch, batches_of
from loadgen.metrics.definitions import (
    e2e_ms,
    length_share,
    no_tpot,
    tokens_per_event,
    tpot_ms,
    ttft_from_intended_ms,
    ttft_ms,
)
from loadgen.metrics.slo import Slo
from loadgen.metrics.summary import summarise
from loadgen.record import ErrorKind, RequestRecord, TpotBasis
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import BlockFacts, Manifest
from loadgen.scenario.cell import read_cell
from loadgen.statistics.lengths import LENGTH_SHARE
from loadgen.statistics.metrics import GOODPUT, BlockSample, CellSample, Floats, Load, Total

FAILED = "failed"
"""Source of zeros and ones: whether a measured request failed."""
FROM_INTENDED = "ttft_from_intended_ms"
SOURCES: dict[str, Callable[[RequestRecord], float | None]] = {
    **{"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "e2e_ms": e2e_ms, FROM_INTENDED: ttft_from_intended_ms},
    LENGTH_SHARE: length_share,
}
OF_BATCHES: dict[str, Callable[[Batch], float]] = {
    "batch_latency_ms": lambda batch: batch.latency_ms,
    "batch_ttft_first_ms": lambda batch: batch.ttft_first_ms,
    "batch_ttft_median_ms": lambda batch: batch.ttft_median_ms,
    "batch_ttft_last_ms": lambda batch: batch.ttft_last_ms,
}
"""Sources of one value a batch, of a batch load."""
LENGTHS = (ErrorKind.PROMPT_TOKENS, ErrorKind.OUTPUT_TOKENS)
"""Error kinds of requests that had another length than was asked for."""
MOST_ERRORS = 0.01
ALL = 1.0


def most_errors(manifest: Manifest) -> float:
    """The share of failed requests beyond which a block of this run decides nothing."""
    return manifest.scenario_number("max_error_share", MOST_ERRORS)


def cell_samples(
    blocks: Sequence[BlockData], a: str, b: str, *, most: float = MOST_ERRORS, slo: Slo | None = None
) -> list[CellSample]:
    """Take the values of engines `a` and `b` from a run's blocks, cells in the order in which they were first run.

    Args:
        blocks: all blocks of the run.
        a: name of the engine that ratios are taken against.
        b: name of the other.
        most: share of a block's measured requests that may fail.
        slo: what requests must meet to count for goodput.
    """
    return paired(samples_by_cell(blocks, a, most, slo), samples_by_cell(blocks, b, most, slo), blocks)


def paired(
    a: dict[str, list[BlockSample]], b: dict[str, list[BlockSample]], blocks: Sequence[BlockData]
) -> list[CellSample]:
    """Put two engines' samples side by side, cells in the order in which one of the two first ran them."""
    cells = dict.fromkeys(block.facts.cell for block in blocks if block.facts.cell in a or block.facts.cell in b)
    return [cell_sample(cell, a.get(cell, []), b.get(cell, [])) for cell in cells]


def cell_sample(cell_id: str, a: Sequence[BlockSample], b: Sequence[BlockSample]) -> CellSample:
    """One cell's blocks of both engines, with its load where the id tells it."""
    cell = read_cell(cell_id)
    return CellSample(cell_id, a, b, None if cell is None else Load(cell.load_unit, float(cell.load)))


def samples_by_cell(
    blocks: Sequence[BlockData], engine: str, most: float = MOST_ERRORS, slo: Slo | None = None
) -> dict[str, list[BlockSample]]:
    """One engine's blocks by cell, those that decide nothing included."""
    found: dict[str, list[BlockSample]] = {}
    for block in blocks:
        if block.facts.engine == engine:
            found.setdefault(block.facts.cell, []).append(judged_sample(block, most, slo))
    return found


def with_starts(manifest: Manifest, blocks: Sequence[BlockData]) -> list[BlockData]:
    """The blocks with the start that each ran on: manifests that did not count had one for each turn, or kept one."""
    if manifest.scenario.get("between_blocks") != "restart" or any(block.facts.start is not None for block in blocks):
        return list(blocks)
    return [
        dataclasses.replace(block, facts=block.facts.model_copy(update={"start": block.facts.repeat}))
        for block in blocks
    ]


def judged_sample(block: BlockData, most: float = MOST_ERRORS, slo: Slo | None = None) -> BlockSample:
    """One block's raw values. Failures are known also of a block that decides nothing because so many failed."""
    sample = block_sample(block, why_invalid(block, most), slo)
    if why_invalid(block, ALL) is not None:
        return sample
    failed = np.array([not record.ok for record in block.measured], dtype=np.float64)
    return dataclasses.replace(sample, requests={**sample.requests, FAILED: failed})


def block_sample(block: BlockData, invalid: str | None, slo: Slo | None = None) -> BlockSample:
    """One block's raw values: latencies of its measured requests that succeeded, totals of its window."""
    measured = block.measured
    good = [record for record in measured if record.ok]
    totals = {}
    if invalid is None:
        summary = summarise([(block.records, measured, block.cut.window)], slo)
        rates = {"output_tokens": summary.output_tokens_per_s, "requests": summary.requests_per_s}
        if summary.slo is not None:
            rates[GOODPUT.source] = summary.slo.goodput_per_s
        seconds = summary.window_s or 0.0
        totals = {key: Total(rate * seconds, seconds) for key, rate in rates.items() if rate is not None}
    values = {key: _values(good, of) for key, of in SOURCES.items()} if invalid is None else {}
    without = no_tpot(good)
    if without is not None:
        values.pop("tpot_ms", None)
    if block.facts.batch and invalid is None:
        batches = batches_of(measured)
        values |= {key: np.array([of(batch) for batch in batches]) for key, of in OF_BATCHES.items()}
    return BlockSample(
        repeat=block.facts.repeat,
        started_at=block.facts.started_at,
        start=block.facts.start,
        requests=values,
        totals=totals,
        event_bias=_event_bias(good),
        no_tpot=without,
        invalid=invalid,
        failed=block.facts.status == "failed",
    )


def _event_bias(records: Sequence[RequestRecord]) -> float:
    """`BlockSample.event_bias`: TPOT divides by n - 1 tokens what n - k of them took, with k in the first event."""
    records = [record for record in records if record.tpot_basis in (None, TpotBasis.FIRST_EVENT)]
    together = tokens_per_event(records)
    lengths = [record.output_tokens for record in records if record.output_tokens is not None]
    if together is None or not lengths or not 1 < together < (mean := float(np.mean(lengths))):
        return 0.0
    return math.log((mean - together) / (mean - 1))


def _values(records: Sequence[RequestRecord], of: Callable[[RequestRecord], float | None]) -> Floats:
    return np.array([value for record in records if (value := of(record)) is not None], dtype=np.float64)


def why_invalid(block: BlockData, most_errors: float = MOST_ERRORS) -> str | None:
    """Why a block decides nothing, in words; None when it counts."""
    facts, measured = block.facts, block.measured
    if facts.status != "complete":
        return _STATUS[facts.status]
    wanted = facts.measured_requests
    if not measured or (wanted is not None and len(measured) < wanted):
        short = say("only {count} of {wanted} requests were measured", count=len(measured), wanted=wanted)
        return short if wanted else say("no request was measured")
    if (disturbed := _disturbed(facts)) is not None:
        return disturbed
    missed = sum(record.error in LENGTHS for record in measured)
    if missed > most_errors * len(measured):
        return say("{count} of {all} requests had another length than was asked for", count=missed, all=len(measured))
    failed = sum(not record.ok for record in measured)
    if failed > most_errors * len(measured):
        return say("{count} of {all} requests failed", count=failed, all=len(measured))
    return None


def _disturbed(facts: BlockFacts) -> str | None:
    """Whether the load generator or the machine spoiled it."""
    if facts.client is not None and facts.client.limited:
        return say(BLOCK_LIMITED, reasons=joined("{a}; {b}", facts.client.reasons))
    if facts.contention is not None and facts.contention.void:
        return say("others disturbed it: {reasons}", reasons=joined("{a}; {b}", reasons(facts.contention)))
    return None


_STATUS = {"running": say("it never ended"), "interrupted": say("it was interrupted"), "failed": say("it failed")}


def lost_repeats(blocks: Sequence[BlockSample]) -> set[int]:
    """The repeats of one engine's cell whose block failed, and that no other attempt made up for."""
    known = {block.repeat for block in blocks if FAILED in block.requests}
    return {block.repeat for block in blocks if block.failed} - known
