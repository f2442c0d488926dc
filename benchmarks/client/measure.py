"""One run: a fresh simulator on one core, a peer on another, and what the peer said against what was true."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.client.errors import Errors, compare
from benchmarks.client.inputs import write_prompts, write_tokenizer
from benchmarks.client.loads import Load
from benchmarks.client.peer import Job, Peer, base_variables
from benchmarks.client.peer_environment import STATE
from benchmarks.client.results import Run
from benchmarks.client.usage import ProcessTree, Sample, cpu_us_per_event
from loadgen.calibration.pinned_process import log_tail, pinned_process, read_truth, running_simulator
from loadgen.errors import UserError
from loadgen.machine import ROOT as CHECKOUT
from loadgen.stream.kernel_time import sample_offset_ns

SAMPLE_S = 0.05
START_LIMIT_S = 180.0
"""How long a peer may take beside its load; some import for many seconds."""
BLAST_LIMIT_S = 120.0


def measure(
    peer: Peer, python: Path, load: Load, folder: Path, *, repeat: int, cores: tuple[int, int], realtime: bool
) -> Run:
    """Run a peer once.

    Args:
        peer: which.
        python: the interpreter of its environment.
        load: what it is to do.
        folder: for all files of this run; emptied first, and gone at the end unless the run failed.
        repeat: counted from 0.
        cores: of the server and of the peer.
        realtime: the server has SCHED_FIFO.

    Raises:
        UserError: the server failed, or the peer did, or its figures do not belong to what the server answered.
    """
    began = time.monotonic()
    run = _once(peer, python, load, folder, repeat, cores, realtime)
    if realtime and not run.oracle_valid and not load.blast:
        # A server that never sleeps loses some of each second to starved processes: sched(7).
        other = _once(peer, python, load, folder, repeat, cores, False)
        run = other if other.oracle_valid else run
    shutil.rmtree(folder, ignore_errors=True)
    return run.model_copy(update={"seconds": time.monotonic() - began})


def _once(
    peer: Peer, python: Path, load: Load, folder: Path, repeat: int, cores: tuple[int, int], realtime: bool
) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    prompts = write_prompts(folder / "prompts.jsonl", load.streams * load.rounds, load.tokens)
    tokenizer = write_tokenizer(folder / "tokenizer")
    with running_simulator(folder, cores[0], load.server_options, realtime=realtime) as url:
        job = Job(url, load, folder, tokenizer, prompts)
        command = peer.command(python, job)
        samples = _run(peer, command, job, cores[1])
    wall_offset_s = sample_offset_ns() / 1e9
    truth, summary = read_truth(folder)
    try:
        own = peer.read(folder, wall_offset_s)
    except (OSError, ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        words = f"{type(error).__name__}: {error}\n{log_tail(folder / 'peer.log')}"
        raise UserError(f"its output cannot be read: {words}") from None
    errors = compare(own, truth, load)
    return _figures(errors, samples, truth, load).model_copy(
        update={
            "peer": peer.name,
            "load": load.name,
            "repeat": repeat,
            "oracle_valid": load.blast or summary["verdict"] == "valid",
            "command": _told(command, job, python),
        }
    )


def _run(peer: Peer, command: list[str], job: Job, core: int) -> list[Sample]:
    """Run the peer to its end, looking at its processes all the while."""
    log = job.folder / "peer.log"
    limit = START_LIMIT_S + (BLAST_LIMIT_S if job.load.blast else 4 * job.load.seconds)
    variables = {**base_variables(STATE), **peer.variables(job)}
    deadline = time.monotonic() + limit
    samples = []
    with log.open("wb") as out, _group(command, core, variables, out.fileno()) as process:
        tree = ProcessTree(process.pid)
        while process.poll() is None:
            samples.append(tree.sample())
            if time.monotonic() > deadline:
                raise UserError(f"it did not end within {limit:.0f} s:\n{log_tail(log)}")
            time.sleep(SAMPLE_S)
    if process.returncode not in peer.good_exits:
        raise UserError(f"it failed with exit status {process.returncode}:\n{log_tail(log)}")
    return samples


@contextlib.contextmanager
def _group(command: list[str], core: int, variables: dict[str, str], out: int) -> Iterator[subprocess.Popen[bytes]]:
    """The peer in a process group of its own, which is gone at the end with all that it started."""
    options = {"env": variables, "stdout": out, "stderr": out, "start_new_session": True}
    with pinned_process(command, core=core, **options) as process:
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)


def _figures(errors: Errors, samples: list[Sample], truth: dict[str, np.ndarray], load: Load) -> Run:
    ttft, tpot = np.abs(errors.ttft_ms), np.abs(errors.tpot_percent)
    return Run(
        requests=len(ttft),
        ttft_p50_ms=float(np.percentile(ttft, 50)),
        ttft_p99_ms=float(np.percentile(ttft, 99)),
        tpot_p50_percent=float(np.percentile(tpot, 50)) if len(tpot) else None,
        tpot_p99_percent=float(np.percentile(tpot, 99)) if len(tpot) else None,
        tpot_mean_percent=float(100 * errors.tpot_ms.mean() / errors.true_tpot_ms.mean()) if len(tpot) else None,
        cpu_us_per_event=cpu_us_per_event(samples, truth, load.streams),
        peak_mb=max(sample.rss_bytes for sample in samples) / 1e6,
    )


def _told(command: list[str], job: Job, python: Path) -> str:
    """The command as it is printed: without what is of this machine only."""
    short = {f"{job.folder}/": "", str(job.folder): ".", f"{python.parent}/": "", f"{CHECKOUT}/": "", job.url: "URL"}
    words = " ".join(command)
    for long, shorter in short.items():
        words = words.replace(long, shorter)
    return words
