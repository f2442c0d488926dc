"""Find and end this checkout's processes, and tell who holds a port.

Every process of the stack inherits the variable `BAKEOFF_STACK` with the checkout's state folder, so that strays are
found even after their supervisor was killed. vLLM's children write their titles over their environment; these are known
by the launch record of their engine, or by working below the state folder with code of an engine's environment loaded.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from loadgen.hosts.remains import kill, launched, shared_memory, sweep
from loadgen.machine import listeners

MARK = "BAKEOFF_STACK"


def ours(state: Path) -> list[psutil.Process]:
    """The live processes of the stack whose state folder this is, never this process or those that started it."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for record in (state / "stack").glob("launch-*.json"):
        name = record.stem.removeprefix("launch-")
        found |= {process.pid: process for process in launched(record, state / "engines" / name) if _lives(process)}
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid() or not (_is_marked(process, state) or _is_engine(process, state)):
                continue
            # A process that gave up its environment is still found below one that kept it.
            for each in (process, *process.children(recursive=True)):
                if _lives(each):
                    found[each.pid] = each
        except psutil.Error:
            continue
    return [process for pid, process in found.items() if pid not in own]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_marked(process: psutil.Process, state: Path) -> bool:
    """Whether the process carries this stack's variable."""
    try:
        return process.environ().get(MARK) == str(state)
    except (psutil.Error, OSError):
        return False


def _is_engine(process: psutil.Process, state: Path) -> bool:
    """Whether the process works in an engine's folder and has code of an engine's environment loaded.

    A shell or an editor that someone opened in that folder has none.
    """
    engines, venvs = state / "engines", f"{state / 'venvs'}{os.sep}"
    try:
        if not Path(process.cwd()).is_relative_to(engines):
            return False
        return any(mapped.path.startswith(venvs) for mapped in process.memory_maps())
    except (psutil.Error, OSError, AttributeError):  # AttributeError: no memory_maps on macOS
        return False


def end(processes: Iterable[psutil.Process], *, patience_s: float = 10) -> list[psutil.Process]:
    """Ask these to end (SIGTERM), then kill those that have not after `patience_s`. Returns those still alive."""
    asked = list(processes)
    held = shared_memory(asked)
    for process in asked:
        with contextlib.suppress(psutil.Error):  # psutil checks that the pid was not taken by another
            process.terminate()
    _, alive = psutil.wait_procs(asked, timeout=patience_s)
    alive = kill(alive, 5)
    sweep(held)
    return alive


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that linger from an earlier one do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def port_holder(port: int) -> psutil.Process | None:
    """The process that listens on this port, if this user may see it."""
    for pid in listeners(port):
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid)
    return None


def name_of(process: psutil.Process | None) -> str:
    """A process in words: its pid and the start of its command line."""
    if process is None:
        return "a program that this user may not see"
    try:
        command = " ".join(" ".join(process.cmdline()).split()) or process.name()
    except psutil.Error:
        command = "ended meanwhile"
    return f"process {process.pid} ({command[:70]}{'…' if len(command) > 70 else ''})"
