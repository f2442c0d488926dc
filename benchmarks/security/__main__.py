"""Feeds spoilt inputs to what strangers can reach: `python -m benchmarks.security frames|otlp|runs --inputs 100000`.

Ends with 0 when nothing died and the peak of memory stayed below the limit; prints that peak.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import sys
import time
from pathlib import Path

LIMIT_MB = {"frames": 512, "otlp": 200, "runs": 1024}


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.security", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=sorted(LIMIT_MB))
    parser.add_argument("--inputs", type=int, default=100_000)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    told = importlib.import_module(f"benchmarks.security.{options.what}").run(options.inputs)
    peak = peak_mb()
    words = "; ".join(f"{name}: {value}" for name, value in told.items())
    print(
        f"{options.what}: {options.inputs:,} inputs in {time.monotonic() - started:.0f} s; {words}; peak {peak:.0f} MB"
    )
    return 0 if peak < LIMIT_MB[options.what] else 1


def peak_mb() -> float:
    """This program's own peak of memory. getrusage's would be that of the process it was forked from, if larger."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found  # noqa: S101
    return int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
