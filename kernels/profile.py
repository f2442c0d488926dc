"""Reads each kernel's hardware counters through Nsight Compute (ncu).

    python -m kernels.profile --out profile.json

Starts itself under ncu, which replays every launch between the profiler's start and stop for its counters.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from kernels import build
from kernels.steps import NAMES

# Counter of ncu -> our name and the factor to our unit.
COUNTERS = {
    "gpu__time_duration.sum": ("ms", 1e-6),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": ("shared_load_bank_conflicts", 1),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": ("shared_store_bank_conflicts", 1),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": ("shared_load_wavefronts", 1),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": ("shared_store_wavefronts", 1),
    "dram__bytes_read.sum": ("dram_read_bytes", 1),
    "dram__bytes_write.sum": ("dram_write_bytes", 1),
    "lts__t_bytes.sum": ("l2_bytes", 1),
    "sm__inst_executed_pipe_tensor_op_hmma.avg.pct_of_peak_sustained_active": ("tensor_pipe_instructions_pct", 1),
    "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active": ("tensor_pipe_pct", 1),
    "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": ("exp_unit_pct", 1),
    "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active": ("fma_pipe_pct", 1),
    "smsp__issue_active.avg.pct_of_peak_sustained_active": ("issue_slots_pct", 1),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("occupancy_pct", 1),
    "launch__registers_per_thread": ("registers", 1),
    "smsp__inst_executed.sum": ("instructions", 1),
}
STALLS = (
    "barrier", "branch_resolve", "dispatch_stall", "gmma", "lg_throttle", "long_scoreboard", "math_pipe_throttle",
    "membar", "mio_throttle", "no_instruction", "not_selected", "short_scoreboard", "sleeping", "wait",
)  # fmt: skip
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
# What the kernels are called in the binary, ours and the libraries'.
FUNCTIONS = {
    "textbook_scores": "textbook",
    "textbook_softmax": "textbook",
    "textbook_values": "textbook",
    "online_softmax": "online-softmax",
    "tensor_cores": "tensor-cores",
    "swizzle": "swizzle",
    "pipelined": "pipelined",
    "hopper": "hopper",
    "flash_fwd_kernel": "flash",
    "cudnn": "cudnn",
    "FlashAttnFwdSm90": "fa3",
}
ADDED_UP = ("ms", "conflicts", "wavefronts", "bytes", "instructions")  # over the launches of one call


def shapes(kernels: list[str], lengths: list[int]) -> list[tuple[str, int, bool]]:
    """What is measured, in the order it is launched."""
    return [(name, n, causal) for n, causal, name in product(lengths, (False, True), kernels)]


def launch_all(kernels: list[str], lengths: list[int], dim: int) -> None:
    """Inside ncu: one warm call and one measured call of each."""
    import torch

    from kernels.attention import attention
    from kernels.bench import tensors
    from kernels.libraries import libraries

    others = libraries()
    for name, seqlen, causal in shapes(kernels, lengths):
        q, k, v = tensors("float16", dim, seqlen)
        for measured in (False, True):
            if measured:
                torch.cuda.profiler.start()
            if name in NAMES:
                attention(q, k, v, causal=causal, kernel=name)
            else:
                others[name](q, k, v, causal)
            torch.cuda.synchronize()
            if measured:
                torch.cuda.profiler.stop()
        torch.cuda.empty_cache()


def read(text: str) -> list[tuple[str, dict[str, float]]]:
    """Launches in ncu's CSV (one row a counter), in order: our kernel's name and its counters."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    launches: dict[str, tuple[str, dict[str, float]]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        name = next((ours for theirs, ours in FUNCTIONS.items() if theirs in row["Kernel Name"]), None)
        if name is None:
            continue
        counters = launches.setdefault(row["ID"], (name, {}))[1]
        try:
            counters[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
        except ValueError:  # "n/a": this card has no such counter
            continue
    return [launches[key] for key in sorted(launches, key=int)]


def _row(name: str, seqlen: int, causal: bool, launches: list[dict[str, float]]) -> dict[str, Any]:
    """One call's counters under our names; of several launches the sums, and for shares the longest launch's."""
    longest = max(launches, key=lambda counters: counters.get("gpu__time_duration.sum", 0))
    metrics: dict[str, Any] = {}
    for counter, (ours, factor) in COUNTERS.items():
        if counter in longest:
            adds = any(word in ours for word in ADDED_UP) and "pct" not in ours
            total = sum(x.get(counter, 0) for x in launches) if adds else longest[counter]
            metrics[ours] = round(total * factor, 4)
    stalls = {reason: longest[STALL.format(reason)] for reason in STALLS if STALL.format(reason) in longest}
    metrics["stalls"] = {k: round(v, 3) for k, v in sorted(stalls.items(), key=lambda item: -item[1])[:5]}
    return {"kernel": name, "seqlen": seqlen, "causal": causal, "launches": len(launches), "metrics": metrics}


def assign(order: list[tuple[str, int, bool]], launches: list[tuple[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Rows for `order` from the launches that ncu saw in it: consecutive launches of one name are one call."""
    rows = []
    waiting = list(launches)
    for name, seqlen, causal in order:
        mine: list[dict[str, float]] = []
        limit = 3 if name == "textbook" else 1
        while waiting and waiting[0][0] == name and len(mine) < limit:
            mine.append(waiting.pop(0)[1])
        if mine:
            rows.append(_row(name, seqlen, causal, mine))
        else:
            print(f"  ncu saw no launch of {name} at {seqlen}", file=sys.stderr)
    return rows


def main() -> int:
    """Measures, prints a line a row, writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, help="write the rows here (JSON)")
    parser.add_argument("--kernels", nargs="+", default=[*NAMES, "flash", "cudnn", "fa3"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048, 4096])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--inside", action="store_true", help="used by itself, under ncu")
    options = parser.parse_args()
    if options.inside:
        launch_all(options.kernels, options.lengths, options.dim)
        return 0
    reason = build.why_not()
    if not reason and shutil.which("ncu") is None:
        reason = "no ncu on the PATH: install Nsight Compute (it comes with CUDA)"
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    metrics = [*COUNTERS, *(STALL.format(reason) for reason in STALLS)]
    inside = [sys.executable, "-m", "kernels.profile", "--inside", "--dim", str(options.dim), "--kernels"]
    inside += [*options.kernels, "--lengths", *map(str, options.lengths)]
    command = ["ncu", "--csv", "--print-units", "base", "--clock-control", "none"]  # base: bytes, ns
    command += ["--profile-from-start", "off", "--metrics", ",".join(metrics), *inside]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"error: ncu failed:\n{(result.stdout + result.stderr)[-2000:]}", file=sys.stderr)
        return 1
    rows = assign(shapes(options.kernels, options.lengths), read(result.stdout))
    for row in rows:
        print(row["kernel"], row["seqlen"], "causal" if row["causal"] else "full", row["metrics"])
    if options.out:
        options.out.write_text(json.dumps({"rows": rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
