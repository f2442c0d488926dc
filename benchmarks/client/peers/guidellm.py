"""GuideLLM."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.client.errors import Measured
from benchmarks.client.peer import Job, Peer
from benchmarks.client.peer_environment import PeerEnvironment


class GuideLLM(Peer):
    """asyncio and httpx in worker processes: one, as there is one core."""

    name = "guidellm"
    title = "GuideLLM"
    what = "asyncio and httpx, one worker process beside the main one; stamps when it has split off a line"
    packages = ("guidellm", "httpx")
    environment = PeerEnvironment("guidellm", gigabytes=3.0, torch=True)
    start_s = 11.0
    blast_rounds = 5

    def variables(self, job: Job) -> dict[str, str]:
        """By itself it would start up to ten workers, each importing torch, on that one core."""
        return {"GUIDELLM__MAX_WORKER_PROCESSES": "1"}

    def command(self, python: Path, job: Job) -> list[str]:
        """Prompts from a file: its synthetic text needs a tokenizer that knows English words."""
        backend = f"kind=openai_http,target={job.url},model={job.model},request_format=/v1/completions"
        command = [str(python.with_name("guidellm")), "run", "--backend", backend]
        command += ["--profile", f"kind=concurrent,streams={job.load.streams}"]
        command += ["--constraint", f"kind=max_requests,count={job.requests}"]
        command += ["--tokenizer", f"kind=huggingface_auto,model={job.tokenizer}"]
        command += ["--data", f"kind=json_file,path={job.prompts}", "--disable-console-interactive"]
        return [*command, "--output", f"kind=json,path={job.folder / 'result.json'}"]

    def read(self, folder: Path, wall_offset_s: float) -> list[Measured]:
        """Its TTFT, and what it calls inter-token latency: its TPOT has the first token's time in it.

        Its times are the wall clock's; it keeps no ids that a server sees.
        """
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return [
            Measured(
                request["request_start_time"] - wall_offset_s,
                request["time_to_first_token_ms"] / 1e3,
                request["inter_token_latency_ms"] / 1e3,
            )
            for request in result["benchmarks"][0]["requests"]["successful"]
        ]
