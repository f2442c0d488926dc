"""How often is the load generator's verdict on itself wrong? Run: `python -m benchmarks.truth.client_verdicts --help`.

`bakeoff run` against the simulator, each on a core of its own, block after block, while the client is left alone,
shares its core with busy loops, or is stopped (SIGSTOP) at random moments. The verdict (`client.limited`) is compared
with the truth log: a *miss* is a block that was wrong by more than the tolerance and not told, a *false alarm* one that
was told and was not. A block in which the simulator itself was late is dropped. Linux, two cores; 8 minutes as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulated import ask, command_line, cores, simulator
from loadgen.calibration.calibrate import compare
from loadgen.calibration.pinned_process import pinned_process
from loadgen.client.verdict import IDLE_TOLERANCE_SHARE, TPOT_TOLERANCE_SHARE, TTFT_TOLERANCE_MS, TTFT_TOLERANCE_SHARE
from loadgen.errors import CLIENT_LIMITED, OK
from loadgen.metrics.window import CutRule
from loadgen.record import RequestRecord
from loadgen.runs.record_file import read_records

TTFT_MS, TOKENS = 20.0, 32
BLOCK_LIMIT_S = 60
JUST_OVER = 1.5
"""A miss up to so many tolerances is a near one."""


@dataclass(frozen=True)
class Load:
    """Streams at once, the time between their tokens, and measured requests a block.

    A stall can only falsify a kernel stamp when it spans two events of a stream, so with few streams the gaps are
    short; 64 streams at such a pace would need all of the client's core.
    """

    streams: int
    tpot_ms: float
    requests: int


LOADS = (Load(1, 1.5, 50), Load(8, 1.5, 240), Load(64, 10.0, 320))


@dataclass(frozen=True)
class Condition:
    """What is done to the client: busy loops on its core, or stops of `stop_ms`, at most so many a second.

    From block to block the rate varies from that to a tenth of it, so that blocks fall on both sides of the tolerance.
    """

    name: str
    busy: int = 0
    stop_ms: float = 0.0
    stops_per_s: float = 0.0


CONDITIONS = (
    Condition("undisturbed"),
    Condition("1 busy loop", busy=1),
    Condition("2 busy loops", busy=2),
    Condition("stops of 2 ms", stop_ms=2, stops_per_s=30),
    Condition("stops of 5 ms", stop_ms=5, stops_per_s=10),
    Condition("stops of 20 ms", stop_ms=20, stops_per_s=3),
    Condition("stops of 100 ms", stop_ms=100, stops_per_s=0.7),
)


@dataclass
class Block:
    """One block: what was told, and what was true. Sizes in ms and shares; `over`: the truth in tolerances."""

    streams: int
    condition: str
    valid: bool
    requests: int = 0
    told: bool = False
    told_ttft_ms: float = 0.0
    told_tpot_share: float = 0.0
    reasons: list[str] = field(default_factory=list)
    ttft_p99_ms: float = 0.0
    ttft_tolerance_ms: float = 0.0
    tpot_mean_share: float = 0.0
    tpot_p99_share: float = 0.0
    idle_share: float = 0.0
    send_p99_ms: float = 0.0
    """From the stamp `t_send` to the request's arrival: no read lag or probe tells of what went wrong there."""
    stops: int = 0
    cpu_us_per_event: float = 0.0
    load_average: float = 0.0

    @property
    def over(self) -> dict[str, float]:
        """True TTFT error (p99), TPOT error (of the mean) and idle time, each in tolerances."""
        return {
            "TTFT": self.ttft_p99_ms / self.ttft_tolerance_ms,
            "TPOT": self.tpot_mean_share / TPOT_TOLERANCE_SHARE,
            "idle": self.idle_share / IDLE_TOLERANCE_SHARE,
        }

    @property
    def wrong(self) -> bool:
        """Whether a figure was off by more than its tolerance."""
        return max(self.over.values()) > 1

    @property
    def outcome(self) -> str:
        """dropped, miss, false alarm, or ok."""
        if not self.valid:
            return "dropped"
        if self.told == self.wrong:
            return "ok"
        return "false alarm" if self.told else "miss"


def stop_now_and_then(process: subprocess.Popen[bytes], condition: Condition, rng: random.Random) -> int:
    """Stop a process at random moments until it ends; return how often. Runs on its core, which is free meanwhile."""
    stops, rate = 0, condition.stops_per_s * 10 ** -rng.random()
    while condition.stop_ms:
        time.sleep(rng.expovariate(rate))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(condition.stop_ms / 1e3)
        finally:
            process.send_signal(signal.SIGCONT)
        stops += 1
    return stops


def true_idle_share(records: Sequence[RequestRecord], truth: dict[str, Any]) -> float:
    """Share of the users' time between an answer's last write and the next request's arrival, by the truth log."""
    end = np.zeros(len(truth["request_id"]), dtype=np.int64)
    np.maximum.at(end, truth["event_request"], truth["event_after"])
    number = {str(name): index for index, name in enumerate(truth["request_id"])}
    at = {(r.user, r.index): number[r.request_id] for r in records if r.request_id in number}
    idle = total = 0
    for (user, index), after in at.items():
        before = at.get((user, index - 1))
        if before is not None and truth["request_outcome"][after] == "ok":
            idle += max(0, int(truth["request_t_arrived"][after] - end[before]))
            total += int(end[after] - end[before])
    return idle / total if total else 0.0


def run_block(load: Load, condition: Condition, url: str, core: int, rng: random.Random, *, isolate: bool) -> Block:
    """One `bakeoff run` under one condition, and its comparison with the truth."""
    ask(f"{url}/truth/reset", "POST")
    with tempfile.TemporaryDirectory(prefix="verdict-rates-") as folder, contextlib.ExitStack() as stack:
        result, kept, log = (Path(folder) / name for name in ("result.json", "records.jsonl", "log"))
        command = [sys.executable, "-m", "loadgen", "run", "--base-url", url, "--concurrency", str(load.streams)]
        command += ["--requests", str(load.requests), "--prompt-tokens", "32", "--output-tokens", str(TOKENS)]
        command += ["--request-ids", "--json", str(result), "--records", str(kept)]
        for _ in range(condition.busy):
            stack.enter_context(pinned_process([sys.executable, "-c", "while True: pass"], core=core))
        out = stack.enter_context(log.open("wb"))
        process = stack.enter_context(pinned_process(command, core=core, stdout=out, stderr=out))
        if isolate and not condition.busy:
            os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(5))
        guard = threading.Timer(BLOCK_LIMIT_S, process.kill)
        guard.start()
        try:
            stops = stop_now_and_then(process, condition, rng)
            process.wait()
        finally:
            guard.cancel()
        if process.returncode not in (OK, CLIENT_LIMITED):
            raise SystemExit(f"the client failed (exit {process.returncode}):\n{log.read_text()[-2000:]}")
        client = json.loads(result.read_text())["client"]
        records, _ = read_records(kept)
    with np.load(BytesIO(ask(f"{url}/truth?format=npz")), allow_pickle=False) as file:
        truth = {key: file[key] for key in file.files}
    valid = json.loads(str(truth.pop("summary")))["verdict"] == "valid"
    arrived = dict(zip(map(str, truth["request_id"]), truth["request_t_arrived"], strict=True))
    rule = CutRule(users=load.streams, warmup_requests=1, measured_requests=load.requests)
    measured = rule.cut(records).measured(records)
    errors = compare(measured, truth)
    median = float(np.median([r.t_first - r.t_send for r in measured if r.t_first is not None])) / 1e6
    return Block(
        streams=load.streams,
        condition=condition.name,
        valid=valid,
        requests=len(errors["ttft_ms"]),
        told=client["limited"],
        told_ttft_ms=client["ttft_error_ms"],
        told_tpot_share=client["tpot_error_share"],
        reasons=client["reasons"],
        ttft_p99_ms=float(np.percentile(np.abs(errors["ttft_ms"]), 99)),
        ttft_tolerance_ms=max(TTFT_TOLERANCE_MS, TTFT_TOLERANCE_SHARE * median),
        tpot_mean_share=abs(float(errors["tpot_ms"].mean() / errors["true_tpot_ms"].mean())),
        tpot_p99_share=float(np.percentile(np.abs(errors["tpot_percent"]), 99)) / 100,
        idle_share=true_idle_share(records, truth),
        send_p99_ms=float(np.percentile([arrived[r.request_id] - r.t_send for r in measured], 99)) / 1e6,
        stops=stops,
        cpu_us_per_event=client["cpu_us_per_event"],
        load_average=os.getloadavg()[0],
    )


def row(name: str, blocks: Sequence[Block]) -> str:
    """One line of the table."""
    valid = [block for block in blocks if block.valid]
    count, wrong = Counter(block.outcome for block in blocks), sum(block.wrong for block in valid)
    counts = f"{len(valid):>6}{count['dropped']:>8}{wrong:>7}{count['miss']:>7}{len(valid) - wrong:>7}"
    return f"{name:<28}{counts}{count['false alarm']:>7}"


def show(blocks: Sequence[Block]) -> None:
    """Print the table, then each block that was judged wrongly."""
    print(f"\n{'':<28}{'blocks':>6}{'dropped':>8}{'wrong':>7}{'missed':>7}{'right':>7}{'alarms':>7}")
    for streams in sorted({block.streams for block in blocks}):
        for condition in CONDITIONS:
            some = [block for block in blocks if (block.streams, block.condition) == (streams, condition.name)]
            if some:
                print(row(f"{streams:>3} streams, {condition.name}", some))
    print(row("all", blocks))
    for outcome in ("miss", "false alarm"):
        for block in blocks:
            if block.outcome == outcome:
                over = ", ".join(f"{name} {value:.2f}" for name, value in block.over.items())
                word = f"{outcome}, just over" if 1 < max(block.over.values()) < JUST_OVER else outcome
                told = f"told TTFT {block.told_ttft_ms:.2f} ms, TPOT {block.told_tpot_share:.2%}"
                told += f"; p99 from sending to arrival {block.send_p99_ms:.2f} ms"
                print(f"{word}: {block.streams} streams, {block.condition}: truth in tolerances {over}; {told}")
                for reason in block.reasons:
                    print(f"    {reason}")


def main() -> None:
    """Parse options, run the blocks in turn, print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--blocks", type=int, default=4, help="blocks of each load and condition [4]")
    parser.add_argument("--streams", type=int, nargs="+", help="loads to run [1 8 64]")
    parser.add_argument("--only", help="conditions whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-realtime", action="store_true", help="the simulator without SCHED_FIFO")
    parser.add_argument(
        "--isolate", action="store_true", help="on a busy machine: SCHED_FIFO for the client too, busy loops apart"
    )
    parser.add_argument("--json", type=Path, help="write every block to this file")
    args = parser.parse_args()
    server, own = cores()
    if server == own:
        raise SystemExit("two cores are needed")
    # Beside the client, not the simulator: one that spins with SCHED_FIFO would hold up the SIGCONTs.
    os.sched_setaffinity(0, {own})
    if args.isolate:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(20))
    rng = random.Random(args.seed)
    realtime = os.geteuid() == 0 and not args.no_realtime
    print(f"{platform.platform()}, Python {platform.python_version()}, load average {os.getloadavg()[0]:.2f}")
    print(f"simulator on core {server}{' (SCHED_FIFO)' if realtime else ''}, client on core {own}"
          f"{' (SCHED_FIFO, busy loops apart)' if args.isolate else ''}")  # fmt: skip
    began = time.monotonic()
    blocks: list[Block] = []
    try:
        for load in LOADS:
            if args.streams and load.streams not in args.streams:
                continue
            timing = ["--ttft-ms", str(TTFT_MS), "--tpot-ms", str(load.tpot_ms)]
            with simulator(*timing, core=server, realtime=realtime) as url:
                for _ in range(args.blocks):
                    for condition in CONDITIONS:
                        if args.only is None or args.only in condition.name:
                            blocks.append(run_block(load, condition, url, own, rng, isolate=args.isolate))
                            print(".", end="", flush=True)
    finally:
        show(blocks)
        if args.json:
            args.json.write_text(json.dumps([asdict(block) | {"outcome": block.outcome} for block in blocks], indent=1))
    print(f"{time.monotonic() - began:.0f} s, load average at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
