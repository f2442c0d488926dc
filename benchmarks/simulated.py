"""What the measurements against a simulator share: their cores, the simulator itself, races over it, command lines."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import urllib3

from loadgen.calibration.pinned_process import running_simulator


def command_line(about: str | None) -> argparse.ArgumentParser:
    """A parser that shows a program's whole docstring; SIGTERM ends the program as Ctrl-C does, with nothing left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)


def cores() -> tuple[int, int]:
    """The simulators' core, and that of the traffic: the first and the last that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextlib.contextmanager
def simulator(*options: str, core: int | None, realtime: bool = False) -> Iterator[str]:
    """A simulator on a core (None: on any); gives its URL."""
    with (
        tempfile.TemporaryDirectory(prefix="simulator-") as folder,
        running_simulator(Path(folder), core, options, realtime=realtime) as url,
    ):
        yield url


def ask(url: str, method: str = "GET") -> bytes:
    """Ask a control route of the simulator until all streams are closed. Raises SystemExit after a minute."""
    for _ in range(600):
        reply = urllib3.request(method, url, timeout=60, retries=False)
        if reply.status == 200:
            return reply.data
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer: {reply.status}")


def race_command(folder: Path, scenario: Mapping[str, Any], engines: Mapping[str, str], runs: Path) -> Sequence[str]:
    """Write a scenario to a folder; the command that races endpoints, by name, over it into the folder `runs`."""
    file = folder / f"{scenario['name']}.yaml"
    file.write_text(json.dumps(scenario), encoding="utf-8")
    command = [sys.executable, "-m", "loadgen", "bench", str(file), "--runs-dir", str(runs)]
    return [*command, *(word for name, url in engines.items() for word in ("--engine", f"{name}={url}"))]
