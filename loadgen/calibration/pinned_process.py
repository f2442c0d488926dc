"""Child processes on a core of their own, the simulator among them: what a comparison with a known truth runs on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.errors import UserError
from loadgen.files import tail
from loadgen.hosts.base import quoted
from loadgen.machine import ROOT

TRUTH_FILE, SIMULATOR_LOG = "truth.npz", "simulator.log"


@contextlib.contextmanager
def pinned_process(
    command: Sequence[str], *, core: int | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A child on `core` (None: on any) that is gone when this ends, whatever ends it. `options` are Popen's."""
    usable = os.sched_getaffinity(0)
    # A child inherits its parent's cores: so it never runs elsewhere, not even while it starts.
    os.sched_setaffinity(0, {core} if core is not None else usable)
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, **options)
    finally:
        os.sched_setaffinity(0, usable)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def running_simulator(folder: Path, core: int | None, options: Sequence[str], *, realtime: bool) -> Iterator[str]:
    """A simulator on `core` (None: on any) with a truth log in `folder`; gives its URL. It has ended, and written, when
    this does.

    Raises:
        UserError: it did not start, or ended by itself.
    """
    command = [sys.executable, "-m", "simulator", "--port", "0", "--truth", str(folder / TRUTH_FILE), *options]
    command += [*(["--cpu", str(core)] if core is not None else []), *["--realtime"] * realtime]
    log = folder / SIMULATOR_LOG
    with log.open("wb") as err, pinned_process(command, stdout=subprocess.PIPE, stderr=err) as process:
        line = io.TextIOWrapper(process.stdout).readline() if process.stdout is not None else ""
        if "http://" not in line:
            process.wait(10)
            raise UserError(f"the simulator did not start:\n{log_tail(log)}")
        yield line.split()[1]
        if process.poll() is not None:
            raise UserError(f"the simulator ended by itself:\n{log_tail(log)}")
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def read_truth(folder: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The truth log that a simulator left in `folder`: its arrays, and its own summary (docs/simulator.md).

    Raises:
        UserError: there is none.
    """
    try:
        with np.load(folder / TRUTH_FILE, allow_pickle=False) as file:
            truth = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise UserError(f"the simulator left no truth log: {error}\n{log_tail(folder / SIMULATOR_LOG)}") from None
    return truth, json.loads(str(truth.pop("summary")))


def may_realtime() -> bool:
    """Whether a process of ours may use SCHED_FIFO; tried in a child."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30).returncode == 0


def log_tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, set off; empty if there is none."""
    return quoted(tail(log, lines))
