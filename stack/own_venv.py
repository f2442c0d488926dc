"""Make `.venv` from requirements.lock, and say how it goes: `python -m stack.own_venv`.

Standard library only: `.venv` is not there yet. Make decides when it is to be made anew.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from stack import sources
from stack.bundle.manifest import OWN
from stack.commands import failure, run_command, run_logged, say


def make(checkout: Path) -> None:
    """Make it. Raises UserError with the end of pip's output."""
    folder, log = checkout / ".venv", checkout / ".bakeoff" / "logs" / "setup-bakeoff.log"
    began = time.monotonic()
    say("Bakeoff: making .venv from requirements.lock, once: about 3 minutes (details in .bakeoff/logs)")
    log.unlink(missing_ok=True)
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    if not run_logged([sys.executable, "-m", "venv", str(folder)], what="venv", log=log):
        raise failure("Making .venv", log, "On Debian and Ubuntu: sudo apt install python3-venv.")
    python, lock = folder / "bin" / "python", checkout / "requirements.lock"
    packages = ("--require-hashes", "-r", str(lock))
    if not sources.install(python, packages, name=OWN, lock=lock, what="fetching and installing packages", log=log):
        raise failure("Making .venv", log, sources.advice())
    say(f"Bakeoff: .venv made in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    run_command(lambda: make(Path(__file__).resolve().parents[1]))
