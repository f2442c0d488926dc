"""Compare the simulator's vLLM policy with vLLM's own scheduler, step by step, on random loads.

    python -m benchmarks.schedulers --python .bakeoff/venvs/vllm/bin/python

Each step must be the same: which requests compute how many tokens, in which order, who is admitted, who is sent back,
and how many blocks are held. Prints the sums and each difference; exit status 1 if there is one.
`--golden FILE` writes loads and vLLM's traces for the unit tests.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.schedulers.load import Case, Trace, cases, first_difference, simulated

REAL = Path(__file__).with_name("real_vllm.py")


def real(python: str, loads: list[Case]) -> dict[str, Any]:
    """Have vLLM's interpreter play loads; return its version and traces."""
    asked = [
        {"settings": load["settings"] | {"longest": load["longest"]}, "requests": load["requests"]} for load in loads
    ]
    done = subprocess.run(
        [python, str(REAL)], input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=False,
        env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{python}: vLLM's scheduler did not run (exit status {done.returncode}); see above")
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index('{"version"') :])
    return result


def main() -> None:
    """Play, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=".bakeoff/venvs/vllm/bin/python", help="the interpreter that has vLLM")
    parser.add_argument("--seeds", type=int, default=8, help="loads of each of the eight settings")
    parser.add_argument("--requests", type=int, default=60, help="requests in a load")
    parser.add_argument("--golden", type=Path, help="write loads and vLLM's traces here (.json.gz)")
    args = parser.parse_args()
    loads = cases(range(args.seeds), args.requests)
    answer = real(args.python, loads)
    traces: list[Trace] = answer["traces"]
    parted = 0
    for load, theirs in zip(loads, traces, strict=True):
        where = first_difference(simulated(load, "vllm"), theirs)
        if where is not None:
            parted += 1
            print(json.dumps(load["settings"]), where)
    steps = sum(map(len, traces))
    sent_back = sum(len(step[2]) for trace in traces for step in trace)
    print(
        f"vLLM {answer['version']}: {len(loads)} loads, {steps} steps, {sum(len(s[0]) for t in traces for s in t)} "
        f"request-steps, {sent_back} preemptions; {parted} loads differ"
    )
    if args.golden:
        text = json.dumps({"version": answer["version"], "loads": loads, "traces": traces}, separators=(",", ":"))
        args.golden.write_bytes(gzip.compress(text.encode(), mtime=0))
    sys.exit(bool(parted))


if __name__ == "__main__":
    main()
