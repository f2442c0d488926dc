"""Feeds spoilt inputs to what strangers can reach: `python -m benchmarks.security frames|otlp|runs --inputs 100000`.

`floods --inputs 100` floods an exporter's port while it is scraped so often under each flood.

Ends with 0 when nothing died and the peak of memory stayed below the limit; prints that peak.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time

from benchmarks.security.memory import peak_mb

LIMIT_MB = {"frames": 512, "otlp": 200, "runs": 1024, "floods": 512}


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.security", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=sorted(LIMIT_MB))
    parser.add_argument("--inputs", type=int, default=100_000, help="of floods: scrapes under each (100 do)")
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


if __name__ == "__main__":
    sys.exit(main())
