"""Does a worker's memory grow with the requests it makes? Run: `python -m benchmarks.cost.client_memory --help`.

`bakeoff bench` with one Locust worker and its master, 1,000 streams of short answers against the simulator, until
100,000 requests are measured. Each second the resident memory of both and the records on disk are read. Exit code 1
when the worker's peak is above `--limit-mb`, or its memory grows in the second half by more than `--slope-mb` for
10,000 requests. Five minutes as it stands; Linux.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.simulated import command_line, race_command, simulator
from loadgen.errors import CLIENT_LIMITED, OK
from loadgen.machine import ROOT

TOKENS, TPOT_MS = 8, 10.0


@dataclass
class Samples:
    """Memory of one process by the number of requests on disk."""

    requests: list[int] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def slope(self) -> float:
        """MB for each 10,000 requests, over the second half of the requests; least squares."""
        requests, mb = np.asarray(self.requests, dtype=np.float64), np.asarray(self.mb)
        late = requests >= requests.max() / 2
        return float(np.polyfit(requests[late], mb[late], 1)[0] * 10_000)


class LineCounter:
    """Lines of a file that grows."""

    def __init__(self, folder: Path) -> None:
        self.lines = 0
        self._folder = folder
        self._offset = 0

    def read(self) -> int:
        """Count the lines that came since the last call; return all."""
        for file in self._folder.glob("*/requests.jsonl"):
            with file.open("rb") as handle:
                handle.seek(self._offset)
                while data := handle.read(1 << 20):
                    self.lines += data.count(b"\n")
                    self._offset += len(data)
        return self.lines


def find_locusts(bench: psutil.Process) -> dict[str, psutil.Process]:
    """The master and the worker, once they run."""
    found = {}
    for process in bench.children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        for role in ("master", "worker"):
            if f"--{role}" in words:
                found[role] = process
    return found


def measure(args: argparse.Namespace, url: str, folder: Path) -> tuple[dict[str, Samples], bool]:
    """Run the bench and sample it until it ends; return the samples by role, and whether it failed."""
    scenario = {
        **{"name": "memory", "question": "Does memory grow?", "prompt_tokens": [16], "output_tokens": [TOKENS]},
        **{"load": {"concurrency": [args.streams]}, "requests": args.requests, "warmup_requests": 0},
    }
    runs, log = folder / "runs", folder / "bench.log"
    command = race_command(folder, scenario, {"sim": url}, runs)
    counter = LineCounter(runs)
    samples = {"master": Samples(), "worker": Samples()}
    deadline = time.monotonic() + args.limit_s
    said = 0
    with log.open("wb") as out:
        bench = psutil.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    try:
        while bench.poll() is None:
            if time.monotonic() > deadline:
                print(f"not done after {args.limit_s:g} s: stopped")
                bench.send_signal(signal.SIGINT)
                bench.wait(60)
                break
            time.sleep(1)
            done = counter.read()
            for role, process in find_locusts(bench).items():
                try:
                    samples[role].mb.append(process.memory_info().rss / 1e6)
                    samples[role].requests.append(done)
                except psutil.Error:
                    continue
            if done - said >= args.requests // 10:
                said = done
                now = ", ".join(f"{role} {each.mb[-1]:.0f} MB" for role, each in samples.items() if each.mb)
                print(f"{done:>8} requests: {now}", flush=True)
    finally:
        for process in [*bench.children(recursive=True), bench] if bench.is_running() else []:
            process.kill()
        bench.wait()
    if bench.returncode not in (OK, CLIENT_LIMITED):
        print(log.read_text("utf-8", "replace")[-2000:])
    return samples, bench.returncode not in (OK, CLIENT_LIMITED)


def main() -> None:
    """Parse options, measure, judge."""
    parser = command_line(__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--ttft-ms", type=float, default=1700, help="sets the pace: streams / (TTFT + 70 ms) [1700]")
    parser.add_argument("--limit-mb", type=float, default=400)
    parser.add_argument(
        "--slope-mb", type=float, default=2, help="a tenth of what 10,000 records would take, were they kept [2]"
    )
    parser.add_argument("--limit-s", type=float, default=420, help="give up after so many seconds [420]")
    args = parser.parse_args()
    timing = ["--ttft-ms", str(args.ttft_ms), "--tpot-ms", str(TPOT_MS), "--ttft-jitter", "uniform:200"]
    print(f"load average {os.getloadavg()[0]:.2f}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="client-memory-") as name, simulator(*timing, core=None) as url:
        samples, failed = measure(args, url, Path(name))
    seconds = time.monotonic() - began
    if failed or not samples["worker"].mb:
        raise SystemExit("the bench failed")
    done = samples["worker"].requests[-1]
    print(f"{done} requests of {args.streams} streams in {seconds:.0f} s")
    for role, each in samples.items():
        print(f"{role}: peak {max(each.mb):.0f} MB, {each.slope():+.2f} MB a 10,000 requests in the second half")
    worker = samples["worker"]
    if max(worker.mb) > args.limit_mb:
        raise SystemExit(f"the worker's memory passed {args.limit_mb:g} MB")
    if worker.slope() > args.slope_mb:
        raise SystemExit(f"the worker's memory grows by more than {args.slope_mb:g} MB a 10,000 requests")


if __name__ == "__main__":
    main()
