"""What killed processes leave behind: shared memory, which only Linux tells of, and temporary files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it
OWN_NAMES = ("psm_", "sem.", "torch_", "nccl-", "vllm")
"""How segments are named that processes make for one another; a file that a person put there, such as a model's
weights, is named otherwise."""
KEEPER = "multiprocessing.resource_tracker"
"""Python's own process that takes away what its parent has left; it ends by itself once that is gone."""
KEEPER_LIMIT_S = 3.0


def shared_memory(processes: Iterable[psutil.Process]) -> set[Path]:
    """The segments that these processes hold now, of those that go with their makers."""
    held = {path for process in processes for path in _held(process.pid)}
    return {path for path in held if path.parent == SHARED_MEMORY and path.name.startswith(OWN_NAMES)}


def launched(record: Path, folder: Path) -> list[psutil.Process]:
    """The processes of an engine's latest launch, by its launch record.

    Supervisor makes each program the leader of a group of its own. Engines work in a folder that the record names
    (`folder` where it names none): a group of someone else that took over the number does not.
    """
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
        group, folder = int(facts["pid"]), Path(facts.get("cwd") or folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and Path(process.cwd()) == folder:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def kill(processes: Sequence[psutil.Process], limit_s: float = 10.0) -> list[psutil.Process]:
    """Kill processes, and take away the shared memory that they held. Returns those that are still alive."""
    held = shared_memory(processes)
    keepers = [process for process in processes if _is_keeper(process)]
    _, alive = _ended([process for process in processes if process not in keepers], limit_s)
    _, late = psutil.wait_procs(keepers, timeout=KEEPER_LIMIT_S)
    alive += _ended(late, limit_s)[1]
    sweep(held)
    return alive


def sweep(segments: Iterable[Path]) -> None:
    """Remove shared memory that no process holds any more."""
    left = {path for path in segments if path.exists()}
    if left:
        left -= shared_memory(psutil.process_iter())
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()


def renew(folder: Path) -> None:
    """Make a folder for temporary files, empty and for this user only."""
    clear(folder)
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True)


def clear(folder: Path) -> None:
    """Remove it with all that is in it; a link is left as it is."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def _ended(processes: Iterable[psutil.Process], limit_s: float) -> tuple[list[psutil.Process], list[psutil.Process]]:
    asked = list(processes)
    for process in asked:
        with contextlib.suppress(psutil.Error):
            process.kill()
    gone, alive = psutil.wait_procs(asked, timeout=limit_s)
    return list(gone), list(alive)


def _held(pid: int) -> set[Path]:
    """By its open files and its mappings."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            found.add(line.split(None, 5)[5] if line.count("/") else "")
    inside = f"{SHARED_MEMORY}{os.sep}"
    return {Path(name) for name in found if name.startswith(inside) and not name.endswith(" (deleted)")}


def _is_keeper(process: psutil.Process) -> bool:
    try:
        return any(KEEPER in word for word in process.cmdline())
    except psutil.Error:
        return False
