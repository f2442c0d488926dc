"""Locust users: FastHttpUser in the two ways that people read a stream with it, and the openai SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from benchmarks.client.errors import Measured
from benchmarks.client.peer import HERE, Job, Peer
from benchmarks.client.peer_environment import PeerEnvironment


class LocustPeer(Peer):
    """`locust --headless` with one of our locustfiles, in one process."""

    locustfile: ClassVar[str] = "fasthttp.py"
    user: ClassVar[str]
    """The class in it."""
    environment = PeerEnvironment("locust", gigabytes=0.5)

    def command(self, python: Path, job: Job) -> list[str]:
        """All users start at once, and the last one to finish ends the run."""
        command = [str(python.with_name("locust")), "--headless", "--only-summary", "--loglevel", "WARNING"]
        command += ["--host", job.url, "--locustfile", str(HERE / "programs" / self.locustfile), self.user]
        return [*command, "--users", str(job.load.streams), "--spawn-rate", str(job.load.streams)]

    def variables(self, job: Job) -> dict[str, str]:
        """What its locustfile is to do."""
        wanted = {"model": job.model, "tokens": job.load.tokens, "rounds": job.load.rounds, "prompts": str(job.prompts)}
        return {"BENCH_JOB": json.dumps({**wanted, "records": str(job.folder / "records.jsonl")})}

    def read(self, folder: Path, wall_offset_s: float) -> list[Measured]:
        """Its clock is `perf_counter`, which is CLOCK_MONOTONIC."""
        found = []
        for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            tpot = (one["t_last"] - one["t_first"]) / (one["tokens"] - 1)
            first = one["id"].endswith(".1")
            found.append(Measured(one["t_send"], one["t_first"] - one["t_send"], tpot, one["id"], first))
        return found


class LocustReadline(LocustPeer):
    """The best that FastHttpUser gives."""

    name = "locust-readline"
    title = "Locust FastHttpUser, readline"
    what = "gevent; lines read from the response as they come, stamped when parsed"
    packages = ("locust", "gevent", "geventhttpclient")
    start_s = 3.0
    user = "ReadlineUser"


class LocustIterLines(LocustReadline):
    """Locust's own streaming helper."""

    name = "locust-iter-lines"
    title = "Locust FastHttpUser, iter_lines"
    what = "gevent; Locust's streaming helper, which waits for 1 KB at a time; stamped when parsed"
    user = "IterLinesUser"


class OpenAISdk(LocustPeer):
    """The openai SDK: one client that all users share."""

    name = "openai-sdk"
    title = "openai SDK under Locust"
    what = "gevent; the SDK's synchronous client, shared by all users; stamped when it hands over an event"
    packages = ("openai", "httpx2", "locust", "gevent")
    blast_rounds = 4
    locustfile, user = "openai_sdk.py", "SdkUser"
    environment = PeerEnvironment("openai-sdk", gigabytes=0.5)
