"""Runs `bakeoff bench` as a user does, in a process of its own, and looks at what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from loadgen.errors import CLIENT_LIMITED, OK
from loadgen.runs.folder import RunData, RunFolder
from tests.fault_server import FaultServer
from tests.simulator.client import Simulator

TOP = Path(__file__).parents[3]
LIMIT_S = 600.0
WENT_WELL = (OK, CLIENT_LIMITED)
"""Exit codes of a run without a failure; whether the load generator was its limit is up to the machine."""
SCENARIO = {
    "name": "tiny",
    "question": "Does it work at all?",
    "prompt_tokens": [32],
    "output_tokens": [8],
    "load": {"concurrency": [2]},
    "requests": 10,
    "timeouts": {"connect_s": 60, "stall_s": 120, "total_s": 240},
}


def wait_for(get: Callable[[], Any], limit_s: float = LIMIT_S, what: str = "it") -> Any:
    """Wait until `get` returns something true."""
    deadline = time.monotonic() + limit_s
    while True:
        if found := get():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {limit_s:g} s")
        time.sleep(0.05)


class Bench:
    """One `bakeoff bench` over fault servers, as a context: what it started is gone at the end."""

    def __init__(
        self, folder: Path, engines: Mapping[str, FaultServer | Simulator], workers: int = 1, **scenario: Any
    ) -> None:
        self.runs_dir = folder / "runs"
        self.scenario = folder / "tiny.yaml"
        folder.mkdir(exist_ok=True)
        self.scenario.write_text(json.dumps({**SCENARIO, **scenario}))
        seats = [word for name, server in engines.items() for word in ("--engine", f"{name}={server.url}")]
        self.loadgen = [sys.executable, "-m", "loadgen"]
        command = [*self.loadgen, "bench", str(self.scenario), "--runs-dir", str(self.runs_dir)]
        command += ["--accept", "degenerate-text"]  # these servers say the same to every prompt
        self._command = [*command, *seats, "--workers", str(workers)]
        self.stdout = folder / "stdout.txt"

    def __enter__(self) -> Bench:
        with self.stdout.open("wb") as out:
            self.process = psutil.Popen(
                self._command, cwd=TOP, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment()
            )
        self.seen: list[psutil.Process] = []
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.locusts(), *self.seen, self.process]:
            if process.is_running():
                process.kill()
        self.process.wait()

    def locusts(self) -> list[psutil.Process]:
        """Its Locust processes, the master first."""
        try:
            found = [p for p in self.process.children() if "locust" in " ".join(p.cmdline())]
        except psutil.Error:
            return []
        self.seen += [p for p in found if p not in self.seen]
        return sorted(found, key=lambda p: ("--master" not in p.cmdline(), p.pid))

    @property
    def output(self) -> str:
        return self.stdout.read_text()

    @property
    def folder(self) -> RunFolder:
        return RunFolder.find(self.runs_dir, None)

    def load(self) -> RunData:
        return self.folder.load()

    def lines(self) -> list[str]:
        """Whole lines of records on disk now."""
        return [line for file in self.runs_dir.glob("*/requests.jsonl") for line in file.read_text().splitlines(True)]

    def wait_for_records(self, count: int) -> list[str]:
        def enough() -> bool:
            assert self.process.poll() is None, self.output
            return len(self.lines()) >= count

        wait_for(enough, what=f"{count} records")
        self.locusts()
        return self.lines()

    def wait(self) -> int:
        """Return the exit code: 0 for all that went well."""
        code = int(self.process.wait(LIMIT_S))
        return OK if code in WENT_WELL else code

    def signal(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def assert_nothing_left(self, limit_s: float = LIMIT_S) -> None:
        wait_for(lambda: not any(alive(p) for p in self.seen), limit_s, "the end of all Locust processes")
        assert self.seen

    def assert_reportable(self) -> str:
        """The report of its run renders; returns what was printed."""
        done = subprocess.run(
            [sys.executable, "-m", "loadgen", "report", "--runs-dir", str(self.runs_dir)],
            cwd=TOP,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (self.folder.path / "report.html").stat().st_size > 1000
        return done.stdout


def environment() -> dict[str, str]:
    """Ours without the settings of a stack that may run beside the tests; wide enough that no line is broken."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BAKEOFF_", "LOCUST_"))}
    return {**kept, "COLUMNS": "200"}


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
