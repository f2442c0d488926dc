"""inference-perf of kubernetes-sigs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.client.errors import Measured
from benchmarks.client.loads import PROMPT_TOKENS
from benchmarks.client.peer import Job, Peer
from benchmarks.client.peer_environment import PeerEnvironment


class InferencePerf(Peer):
    """asyncio and aiohttp in worker processes: one, as there is one core."""

    name = "inference-perf"
    title = "inference-perf"
    what = (
        "asyncio and aiohttp, one worker process beside the main one; stamps when it has split off an event; its "
        "configuration is in benchmarks/client/peers/inference_perf.py"
    )
    packages = ("inference-perf", "aiohttp")
    environment = PeerEnvironment("inference-perf", gigabytes=1.5, newest=True)
    start_s = 9.0

    def command(self, python: Path, job: Job) -> list[str]:
        """Everything is in a configuration file."""
        path = job.folder / "config.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(self._configuration(job), file)
        return [str(python.with_name("inference-perf")), "--config_file", str(path), "--log-level", "WARNING"]

    def _configuration(self, job: Job) -> dict[str, Any]:
        fields = {"request": False, "response": False, "response_chunks": False, "info": False}
        lifecycle = {"per_stage": False, "per_request": True, "per_adapter": False, "use_server_output_tokens": True}
        return {
            "api": {"type": "completion", "streaming": True},
            "data": {
                "type": "random",
                "input_distribution": _fixed(PROMPT_TOKENS, job.requests),
                "output_distribution": _fixed(job.load.tokens, job.requests),
            },
            "load": {
                "type": "concurrent",
                "num_workers": 1,
                "worker_max_concurrency": job.load.streams,
                "interval": 0,
                "base_seed": 1,
                "stages": [{"num_requests": job.requests, "concurrency_level": job.load.streams}],
            },
            "server": {"type": "vllm", "model_name": job.model, "base_url": job.url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": str(job.tokenizer)},
            "report": {
                "request_lifecycle": {**lifecycle, "per_request_fields": {**fields, "computed_metrics": True}},
                "session_lifecycle": {"summary": False, "per_stage": False},
            },
            "storage": {"local_storage": {"path": str(job.folder)}},
        }

    def read(self, folder: Path, wall_offset_s: float) -> list[Measured]:
        """Its own metrics of each request; it has no ids. Its clock is `perf_counter`, which is CLOCK_MONOTONIC."""
        found = []
        for request in json.loads((folder / "per_request_lifecycle_metrics.json").read_text(encoding="utf-8")):
            if request["error"] is None:
                own = request["computed_metrics"]
                times = (own["time_to_first_token"], own["time_per_output_token"])
                found.append(Measured(request["start_time"], *times))
        return found


def _fixed(tokens: int, count: int) -> dict[str, Any]:
    # One more than requests: it takes one to find out the types.
    return {"type": "fixed", "min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": count + 1}
