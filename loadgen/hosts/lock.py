"""What may be used by one race or test at a time: a stack, an engine, a run's folder.

The kernel lets go of a lock when its holder ends, however it ends (kill -9 too): none is ever left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from loadgen.errors import UserError
from loadgen.files import cannot_be_written

STACK_LOCK = ".stack.lock"
"""In the folder of runs, which Locust's containers share with this machine."""
READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Of a lock's file, which a stranger may have made a pipe."""
STOPS = re.compile(r"Ctrl-C where it runs, or `kill -INT \d+`|Stop in the web UI")
SHARED = (Path("/run/lock"), Path(tempfile.gettempdir()))
"""Where every user of this machine finds an engine's lock."""
LOCAL = ("localhost", "::1", "0.0.0.0", "127.0.1.1")  # noqa: S104 - names of this machine


@contextlib.contextmanager
def held(path: Path, what: str, stop: str = "", *, remove: bool = False) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: its file, made with its folders where there is none.
        what: who holds it, in words that begin a sentence: `a race (20261128-140501-smoke)`.
        stop: how to stop that; empty for a command in a terminal.
        remove: whether the file is taken away again.

    Raises:
        UserError: another holds it: who, since when, and how to stop it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_be_written(path, error) from None
    file = _taken(path)
    try:
        told = {"what": what, "user": _user(), "pid": os.getpid(), "since": time.time(), "ends_on_signal": not stop}
        told["stop"] = stop or f"Ctrl-C where it runs, or `kill -INT {os.getpid()}`"
        with contextlib.suppress(OSError):  # of another user, and not ours to write: it locks all the same
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(told).encode(), 0)
        yield
    finally:
        if remove:
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(file)


def refuse_while_held(path: Path) -> None:
    """Raise UserError where somebody holds a lock: who, since when, and how to stop it."""
    if path.exists():
        os.close(_taken(path))


def end_holder(path: Path, limit_s: float = 60.0) -> str:
    """End the command that holds a lock as Ctrl-C does, and wait until it has closed what it writes.

    Returns who that was, in words; empty where nobody holds it, or one that no signal ends. Raises UserError where it
    is another user's, or does not end.
    """
    if (told := _holder(path)) is None or told.get("ends_on_signal") is not True:
        return ""
    who = f"{told['what']} (process {told['pid']} of {told['user']})"
    try:
        process = psutil.Process(told["pid"])
        # Others may write to the file: whom it names must have it open.
        if not any(Path(each.path).samefile(path) for each in process.open_files()):
            return ""
        process.terminate()  # a job of a script may ignore Ctrl-C
    except (psutil.NoSuchProcess, OSError):  # it has just ended
        return ""
    except psutil.AccessDenied:
        raise UserError(f"{who} runs, and is not yours to end.") from None
    deadline = time.monotonic() + limit_s
    while (now := _holder(path)) is not None and now.get("pid") == told["pid"]:
        if time.monotonic() > deadline:
            raise UserError(f"{who} does not end: `kill {told['pid']}`, then try again.")
        time.sleep(0.1)
    return who


def _holder(path: Path) -> dict[str, Any] | None:
    """What the holder of a lock tells of itself; None where nobody holds it, or tells what it should not."""
    try:
        file = os.open(path, READ_ONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(os.pread(file, 4096, 0))
            if isinstance(told, dict) and isinstance(told.get("pid"), int) and told["pid"] > 1:
                return {"what": "", "user": "", **told}
    finally:
        os.close(file)
    return None


@contextlib.contextmanager
def engines_held(urls: Iterable[str], what: str, stop: str = "") -> Iterator[None]:
    """Hold engines by the addresses at which this machine reaches them. Raises UserError as `held` does."""
    with contextlib.ExitStack() as locks:
        for address in sorted({_address(url) for url in urls}):
            with _named(address):
                locks.enter_context(held(_engine_lock(address), what, stop, remove=True))
        yield


def refuse_while_engine_held(url: str) -> None:
    """Raise UserError where somebody holds an engine: who, since when, and how to stop it."""
    with _named(address := _address(url)):
        refuse_while_held(_engine_lock(address))


@contextlib.contextmanager
def _named(address: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"The engine at {address.replace('_', ':')} is in use: {error}") from None


def _engine_lock(address: str) -> Path:
    folder = next((each for each in SHARED if os.access(each, os.W_OK)), SHARED[-1])
    return folder / f"bakeoff-engine-{address}.lock"


def _address(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{'127.0.0.1' if host in LOCAL else host}_{port}".replace("/", "-")


def _taken(path: Path) -> int:
    """The open and locked file. Raises UserError."""
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        except BlockingIOError:
            told = _told(file)
            os.close(file)
            raise UserError(told) from None
        except FileNotFoundError:  # its last holder has just taken it away
            pass
        os.close(file)


def _open(path: Path) -> int:
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:
        try:
            file = os.open(path, READ_ONLY)
        except OSError as error:
            raise cannot_be_written(path, error) from None
    except OSError as error:
        raise cannot_be_written(path, error) from None
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(file)
        raise UserError(f"{path} is no lock of ours: it is a pipe, a device or a further name of a file. Take it away.")
    if not status.st_size:  # a new one; also for Locust's containers, which run as the owner of the runs
        with contextlib.suppress(OSError):
            os.fchmod(file, 0o666)
    return file


def _told(file: int) -> str:
    try:
        told = json.loads(os.pread(file, 4096, 0))
        since = time.strftime("%H:%M", time.localtime(told["since"]))
        stop = str(told["stop"])  # anybody may have written it, and people paste what they are told
        return (
            f"{told['what']} runs since {since} (process {told['pid']} of {told['user']}), and is left alone. "
            f"Let it end{f', or stop it: {stop}' if STOPS.fullmatch(stop) else ''}."
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another race or test runs, and is left alone. Let it end first."


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need have no name
        return str(os.getuid())
