"""Run folders whose truth is known: latencies from a distribution, the same in every block but for a factor of its own.

python -m tests.loadgen.known_run FOLDER    writes two runs, B with a TTFT 8% longer
"""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

from loadgen.record import RequestRecord, int64s
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest
from loadgen.runs.record_file import RecordFile
from loadgen.scenario.model import Cell

START = 1_790_000_000.0
MS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Truth:
    """How an engine behaves. The median of TTFT is `ttft_ms`, its p95 exp(1.645 x `spread`) times that."""

    ttft_ms: float = 80.0
    tpot_ms: float = 5.0
    spread: float = 0.08
    block_spread: float = 0.003
    """Of a factor that all requests of one block share."""
    error_share: float = 0.0


def known_run(
    runs: Path,
    run_id: str,
    truth: Truth | None = None,
    *,
    engine: str = "vllm",
    cells: tuple[Cell, ...] = (Cell(512, 8, 4),),
    repeats: int = 6,
    requests: int = 200,
    seed: int = 1,
    version: str = "1.0",
    truths: dict[str, Truth] | None = None,
    facts: dict[str, Any] | None = None,
    manifest: dict[str, Any] | None = None,
) -> RunFolder:
    """Write a run of one engine, or of those of `truths`. `facts` and `manifest` replace what stands there."""
    chance = random.Random(f"{run_id} {seed}")
    engines = truths or {engine: truth or Truth()}
    blocks: list[tuple[BlockFacts, list[RequestRecord]]] = []
    now = 10.0
    for repeat in range(1, repeats + 1):
        for name in engines if repeat % 2 else reversed(engines):
            for cell in cells:
                made, now = _block(run_id, name, engines[name], cell, repeat, requests, now, chance)
                blocks.append(made)
    known = {
        "run_id": run_id,
        "status": "complete",
        "started_at": START,
        "ended_at": START + now,
        "command": ["bakeoff", "bench", "known"],
        "scenario": {
            "name": "known",
            "question": "Is the truth found?",
            "prompt_tokens": sorted({cell.prompt_tokens for cell in cells}),
            "output_tokens": sorted({cell.output_tokens for cell in cells}),
            "load": {
                "concurrency": sorted({cell.concurrency for cell in cells if cell.concurrency}),
                "arrival": "poisson",
            },
            "requests": requests,
            "repeats": repeats,
            "seed": seed,
        },
        "engines": [_engine(name, version, facts or {}) for name in engines],
        "host": {"cpu": "Imaginary CPU", "cpus_usable": 8, "memory_bytes": 2**35, "os": "Linux", "gpus": []},
        "packages": {"bakeoff": "0.1.0"},
        "git": {"commit": "0" * 40, "dirty": False},
        "blocks": [block for block, _ in blocks],
    }
    folder = RunFolder.create(runs, Manifest(**{**known, **(manifest or {})}))
    file = RecordFile(folder.records_path)
    for _, records in blocks:
        file.append(records)
    file.close()
    return folder


def _engine(name: str, version: str, facts: dict[str, Any]) -> EngineFacts:
    known = {
        "name": name,
        "kind": "vllm",
        "api": "completions",
        "base_url": "http://127.0.0.1:1",
        "model": "imaginary-7b",
        "version": version,
        "context_length": 4096,
        "prompts": {"mode": "token ids", "overhead_tokens": 0},
        "launch": {"argv": ["serve", "--model", "imaginary-7b"], "environment": {"THREADS": "2"}},
    }
    return EngineFacts(**{**known, **facts})


def _block(
    run_id: str, engine: str, truth: Truth, cell: Cell, repeat: int, requests: int, now: float, chance: random.Random
) -> tuple[tuple[BlockFacts, list[RequestRecord]], float]:
    block = f"{engine}.{cell.id}.r{repeat}"
    factor = chance.lognormvariate(0, truth.block_spread)
    free = [(int(now * 1e9) + user * MS, user, 0) for user in range(cell.concurrency)]
    records: list[RequestRecord] = []
    at = int(now * 1e9)
    for index in range(1 + cell.whole(requests) // cell.batch if cell.batch else 0):
        places = range(cell.batch)
        batch = [_request(run_id, block, engine, truth, cell, at, place, index, factor, chance) for place in places]
        records += batch
        at = max(record.t_done for record in batch) + 20 * MS
    # One warm-up request of each user in front; some behind keep the load up until the last measured one has ended.
    for _ in range(requests + 4 * cell.concurrency if cell.concurrency else 0):
        free.sort()
        at, user, index = free.pop(0)
        record = _request(run_id, block, engine, truth, cell, at, user, index, factor, chance)
        records.append(record)
        free.append((record.t_done + MS, user, index + 1))
    ended = max(record.t_done for record in records) / 1e9
    facts = BlockFacts(
        id=block,
        record_id=block,
        engine=engine,
        cell=cell.id,
        repeat=repeat,
        users=cell.concurrency,
        batch=cell.batch,
        warmup_requests=1,
        measured_requests=cell.whole(requests),
        status="complete",
        started_at=START + now,
        ended_at=START + ended,
    )
    return (facts, records), ended + 5.0


def _request(
    run_id: str,
    block: str,
    engine: str,
    truth: Truth,
    cell: Cell,
    at: int,
    user: int,
    index: int,
    factor: float,
    chance: random.Random,
) -> RequestRecord:
    first = truth.ttft_ms * factor * chance.lognormvariate(0, truth.spread)
    gap = truth.tpot_ms * factor * chance.lognormvariate(0, truth.spread)
    offsets = [round((first + gap * token) * MS) for token in range(cell.output_tokens)]
    failed = chance.random() < truth.error_share
    return RequestRecord(
        **{"run_id": run_id, "block": block, "engine": engine, "model": "imaginary-7b", "cell": cell.id},
        **{"api": "completions", "worker": "w0", "user": user, "index": index},
        t_intended=at,
        t_send=at,
        t_done=at + offsets[-1] + MS // 10,
        wall_offset_ns=int(START * 1e9),
        prompt_tokens_wanted=cell.prompt_tokens,
        output_tokens_wanted=cell.output_tokens,
        t_first=None if failed else at + offsets[0],
        t_last=None if failed else at + offsets[-1],
        prompt_tokens=None if failed else cell.prompt_tokens,
        output_tokens=None if failed else cell.output_tokens,
        token_source=None if failed else "usage",
        events=0 if failed else len(offsets),
        event_offsets_ns=int64s([] if failed else offsets),
        http_status=503 if failed else 200,
        finish_reason=None if failed else "length",
        error="http" if failed else None,
        error_detail="503 from the engine" if failed else None,
    )


if __name__ == "__main__":
    known_run(Path(sys.argv[1]), "20260921-140000-known")
    known_run(Path(sys.argv[1]), "20260922-140000-known", Truth(ttft_ms=86.4), version="1.1")
