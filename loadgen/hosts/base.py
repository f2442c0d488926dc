"""Start, stop and describe engines, whoever runs them. The campaign knows engines only through `EngineHost`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from loadgen.errors import UserError

Progress = Callable[[str], None]

# Lines of an engine's log that name the cause of its end, in words that mean something to its user.
CAUSES = (
    ("address already in use", "its port is in use"),
    ("exiting due to http server error", "its port is in use, maybe by an outgoing connection: use one below 32768"),
    ("no space left on device", "the disk is full"),
    ("cannot allocate memory", "memory ran out"),
    ("out of memory", "memory ran out"),
    ("no such file or directory", "a file is missing"),
    # As a traceback or Python itself ends; engines warn of optional parts that they do not miss in other words.
    (": no module named", "its environment is incomplete: remove .bakeoff/venvs and run `make up` again"),
)


class EngineHost(Protocol):
    """Who starts and stops engines: a stack, or nobody."""

    restarts: bool
    """Whether it does so at all: then what was stopped and started again is another process."""

    def start(self, name: str, on_progress: Progress | None = None, *, alone: bool = True) -> None:
        """Start an engine and wait until it is healthy. `alone`: the other engines are stopped first.

        Raises UserError with the cause and the last lines of its log if it ends or does not answer in time.
        """

    def stop(self, name: str) -> None:
        """Stop an engine and wait until it is gone. Nothing happens if it does not run."""

    def stop_all(self) -> None:
        """Stop every engine of this host."""

    def is_up(self, name: str) -> bool:
        """Whether the engine answers now."""

    def running(self) -> list[str]:
        """The engines that have a process now (for endpoints: that answer)."""

    def pids(self, name: str) -> list[int]:
        """First processes of the engine, where they are on this machine; their children belong to it."""

    def stack_pids(self) -> list[int]:
        """Likewise of all that the stack runs: who takes CPU from an engine and is not among these is a stranger."""

    def describe(self, name: str) -> dict[str, Any]:
        """All that is known of how the engine was launched, for the manifest: plain JSON data without secrets."""

    def how_it_ended(self, name: str) -> str:
        """The end of an engine's last run in words, such as its exit code; empty if it runs or nobody knows."""

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines of the engine's log; empty if this host has none."""


def known_cause(log: str) -> str:
    """What a log says of its writer's end, as `: reason`; empty where it names no cause that we know."""
    return next((f": {words}" for mark, words in CAUSES if mark in log.lower()), "")


def quoted(log: str) -> str:
    """Lines of a log, set off from the message around them."""
    return "\n".join(f"  | {line}" for line in log.splitlines())


# What engines put before what they say: process, level, moment, place in the source; and a terminal's colours.
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(
    r"""^(?: \s+
          | \([\w.-]+\s+pid=\d+\)
          | \[[^\]]*\]
          | (?:INFO|WARNING|WARN|ERROR|DEBUG|TRACE|FATAL|I|W|E|D)\b:?
          | \d{2,4}-\d{2}(?:-\d{2})?
          | T?\d{1,2}:\d{2}:\d{2}[.,\d]*Z?
        )+""",
    re.VERBOSE,
)
_BAR = re.compile(r"\s*(\d+%)\|.*")
LINE_WIDTH = 70


def readable(line: str) -> str:
    """What a line of an engine's log says, without what a person does not read, at most LINE_WIDTH characters."""
    text = _COLOURS.sub("", line.rsplit("\r", maxsplit=1)[-1])
    text = _BAR.sub(r" \1", _PREFIX.sub("", text))
    return textwrap.shorten(text, LINE_WIDTH, placeholder=" …") if " " in text.strip() else text.strip()[:LINE_WIDTH]


class Starting:
    """What is said while an engine starts: how long it has been, and what its log says where that is new."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = ""

    def words(self, seconds: float, line: str) -> str:
        """Say it, with the last line of the log."""
        text = readable(line)
        new, self._said = text != self._said, text
        told = f": {text}" if new and text else ""
        return f"{self._name} is starting, {seconds:.0f} s{told}"


def unknown_engine(name: str, known: Iterable[str]) -> UserError:
    """The error for an engine that a host does not have."""
    return UserError(f"unknown engine {name}: there are {', '.join(sorted(known))}")
