"""Run one long command with its output in a log, a sign of life on the terminal, and a readable failure."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from loadgen.errors import UserError
from loadgen.files import cannot_be_written, tail
from loadgen.hosts.base import quoted
from loadgen.message import printable

SIGN_OF_LIFE_S = 15.0


def say(text: str) -> None:
    """One line of progress."""
    print(printable(text), flush=True)


def run_logged(
    command: Sequence[str],
    *,
    what: str = "",
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    progress: Callable[[float], str | None] | None = None,
    every_s: float = SIGN_OF_LIFE_S,
) -> bool:
    """Run a command with its output appended to a log, and say every now and then that it goes on.

    Args:
        command: the command line.
        what: what it does, in words.
        log: where its output goes.
        environment: variables added to those of this process.
        cwd: where it runs.
        progress: says what to say instead after so many seconds; None ends the command.
        every_s: how often something is said.

    Returns:
        Whether it succeeded.
    """
    progress = progress or (lambda seconds: f"  {what}: {seconds:.0f} s")
    log.parent.mkdir(parents=True, exist_ok=True)
    began = last = time.monotonic()
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.25)
                if time.monotonic() - last >= every_s:
                    last = time.monotonic()
                    if (text := progress(last - began)) is None:
                        break
                    say(text)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode == 0


def failure(what: str, log: Path, advice: str) -> UserError:
    """The error for a command of `run_logged` that failed."""
    return UserError(f"{what} failed. {advice}\nThe last lines of {log}:\n{quoted(tail(log, 15))}")


def need_disk(folder: Path, gigabytes: float, what: str) -> None:
    """Raise UserError unless the disk of `folder` has this many GB (10^9 bytes) free, and the folder can be written."""
    _writable(folder)
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise UserError(
            f"{what} needs {gigabytes:g} GB of disk, and {folder} has {free:.1f} GB free: "
            "make room (`make clean` drops what Bakeoff keeps), or clone onto a larger disk"
        )


def _writable(folder: Path) -> None:
    """Make the folder and try to write into it. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        hint = "Clone into a folder of your own, or have its owner let you write there."
        raise cannot_be_written(folder, error, hint) from None


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """One command at a time on a checkout's stack, whose folder of working state this is; a second waits."""
    _writable(state)
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another command is at work on this checkout's stack: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_linux() -> bool:
    """Whether this is Linux (a function, so that type checkers do not skip what follows)."""
    return sys.platform.startswith("linux")


def run_command(app: Callable[[], object]) -> None:
    """Run a command line, and print what the user can mend without a traceback."""
    try:
        app()
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
