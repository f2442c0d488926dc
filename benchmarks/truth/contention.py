"""Does the rule on contention find what is planted, and stay silent on a quiet machine?

`python -m benchmarks.truth.contention --blocks 200`: blocks of a stand-in engine and a stand-in load generator, each on
cores of its own, watched as a race watches its blocks. Run it on a machine that does nothing else: who else is there
is found, and counted against the rule. As root it plants memory pressure too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from scipy import stats

from benchmarks.simulated import command_line
from loadgen.contention.reading import Contention, Kind, SideName
from loadgen.contention.rule import words
from loadgen.contention.watch import Watch

LOOK_S = 0.25
"""As a race asks Locust's master for a block's status."""
WORK = """
import mmap, os, sys, time
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
busy, pause, hold, at, seen = float(sys.argv[2]), float(sys.argv[3]), b"", 0, 0
if len(sys.argv) > 4:
    with open(sys.argv[4], "rb") as file:
        hold = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
while True:
    until = time.perf_counter() + busy
    while time.perf_counter() < until:
        if hold:
            seen, at = seen + hold[at], (at + 4096) % len(hold)
    time.sleep(pause)
"""
PLANTS: Mapping[str, tuple[SideName, frozenset[Kind]]] = {
    "engine's cores": ("engine", frozenset({"others", "kept"})),
    "client's cores": ("client", frozenset({"others", "kept"})),
    "stopped": ("engine", frozenset({"stopped"})),
    "memory": ("engine", frozenset({"memory"})),
}
"""What is planted, and what must be found of it: on which side, by any of which marks."""
ENGINE, CLIENT, HOG = (0.02, 0.01), (0.002, 0.008), (0.1, 0.0)
"""Seconds of work and of rest: an engine that computes most of the time, a client that seldom does, a neighbour."""
HELD_BYTES, LIMIT_BYTES = 96 << 20, 48 << 20
"""What an engine short of memory reads over and over, and how much of it may be in memory at once."""


@contextlib.contextmanager
def working(
    cores: frozenset[int], pace: tuple[float, float], group: Path | None = None, held: Path | None = None
) -> Iterator[int]:
    """A process that works at this pace on these cores, in a control group, and reads a file meanwhile; its pid."""
    told = [",".join(map(str, sorted(cores))), *map(str, pace), *([str(held)] if held else [])]
    join = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")] if group else []
    with subprocess.Popen([*join, sys.executable, "-c", WORK, *told]) as process:
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
def short_of_memory() -> Iterator[tuple[Path, Path]]:
    """A control group that may have half of what a file holds, and the file, none of which is in memory."""
    top = Path("/sys/fs/cgroup")
    unified = (top / "cgroup.controllers").exists()
    group = (top if unified else top / "memory") / "bakeoff-contention"
    with tempfile.NamedTemporaryFile() as held:
        held.write(bytes(HELD_BYTES))
        held.flush()
        os.fsync(held.fileno())
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        group.mkdir(exist_ok=True)
        try:
            (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(LIMIT_BYTES))
            yield group, Path(held.name)
        finally:
            group.rmdir()


def block(seconds: float, engine: frozenset[int], client: frozenset[int], plant: str) -> Contention:
    """Watch one block in which this is planted."""
    with contextlib.ExitStack() as around:
        short = around.enter_context(short_of_memory()) if plant == "memory" else ()
        pids = [around.enter_context(working(engine, ENGINE, *short)), around.enter_context(working(client, CLIENT))]
        time.sleep(0.5)
        planted: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
            "engine's cores": lambda: working(engine, HOG),
            "client's cores": lambda: working(client, HOG),
            "stopped": lambda: stopped(pids[0]),
        }
        if plant in planted:
            around.enter_context(planted[plant]())
        watch = Watch([pids[0]], [pids[1]])  # not this process, whose child a neighbour is
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(LOOK_S)
            watch.look()
        return watch.reading()


def is_found(reading: Contention, plant: str) -> bool:
    """Whether what was planted is among the marks; where nothing was, whether there is any."""
    if plant not in PLANTS:
        return bool(reading.findings)
    side, kinds = PLANTS[plant]
    return any(finding.side == side and finding.kind in kinds for finding in reading.findings)


def main() -> None:
    """Run the blocks, kinds in turns, and tell how many were found."""
    parser = command_line(__doc__)
    parser.add_argument("--blocks", type=int, default=200, help="of each kind (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="a block (default %(default)s)")
    parser.add_argument("--out", type=Path, help="write every block's reading there, one JSON object a line")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("it takes two cores, one for each side")
    client, engine = frozenset(cores[-1:]), frozenset(cores[:-1][:4])
    kinds = ["quiet", "engine's cores", "client's cores", "stopped"]
    if os.geteuid() == 0 and Path("/proc/pressure/memory").exists():
        kinds.append("memory")
    found: Counter[str] = Counter()
    void: Counter[str] = Counter()
    with contextlib.ExitStack() as files:
        out = files.enter_context(options.out.open("w", encoding="utf-8")) if options.out else None
        for number in range(options.blocks):
            for kind in kinds:
                reading = block(options.seconds, engine, client, kind)
                found[kind] += is_found(reading, kind)
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
