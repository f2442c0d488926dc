"""What a stack can be asked to do, whatever it runs as: containers and plain processes are each a `Runtime`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from loadgen.hosts.base import EngineHost

NO_ENGINE = "none"
"""What `--engine` says where none is to be started; one that serves goes on."""

TAKEN = 7
"""Exit status of a command that was to start a new stack where one runs already, and left that alone."""

WITHOUT = {
    "engine-exporter": "engine memory and CPU are not recorded",
    "gpu-exporter": "GPU memory, power, clocks and throttling are not recorded",
    "ksana-exporter": "KsanaLLM's own metrics are not recorded",
    "prometheus": "nothing is recorded over time, and reports come without engine memory",
    "grafana": "there are no live dashboards; `make dashboards` prints them as a page",
}
"""What is lost where one of these is missing."""


@dataclass(frozen=True)
class State:
    """One process or container of a stack, as `ps` shows it."""

    name: str
    word: str
    runs_as: str
    """Its pid, or its container."""
    up_s: int | None
    urls: tuple[str, ...]
    gpus: str = ""
    """An engine's, by index or UUID, commas between: those that it was started on last, else those that it is given."""


class Runtime(Protocol):
    """The stack of one checkout."""

    def can_set_up(self) -> Sequence[str]:
        """The engines that `setup` makes something for."""

    def setup(self, engines: Sequence[str], *, verify: bool = False) -> None:
        """Make what engines need to start here (none named: all that this machine can run). Raises UserError."""

    def check(self, *, new: bool = False, move_ports: bool = False) -> None:
        """Look, before anything is made, at what a start needs. Raises UserError.

        Args:
            new: nothing of this checkout may run yet.
            move_ports: ports that are taken do not matter.
        """

    def up(self, engine: str, serving: str | None, *, new: bool = False, move_ports: bool = False) -> list[str]:
        """Start what does not run yet, and one engine.

        Args:
            engine: its name; empty is the usual one, NO_ENGINE none.
            serving: the serving block for the engines as JSON, empty for their defaults; None leaves it as it is.
            new: refuse where it runs already.
            move_ports: take free ports in place of those that others hold.

        Returns:
            What is missing or failed and can be done without, a line each.

        Raises:
            UserError: for what cannot.
        """

    def down(self, *, volumes: bool) -> None:
        """End all of it, whatever state it is in; its volumes too if asked. Raises UserError if something is left."""

    def states(self) -> list[State]:
        """Every process or container. Raises UserError, with exit code 1, if the stack does not run."""

    def logs(self, name: str, lines: int, *, follow: bool) -> NoReturn:
        """Become a program that shows the end of one log, and follows it if asked. UserError if there is none."""

    def host(self) -> EngineHost:
        """Who starts and stops the engines. Raises UserError if the stack does not run."""
