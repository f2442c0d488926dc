"""Does the rule on contention find what is planted, and stay silent on a quiet machine?

`python -m benchmarks.truth.contention --blocks 200`: blocks of a stand-in engine and a stand-in load generator, each on
cores of its own, watched as a race watches its blocks. Run it on a machine that does nothing else: who else is there
is found, and counted against the rule. As root it plants memory pressure too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from scipy import stats

from loadgen.contention.reading import Contention
from loadgen.contention.rule import words
from loadgen.contention.watch import Watch

LOOK_S = 0.25
"""As a race asks Locust's master for a block's status."""
WORK = """
import os, sys, time
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
busy, pause, hold = float(sys.argv[2]), float(sys.argv[3]), bytearray(int(sys.argv[4]))
while True:
    until = time.perf_counter() + busy
    while time.perf_counter() < until:
        for at in range(0, len(hold), 4096):
            hold[at] = (hold[at] + 1) % 256
    time.sleep(pause)
"""
ENGINE, CLIENT, HOG = (0.02, 0.01), (0.002, 0.008), (0.1, 0.0)
"""Seconds of work and of rest: an engine that computes most of the time, a client that seldom does, a neighbour."""
GROUP = Path("/sys/fs/cgroup/bakeoff-contention")
HELD_BYTES, HIGH_BYTES = 96 << 20, 48 << 20


@contextlib.contextmanager
def working(cores: frozenset[int], pace: tuple[float, float], held: int = 0) -> Iterator[int]:
    """A process that works at this pace on these cores, and touches so many bytes; its pid."""
    told = ",".join(map(str, sorted(cores)))
    command = [sys.executable, "-c", WORK, told, *map(str, pace), str(held)]
    with subprocess.Popen(command) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def stopped(pid: int, after_s: float = 1.0, for_s: float = 1.0) -> Iterator[None]:
    """The process stands still for a while in mid-block."""
    script = f"sleep {after_s}; kill -STOP {pid}; sleep {for_s}; kill -CONT {pid}"
    with subprocess.Popen(["sh", "-c", script]) as shell:
        try:
            yield
        finally:
            shell.kill()
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def short_of_memory(pid: int) -> Iterator[None]:
    """The process is held to less memory than it works on, by a control group of its own."""
    GROUP.mkdir(exist_ok=True)
    (GROUP / "memory.high").write_text(str(HIGH_BYTES))
    former = Path("/sys/fs/cgroup") / Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1].split(":")[2].lstrip("/")
    (GROUP / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        (former / "cgroup.procs").write_text(str(pid))
        GROUP.rmdir()


def block(seconds: float, engine: frozenset[int], client: frozenset[int], plant: str) -> Contention:
    """Watch one block in which this is planted."""
    held = HELD_BYTES if plant == "memory" else 0
    with contextlib.ExitStack() as around:
        pids = [around.enter_context(working(engine, ENGINE, held)), around.enter_context(working(client, CLIENT))]
        time.sleep(0.5)
        planted: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
            "engine's cores": lambda: working(engine, HOG),
            "client's cores": lambda: working(client, HOG),
            "stopped": lambda: stopped(pids[0]),
            "memory": lambda: short_of_memory(pids[0]),
        }
        if plant in planted:
            around.enter_context(planted[plant]())
        watch = Watch([pids[0]], [pids[1]])  # not this process, whose child a neighbour is
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(LOOK_S)
            watch.look()
        return watch.reading()


def main() -> None:
    """Run the blocks, kinds in turns, and tell how many were found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200, help="of each kind (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="a block (default %(default)s)")
    parser.add_argument("--out", type=Path, help="write every block's reading there, one JSON object a line")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("it takes two cores, one for each side")
    client, engine = frozenset(cores[-1:]), frozenset(cores[:-1][:4])
    kinds = ["quiet", "engine's cores", "client's cores", "stopped"]
    if os.geteuid() == 0 and Path("/sys/fs/cgroup/cgroup.controllers").exists():
        kinds.append("memory")
    found: Counter[str] = Counter()
    void: Counter[str] = Counter()
    with contextlib.ExitStack() as files:
        out = files.enter_context(options.out.open("w", encoding="utf-8")) if options.out else None
        for number in range(options.blocks):
            for kind in kinds:
                reading = block(options.seconds, engine, client, kind)
                found[kind] += bool(reading.findings)
                void[kind] += reading.void
                if out is not None:
                    told = [str(words(finding)) for finding in reading.findings]
                    line = {"block": number, "kind": kind, "findings": told}
                    print(json.dumps(line), file=out, flush=True)
    print("| planted | blocks | marked | of these decide nothing | 95% interval of the share marked |")
    print("| --- | --- | --- | --- | --- |")
    for kind in kinds:
        low, high = stats.binomtest(found[kind], options.blocks).proportion_ci()
        print(f"| {kind} | {options.blocks} | {found[kind]} | {void[kind]} | {low:.1%} to {high:.1%} |")


if __name__ == "__main__":
    main()
