"""Run commands whose failure is told in one message, and keep how long each step took."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Daemons and iptables live in the administrator's folders, which a login's PATH may lack.
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))

_steps: list[tuple[str, float]] = []
_notes: list[str] = []


class EngineError(RuntimeError):
    """The docker tier could not be set up or taken down; the message says what failed and what to do."""


class NoEngineError(EngineError):
    """No Docker engine answers, and none can be installed by this user on this system."""


def program(name: str) -> str | None:
    """Where a program lies, administrator's folders included."""
    return shutil.which(name, path=SYSTEM_PATH)


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, text_in: str | None = None) -> str:
    """Run a command to its end and return what it printed.

    Raises EngineError with the last lines of its output if it fails or is not there.
    """
    words = [str(word) for word in command]
    variables = {**os.environ, "PATH": SYSTEM_PATH, **(env or {})}
    words[0] = shutil.which(words[0], path=variables["PATH"]) or words[0]
    try:
        result = subprocess.run(words, env=variables, input=text_in, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineError(f"cannot run {words[0]}: {error}") from None
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise EngineError(f"`{' '.join(words)}` failed with exit status {result.returncode}:\n{tail}")
    return result.stdout


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Time what runs inside, for `steps`."""
    start = time.monotonic()
    try:
        yield
    finally:
        _steps.append((name, time.monotonic() - start))


def steps() -> list[tuple[str, float]]:
    """Each step so far and its time in seconds, in order."""
    return list(_steps)


def note(text: str) -> None:
    """Keep a line to be shown when the tests have ended."""
    _notes.append(text)


def notes() -> list[str]:
    """Each line so far."""
    return list(_notes)
