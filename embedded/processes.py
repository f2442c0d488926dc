"""Find and end this checkout's processes, and tell who holds a port.

Every process of the stack inherits the variable `BAKEOFF_STACK` with the checkout's state folder, so that strays are
found even after their supervisor was killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

MARK = "BAKEOFF_STACK"


def ours(state: Path) -> list[psutil.Process]:
    """The live processes of the stack whose state folder this is, never this process or those that started it."""
    wanted = str(state)
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid() or process.environ().get(MARK) != wanted:
                continue
            # A process that gave up its environment is still found below one that kept it.
            for each in (process, *process.children(recursive=True)):
                if each.status() != psutil.STATUS_ZOMBIE:
                    found[each.pid] = each
        except psutil.Error:
            continue
    return [process for pid, process in found.items() if pid not in own]


def end(processes: Iterable[psutil.Process], *, patience_s: float = 10) -> list[psutil.Process]:
    """Ask these to end (SIGTERM), then kill those that have not after `patience_s`. Returns those still alive."""
    asked = list(processes)
    for process in asked:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(asked, timeout=patience_s)
    for process in alive:
        _signal(process, kill=True)
    _, alive = psutil.wait_procs(alive, timeout=5)
    return alive


def _signal(process: psutil.Process, *, kill: bool) -> None:
    """Signal a process that may have gone meanwhile (psutil checks that the pid was not taken by another)."""
    with contextlib.suppress(psutil.Error):
        process.kill() if kill else process.terminate()


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
    for process in psutil.process_iter():
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return process
        except psutil.Error:
            continue
    return None


def name_of(process: psutil.Process | None) -> str:
    """A process in words: its pid and the start of its command line."""
    if process is None:
        return "a program that this user may not see"
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "ended meanwhile"
    return f"process {process.pid} ({command[:70]}{'…' if len(command) > 70 else ''})"
