"""Bakeoff's own client: `bakeoff run`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.client.errors import Measured
from benchmarks.client.loads import PROMPT_TOKENS
from benchmarks.client.peer import Job, Peer
from benchmarks.client.peer_environment import OwnEnvironment
from loadgen.errors import CLIENT_LIMITED, OK
from loadgen.runs.record_file import read_records


class Bakeoff(Peer):
    """One process, as `bakeoff run` always is. Its warm-up answers differ in length, so that users part."""

    name = "bakeoff"
    title = "Bakeoff"
    what = "`bakeoff run`, one process; stamps by the kernel's receive time; its warm-up parts the streams"
    packages = ("bakeoff", "locust", "gevent", "httptools")
    environment = OwnEnvironment()
    start_s = 4.0
    good_exits = (OK, CLIENT_LIMITED)
    blast_rounds = 60
    warmup_requests = 1

    def command(self, python: Path, job: Job) -> list[str]:
        """Each user's warm-up request is one of its rounds."""
        measured = job.requests - job.load.streams * self.warmup_requests
        command = [str(python), "-m", "loadgen", "run", "--base-url", job.url, "--prompt-tokens", str(PROMPT_TOKENS)]
        command += ["--output-tokens", str(job.load.tokens), "--concurrency", str(job.load.streams)]
        command += ["--requests", str(measured), "--request-ids"]
        command += ["--warmup-requests", str(self.warmup_requests)]
        return [*command, "--json", str(job.folder / "result.json"), "--records", str(job.folder / "records.jsonl")]

    def read(self, folder: Path, wall_offset_s: float) -> list[Measured]:
        """TTFT and TPOT of each record as docs/methodology.md defines them."""
        records, broken = read_records(folder / "records.jsonl")
        if broken:
            raise ValueError(f"{broken} records cannot be read")
        found = []
        for record in records:
            if not record.ok or record.t_first is None or record.t_last is None or record.output_tokens is None:
                continue
            ttft_s = (record.t_first - record.t_send) / 1e9
            tpot_s = (record.t_last - record.t_first) / 1e9 / max(1, record.output_tokens - 1)
            found.append(Measured(record.t_send / 1e9, ttft_s, tpot_s, record.request_id, record.index == 0))
        return found


class BakeoffInStep(Bakeoff):
    """Without the warm-up, its streams move in step as those of other tools do."""

    name = "bakeoff-in-step"
    title = "Bakeoff, in step"
    what = "the same without its warm-up, so that its streams move in step as the others' do"
    warmup_requests = 0
