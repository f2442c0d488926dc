"""Spoilt run folders to the readers of run folders: the manifest's and the records' bytes, and their values."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.security.mutations import spoil_bytes, spoil_values
from loadgen.cli.app import UNREADABLE
from loadgen.errors import UserError
from loadgen.export.vllm import vllm_result
from loadgen.record import RequestRecord
from loadgen.runs.folder import JSONL, MANIFEST, RunFolder
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest
from loadgen.scenario.cell import Cell


def good_folder() -> tuple[dict[str, object], list[dict[str, object]]]:
    """A manifest and its records: one complete block of four requests."""
    cell = Cell(4, 2, 1)
    facts = BlockFacts.begun("e.c.r1", "e", cell, warmup_requests=1, measured_requests=2)
    facts.status, facts.ended_at = "complete", facts.started_at + 1
    engine = EngineFacts(name="e", kind="vllm", api="chat", base_url="http://h", model="m")
    manifest = Manifest(run_id="r", started_at=facts.started_at, engines=[engine], blocks=[facts], status="complete")
    records = [
        RequestRecord(
            **{"run_id": "r", "block": "e.c.r1", "engine": "e", "model": "m", "cell": cell.id, "api": "chat"},
            **{"worker": "w", "user": 0, "index": n, "t_intended": n * 100, "t_send": n * 100, "t_done": n * 100 + 90},
            **{"wall_offset_ns": 10**18, "prompt_tokens_wanted": 4, "output_tokens_wanted": 2, "t_first": n * 100 + 10},
            **{"t_last": n * 100 + 90, "events": 2, "event_offsets_ns": [10, 90], "output_tokens": 2},
        ).to_dict()
        for n in range(4)
    ]
    return json.loads(manifest.model_dump_json()), records


def run(count: int) -> dict[str, object]:
    """Read each, and work out its blocks' figures. Raises whatever the command line would not make a sentence of."""
    source, (manifest, records) = random.Random(1), good_folder()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        for _ in range(count):
            facts = json.dumps(
                spoil_values(source, manifest) if source.random() < 0.5 else manifest, default=str
            ).encode()
            lines = [json.dumps(spoil_values(source, r) if source.random() < 0.3 else r, default=str) for r in records]
            text = "\n".join(lines).encode()
            if source.random() < 0.3:
                facts, text = spoil_bytes(source, facts), spoil_bytes(source, text)
            (folder.path / MANIFEST).write_bytes(facts)
            (folder.path / JSONL).write_bytes(text)
            try:
                data = folder.load()
                for block in data.blocks:
                    if block.measured and block.cut.window:
                        vllm_result(data.manifest, block, detailed=True, client_limited=False)
                outcomes["read"] += 1
            except UserError:
                outcomes["refused"] += 1
            except UNREADABLE as error:
                outcomes[f"a sentence ({type(error).__name__})"] += 1
    return {"outcomes": dict(outcomes)}
