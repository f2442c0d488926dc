"""Engines under several names: one engine with one setting or another, each a seat of its own in a race."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from loadgen.hosts.base import EngineHost, Progress, unknown_engine


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What a name stands for."""

    engine: str
    """The host's own name of the engine."""
    serving: str
    """Its serving block, as launchers read it."""


class VariantHost:
    """A host whose engines are known by the names of their settings.

    A variant is up only while its engine runs with that variant's block, so of several variants of one engine at most
    one is. An engine that ran before is started anew: with which block it was is not known.
    """

    def __init__(self, host: EngineHost, settings: Mapping[str, Setting], declare: Callable[[str], None]) -> None:
        """`declare` writes a block for the launchers, whoever runs."""
        self.restarts = host.restarts
        self._host = host
        self._settings = dict(settings)
        self._declare = declare
        self._held: dict[str, str] = {}
        """The name under which each engine was started last."""

    def start(self, name: str, on_progress: Progress | None = None, *, alone: bool = True) -> None:
        """Start the engine with this name's settings (see EngineHost.start)."""
        setting = self._setting(name)
        if self._held.get(setting.engine) != name:
            self._host.stop(setting.engine)
        # One character more than any block that is declared elsewhere: whoever declares one for the whole stack then
        # stops an engine that was left up with this one.
        self._declare(setting.serving + "\n")
        self._held[setting.engine] = name

        def tell(text: str) -> None:
            if on_progress is not None:
                on_progress(text if setting.engine == name else f"{name}: {text}")

        self._host.start(setting.engine, tell, alone=alone)

    def stop(self, name: str) -> None:
        """Stop the engine, unless it runs as another variant."""
        engine = self._setting(name).engine
        if self._held.get(engine, name) == name:
            self._host.stop(engine)
            self._held.pop(engine, None)

    def stop_all(self) -> None:
        """Stop every engine of the host."""
        self._host.stop_all()
        self._held.clear()

    def is_up(self, name: str) -> bool:
        """Whether the engine answers now, and with this name's settings."""
        return self._is_held(name) and self._host.is_up(self._setting(name).engine)

    def running(self) -> list[str]:
        """The variants whose engines have a process now."""
        engines = set(self._host.running())
        return [name for name, setting in self._settings.items() if setting.engine in engines and self._is_held(name)]

    def pids(self, name: str) -> list[int]:
        """First processes of its engine; none if another variant runs."""
        return self._host.pids(self._setting(name).engine) if self._is_held(name) else []

    def stack_pids(self) -> list[int]:
        """Those of the host's stack."""
        return self._host.stack_pids()

    def describe(self, name: str) -> dict[str, Any]:
        """All that is known of its engine's latest launch, and as `seat` the host's name of the engine."""
        engine = self._setting(name).engine
        return {"seat": engine, **self._host.describe(engine)}

    def how_it_ended(self, name: str) -> str:
        """The end of its last run in words; empty if it runs, or another variant has run since."""
        return self._host.how_it_ended(self._setting(name).engine) if self._is_held(name) else ""

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines of its log; empty if another variant has run since."""
        return self._host.log_tail(self._setting(name).engine, lines) if self._is_held(name) else ""

    def _is_held(self, name: str) -> bool:
        return self._held.get(self._setting(name).engine) == name

    def _setting(self, name: str) -> Setting:
        try:
            return self._settings[name]
        except KeyError:
            raise unknown_engine(name, self._settings) from None
