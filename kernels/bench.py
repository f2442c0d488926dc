"""Times every kernel beside the libraries on the card, in one process and interleaved.

    python -m kernels.bench --out bench.json

The paper's sizes: batch x length = 16k tokens, heads x dim = 2048, lengths 512 to 16k. Each row is the median of CUDA
events around one call, after warm-ups; within a shape the kernels take turns in random order, so that all meet the
same clocks.
FLOPs are 4 x batch x heads x length^2 x dim, halved under a causal mask, as the libraries' authors count.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from kernels import build
from kernels.attention import attention
from kernels.flops import flops, square
from kernels.libraries import libraries, versions
from kernels.steps import NAMES

try:
    import torch
except ModuleNotFoundError:  # main says so
    torch = None

TOKENS, WIDTH = 16384, 2048
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
WARM_UPS, REPEATS = 5, 30


class Clocks:
    """Samples SM clock (MHz), power (W) and temperature through nvidia-smi, ten times a second."""

    FIELDS = ("clocks.sm", "power.draw", "temperature.gpu")

    def __enter__(self) -> Clocks:
        query = f"--query-gpu={','.join(self.FIELDS)}"
        self.process = subprocess.Popen(
            ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "100"], stdout=subprocess.PIPE, text=True
        )
        self.samples: list[tuple[float, list[float]]] = []
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        for line in self.process.stdout or ():
            try:
                self.samples.append((time.monotonic(), [float(x) for x in line.split(",")]))
            except ValueError:  # "[N/A]" on a card that does not tell
                continue

    def __exit__(self, *_: object) -> None:
        self.process.terminate()

    def since(self, start: float) -> dict[str, float]:
        """Medians of the samples since `start` (time.monotonic)."""
        taken = [values for at, values in self.samples if at >= start] or [v for _, v in self.samples[-1:]]
        return dict(zip(self.FIELDS, map(statistics.median, zip(*taken, strict=True)), strict=False))


def tensors(dtype: str, dim: int, seqlen: int) -> tuple[Any, Any, Any]:
    """Random q, k, v of the paper's size for this length."""
    shape = (TOKENS // seqlen, seqlen, WIDTH // dim, dim)
    return tuple(torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)) for _ in range(3))


def time_interleaved(calls: dict[str, Any], limit: float) -> dict[str, list[float]]:
    """Milliseconds of each repeat of each call; a call slower than `limit` ms is repeated a third as often."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    draw = random.Random(0)
    for turn in range(WARM_UPS + REPEATS):
        pairs = {}
        draw.shuffle(order)  # nobody always follows the one that heats the card most, or least
        for name in order:
            call = calls[name]
            slow = times[name] and times[name][0] > limit
            if slow and turn >= 2 and turn % 3:
                continue
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            pairs[name] = (start, end)
        torch.cuda.synchronize()
        for name, (start, end) in pairs.items():
            times[name].append(start.elapsed_time(end))
    return {name: ms[WARM_UPS if len(ms) > REPEATS else 1 :] for name, ms in times.items()}


def usable(name: str, call: Any) -> bool:
    """Whether the call runs at all: a library may lack a type, the textbook way may lack memory."""
    try:
        call()
        torch.cuda.synchronize()
    except RuntimeError as problem:  # torch.OutOfMemoryError is one
        print(f"  {name} left out: {str(problem).splitlines()[0][:100]}", file=sys.stderr)
        return False
    return True


def bench(names: list[str], shapes: list[tuple[str, int, bool, int]], clocks: Clocks, limit: float) -> list[Any]:
    """One run: a row a kernel and a shape."""
    others = libraries()
    rows = []
    for dtype, dim, causal, seqlen in shapes:
        q, k, v = tensors(dtype, dim, seqlen)
        work = flops(square(TOKENS // seqlen, WIDTH // dim, seqlen, dim, causal=causal))
        calls: dict[str, Any] = {}
        for name in names:
            if name in NAMES:
                calls[name] = partial(attention, q, k, v, causal=causal, kernel=name, out=torch.empty_like(q))
            elif name in others:
                calls[name] = partial(others[name], q, k, v, causal)
        calls = {name: call for name, call in calls.items() if usable(name, call)}
        start = time.monotonic()
        times = time_interleaved(calls, limit)
        clock = clocks.since(start)
        line = []
        for name, ms in times.items():
            median = statistics.median(ms)
            row = {"kernel": name, "dtype": dtype, "dim": dim, "causal": causal, "seqlen": seqlen}
            row |= {"batch": q.shape[0], "heads": q.shape[2], "repeats": len(ms), "ms_median": round(median, 4)}
            row |= {
                "tflops": round(work / median / 1e9, 1),
                "sm_clock_mhz": clock.get("clocks.sm"),
            }
            rows.append(row | {"power_w": clock.get("power.draw")})
            line.append(f"{name} {row['tflops']:.0f}")
        print(f"{dtype} {dim} {'causal' if causal else 'full':6} {seqlen:5} | {', '.join(line)} | {clock}", flush=True)
        torch.cuda.empty_cache()
    return rows


def main() -> int:
    """Runs, prints a line a shape, writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, help="write the runs here (JSON); runs already there are kept")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--kernels", nargs="+", default=[*NAMES, "flash", "cudnn", "fa3"])
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"], choices=["float16", "bfloat16"])
    parser.add_argument("--dims", nargs="+", type=int, default=[128, 64])
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--slow", type=float, default=20, help="ms from which a call is repeated a third as often")
    options = parser.parse_args()
    if reason := build.why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    shapes = list(product(options.dtypes, options.dims, (False, True), options.lengths))
    result: dict[str, Any] = {"runs": []}
    if options.out and options.out.exists():
        result = json.loads(options.out.read_text())
    with Clocks() as clocks:
        start = time.monotonic()
        for _ in range(options.runs):
            rows = bench(options.kernels, shapes, clocks, options.slow)
            result["runs"].append({"run": len(result["runs"]) + 1, "rows": rows})
            top = (
                subprocess.run(
                    [
                        "nvidia-smi",
                        "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit",
                        "--format=csv,noheader",
                    ],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                .stdout.strip()
                .split(", ")
            )
            result |= {"card": torch.cuda.get_device_name(), "driver": top[0], "versions": versions()}
            result["clocks"] = {"max_sm": top[1], "max_memory": top[2], "power_limit": top[3]} | clocks.since(start)
            if options.out:
                options.out.write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
