import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from loadgen.machine import unused_ports

FAKE = Path(__file__).with_name("fake_engine.py")


@dataclasses.dataclass
class Fake:
    process: subprocess.Popen
    port: int
    pid: int
    """Pid of the process that listens."""
    more: list[tuple[int, int]]
    """(port, pid) of further servers of the same launcher."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def control(self, what: str) -> dict:
        with urllib.request.urlopen(f"{self.url}/control/{what}", timeout=60) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """kill -9 of the process that was started, and wait for it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def fake_engine():
    """Start a fake engine in a process group of its own (as a process manager does), or in ours."""
    started: list[subprocess.Popen] = []

    def start(flavour: str = "vllm", *, port: str = "0", launch: bool = False, own_group: bool = True) -> Fake:
        process = subprocess.Popen(
            [sys.executable, str(FAKE), port, flavour, *(["launch"] if launch else [])],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0 if own_group else None,
        )
        started.append(process)
        assert process.stdout is not None
        servers = []
        for _ in port.split(","):
            word, number, pid = process.stdout.readline().split()
            assert word == "ready"
            servers.append((int(number), int(pid)))
        return Fake(process, *servers[0], more=servers[1:])

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its forked children too
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def free_port() -> int:
    return unused_ports(1)[0]
