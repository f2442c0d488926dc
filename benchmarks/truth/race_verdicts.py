"""Are verdicts right on real runs? `bakeoff bench` against pairs of simulators whose truth is known.

    python -m benchmarks.truth.race_verdicts difference   # TPOT differs by 5%, TTFT does not
    python -m benchmarks.truth.race_verdicts equal --runs 40
    python -m benchmarks.truth.race_verdicts drift        # one simulator slows down by 20% in the course of the run
    python -m benchmarks.truth.race_verdicts matrix --runs 40               # 16 cells, 2 repeats: equal engines
    python -m benchmarks.truth.race_verdicts matrix --runs 40 --slower 2    # the same, TPOT of b 2% longer

Simulators have a core, traffic the other one. Exit code 1 where a verdict is wrong. A run takes about a minute:
`difference` is one, `drift` five. A run of `matrix` takes three, as many at once as there are pairs of cores. Linux.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.simulated import command_line, cores, race_command, simulator
from loadgen.analysis.samples import cell_samples
from loadgen.errors import CLIENT_LIMITED, NOT_WHOLE, OK
from loadgen.machine import ROOT
from loadgen.presentation.headline import headline
from loadgen.runs.folder import RunFolder
from loadgen.statistics.compare import compare
from loadgen.statistics.result import Statistics
from loadgen.statistics.words import drift_words

HEADLINE_TPOT, HEADLINE_TTFT = "tpot_ms.mean", "ttft_ms.mean"
ONE_CELL = {"prompt_tokens": [32], "output_tokens": [32], "load": {"concurrency": [4]}, "requests": 40}
QUICK_CELLS = {
    "prompt_tokens": [16, 32, 64, 128],
    "output_tokens": [24],
    "load": {"concurrency": [1, 2, 3, 4]},
    "requests": 24,
}
"""16 cells of a second or three each."""


def main() -> int:
    """Run what is asked for; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("difference", "equal", "drift", "matrix"))
    parser.add_argument("--runs", type=int, default=40, help="of `equal` and `matrix` (default 40)")
    parser.add_argument("--repeats", type=int, help="default 4, of `matrix` 2")
    parser.add_argument("--slower", type=float, default=0.0, help="TPOT of b in `matrix` is longer by this, percent")
    parser.add_argument("--at-once", type=int, help="races of `matrix` at once (default: one for each pair of cores)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.what == "matrix":
            at_once = arguments.at_once or max(1, len(os.sched_getaffinity(0)) // 2)
            return matrix(folder, arguments.runs, arguments.repeats or 2, arguments.slower, at_once)
        repeats = arguments.repeats or 4
        if arguments.what == "difference":
            return difference(folder, repeats)
        if arguments.what == "drift":
            return drift(folder, repeats)
        return equal(folder, arguments.runs, repeats)


def difference(folder: Path, repeats: int) -> int:
    """TPOT 10.0 and 10.5 ms, TTFT 50 ms."""
    with known("--tpot-ms", "10") as a, known("--tpot-ms", "10.5") as b:
        found = judge(bench(folder, {"a": a, "b": b}, repeats, seed=1))
    tpot, ttft = found.overall[HEADLINE_TPOT], found.overall[HEADLINE_TTFT]
    low, high = (tpot.ratio.ci95 if tpot.ratio else None) or (0.0, 0.0)
    print(headline(found).text)
    print(f"TPOT b over a: [{low:.4f}, {high:.4f}], verdict {tpot.verdict}; TTFT: {ttft.verdict} ({ttft.reason})")
    return int(not (tpot.verdict == "a" and low <= 1.05 <= high and ttft.verdict in ("none", "undecided")))


def equal(folder: Path, runs: int, repeats: int) -> int:
    """Nothing differs: a winner is a false alarm."""
    alarms = 0
    jitter = ("--tpot-jitter", "normal:1", "--ttft-jitter", "exponential:10")
    for number in range(1, runs + 1):
        with known(*jitter, "--seed", str(2 * number)) as a, known(*jitter, "--seed", str(2 * number + 1)) as b:
            found = judge(bench(folder, {"a": a, "b": b}, repeats, seed=number))
        won = [cell for cell in found.cells if cell.verdict in ("a", "b")]
        alarm = found.verdict in ("a", "b") or bool(won)
        alarms += alarm
        print(f"{number}/{runs}: {found.verdict} ({found.reason}){' FALSE ALARM' if alarm else ''}", flush=True)
    print(f"{alarms} false alarms in {runs} runs of {repeats} repeats")
    return int(alarms > max(2, 0.05 * runs))


def drift(folder: Path, repeats: int) -> int:
    """Everything slows down by 20% through the run, in plain order and interleaved; then b alone does."""
    wrong = 0
    # From the first block to the end of the last, and not in the checks before: at its start nothing differs.
    before = time.time()
    with known() as a, known() as b:
        blocks = bench(folder, {"a": a, "b": b}, repeats, seed=1).load().manifest.blocks
    start = blocks[0].started_at - before
    seconds = (blocks[-1].ended_at or time.time()) - blocks[0].started_at
    slowing = ("--drift-per-minute", str(0.2 / (seconds / 60)), "--set", f"drift_from_s={start}")
    print(f"a run's blocks take {seconds:.0f} s, from second {start:.0f} on: in that time engines slow down by 20%")
    # A plain run: all of A, then all of B, on a machine on which everything slows down meanwhile.
    with known(*slowing) as a, known(*slowing) as b:
        first = bench(folder, {"a": a}, repeats, seed=2)
        second = bench(folder, {"b": b}, repeats, seed=2)
        one_by_one = [*first.load().blocks, *second.load().blocks]
        naive = compare("a", "b", cell_samples(one_by_one, "a", "b"))
        tpot = naive.overall[HEADLINE_TPOT]
        low, high = (tpot.ratio.ci95 if tpot.ratio else None) or (0.0, 0.0)
        print(
            f"A then B, both slowing: TPOT b over a [{low:.3f}, {high:.3f}], which would be a winner; "
            f"with the drift check: {headline(naive).text}"
        )
        wrong += low <= 1.0 or naive.verdict in ("a", "b")
    with known(*slowing) as a, known(*slowing) as b:
        wrong += told("A B B A, both slowing", judge(bench(folder, {"a": a, "b": b}, repeats, seed=3)))
    with known() as a, known(*slowing) as b:
        wrong += told("A B B A, b slowing", judge(bench(folder, {"a": a, "b": b}, repeats, seed=4)))
    return int(wrong > 0)


def matrix(folder: Path, runs: int, repeats: int, slower: float, at_once: int) -> int:
    """16 quick cells. Of equal engines a winner is a false alarm; else TPOT over all cells must go to `a`."""
    pairs: queue.Queue[tuple[int, int]] = queue.Queue()
    usable = sorted(os.sched_getaffinity(0))
    for place in range(at_once):
        pairs.put((usable[2 * place % len(usable)], usable[(2 * place + 1) % len(usable)]))

    def race(number: int) -> tuple[bool, bool]:
        own = folder / str(number)
        own.mkdir()
        at = pairs.get()
        try:
            found = judge(one_matrix(own, number, repeats, slower, at))
        finally:
            pairs.put(at)
        judged = [*found.overall.values(), *(one for cell in found.cells for one in cell.metrics.values())]
        alarm = any(one.headline and one.verdict in ("a", "b") for one in judged)
        won = found.overall[HEADLINE_TPOT].verdict == "a"
        print(f"{number}/{runs}: {headline(found).text}", flush=True)
        return alarm, won

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        try:
            ended = list(pool.map(race, range(1, runs + 1)))
        except BaseException:  # whoever stops it waits for the races that run, and for no others
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    alarms, won = (sum(flags) for flags in zip(*ended, strict=True))
    if slower:
        print(f"a difference of {slower:g}% was found over all cells in {won} of {runs} runs of {repeats} repeats")
        return int(won < 0.9 * runs)
    print(f"{alarms} false alarms in {runs} runs of {repeats} repeats")
    return int(alarms > max(1, 0.05 * runs))


def one_matrix(folder: Path, number: int, repeats: int, slower: float, at: tuple[int, int]) -> RunFolder:
    """One race of two simulators over 16 short cells, on these two cores."""
    jitter = ("--tpot-jitter", "normal:0.2", "--ttft-jitter", "exponential:3", "--ttft-ms", "15")
    b_ms = str(4 * (1 + slower / 100))
    with (
        simulator(*jitter, "--tpot-ms", "4", "--seed", str(2 * number), core=at[0]) as a,
        simulator(*jitter, "--tpot-ms", b_ms, "--seed", str(2 * number + 1), core=at[0]) as b,
    ):
        return bench(folder, {"a": a, "b": b}, repeats, seed=number, cells=QUICK_CELLS, core=at[1])


def told(what: str, found: Statistics) -> int:
    """Print the verdict and the drift check's words; 1 where a winner is claimed or the check is silent."""
    print(f"{what}: {headline(found).text}")
    words = [
        word
        for cell in found.cells
        for metric in found.settings.headline
        for word in drift_words(cell.metrics[metric], found)
    ]
    for word in words:
        print(f"  {word}")
    return int(found.overall[HEADLINE_TPOT].verdict in ("a", "b") or not words)


def known(*options: str) -> contextlib.AbstractContextManager[str]:
    """A simulator on its core; gives its URL."""
    return simulator(*options, core=cores()[0], realtime=os.geteuid() == 0)


def judge(run: RunFolder) -> Statistics:
    """The comparison of a run's two engines."""
    return compare("a", "b", cell_samples(run.load().blocks, "a", "b"))


def bench(
    folder: Path,
    engines: dict[str, str],
    repeats: int,
    seed: int,
    cells: Mapping[str, Any] = ONE_CELL,
    core: int | None = None,
) -> RunFolder:
    """Race endpoints over small cells, traffic on `core` (None: the last). Raises SystemExit where the race fails."""
    scenario = {"name": "known", "question": "Is the verdict right?", **cells, "repeats": repeats}
    runs = folder / f"runs-{time.monotonic_ns()}"
    traffic = cores()[1] if core is None else core
    command = ["taskset", "-c", str(traffic), *race_command(folder, scenario, engines, runs), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (OK, NOT_WHOLE, CLIENT_LIMITED):
        raise SystemExit(f"the race failed:\n{done.stdout}{done.stderr}")
    return RunFolder.find(runs, None)


if __name__ == "__main__":
    sys.exit(main())
