"""Start, stop and describe engines, whoever runs them. The campaign knows engines only through `EngineHost`."""

from __future__ import annotations

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
    ("no module named", "its environment is incomplete: remove .bakeoff/venvs and run `make up` again"),
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


def unknown_engine(name: str, known: Iterable[str]) -> UserError:
    """The error for an engine that a host does not have."""
    return UserError(f"unknown engine {name}: there are {', '.join(sorted(known))}")
