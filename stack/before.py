"""What a machine must have, looked at before the first download: `python -m stack.before setup`, or `demo`.

Standard library only: `.venv` is not there yet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from stack import sources
from stack.commands import need_disk, run_command, say
from stack.engines.vllm.serve import missing_for_compile

OWN_DISK_GB = 1.5
ENGINE_DISK_GB = {"llamacpp": 2.0, "vllm": 8.0}
RUN_DISK_GB = 1.0
DEMO_MEMORY_GB = 12
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def lacking_gb(checkout: Path, engines: Iterable[str]) -> float:
    """Disk (10^9 bytes) that must be free to set these engines up; those that are set up need none."""
    stamps = {name: checkout / ".bakeoff" / "venvs" / name / "bakeoff.stamp" for name in engines}
    return max((ENGINE_DISK_GB[name] for name, stamp in stamps.items() if not stamp.exists()), default=0.0)


def memory_gb() -> float:
    """Memory of this machine, in 10^9 bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def warnings(memory: float, missing: list[str]) -> list[str]:
    """What will make a demo worse, and what to do."""
    found = []
    if memory < 0.9 * DEMO_MEMORY_GB:
        found.append(
            f"warning: this machine has {memory:.1f} GB of memory, and both engines together want "
            f"{DEMO_MEMORY_GB}: the system may end one of them"
        )
    if missing:
        found.append(
            f"warning: {' and '.join(missing)} not found: vLLM will not compile the model and will be slower. "
            "On Debian and Ubuntu: sudo apt install g++ python3-dev"
        )
    return found


def look(checkout: Path, what: str) -> None:
    """Look at the bundle, write access, disk, memory and compiler. Raises UserError where it cannot work."""
    own = 0.0 if (checkout / ".venv" / "bakeoff.stamp").exists() else OWN_DISK_GB
    if source := sources.bundle():
        source.check()
        own += source.manifest.bytes / 1e9 if own and source.manifest.parts else 0.0
    if what != "demo" or NVIDIA_DRIVER.exists():
        # Which engines a demo races on a GPU is known later; what makes them looks for their disk.
        need_disk(checkout / ".bakeoff", own + (RUN_DISK_GB if what == "demo" else 0.0), "setting up Bakeoff")
        return
    lacking = lacking_gb(checkout, ENGINE_DISK_GB)
    need_disk(checkout / ".bakeoff", own + (lacking or RUN_DISK_GB), "the demo")
    for line in warnings(memory_gb(), missing_for_compile()):
        say(line)


if __name__ == "__main__":
    run_command(lambda: look(Path(__file__).resolve().parents[1], sys.argv[1]))
