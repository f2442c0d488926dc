"""`python -m kernels measure` on a machine with a GPU, `python -m kernels page` anywhere: see kernels/README.md."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from kernels import build

DATA = Path(__file__).parent.parent / "docs" / "attention" / "data"
RUNS = 3
TOOLS = (
    ("check", "correctness.json", ()),
    ("bench", "bench.json", ("--runs", str(RUNS))),
    ("profile", "profile.json", ()),
)
"""What is run on the card, and the file that it writes."""
OPTIONAL = ("profile",)
"""What a machine may not allow: Nsight Compute may be missing, and its counters may be for root only."""


def why_not() -> str | None:
    """Why nothing can be measured here, and what can be done instead; None when it can."""
    instead = "`make kernels` compiles the sources, `make attention-page` draws the page from docs/attention/data"
    cards = shutil.which("nvidia-smi")
    if cards is None or subprocess.run([cards, "-L"], capture_output=True, check=False).returncode:
        return f"no NVIDIA card here, so nothing is measured; {instead}"
    reason = build.why_not()
    return None if reason is None else f"{reason}; {instead}"


def measure(folder: Path) -> int:
    """Run every tool into `folder`; returns the exit status: 2 where it cannot be done, else the first failure's."""
    reason = why_not()
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for tool, file, more in TOOLS:
        part = folder / f"{file}.part"
        part.unlink(missing_ok=True)
        print(f"{tool}: {folder / file}", flush=True)
        command = [sys.executable, "-m", f"kernels.{tool}", "--out", str(part), *more]
        status = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode
        if status == 0:
            part.replace(folder / file)
            continue
        words = f"kernels.{tool} ended with exit status {status} (see above)"
        if tool not in OPTIONAL:
            print(f"error: {words}", file=sys.stderr)
            return status
        (folder / file).unlink(missing_ok=True)  # another run's would not fit the rest
        print(f"warning: {words}; the page will do without {file}", file=sys.stderr)
    return 0


def page() -> int:
    """Write figures and tables; returns the exit status: 2 when a file is not of its form."""
    from kernels.page import write

    try:
        changed = write()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"wrote {path}" for path in changed) or "docs/attention is up to date")
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m kernels", description="Measure attention; write its page.")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="check, time and profile every kernel on this machine's card")
    measuring.add_argument("--out", type=Path, default=DATA, help="folder of the JSON files")
    commands.add_parser("page", help="write docs/attention's figures and tables from the JSON files")
    options = parser.parse_args()
    return measure(options.out) if options.command == "measure" else page()


if __name__ == "__main__":
    sys.exit(main())
