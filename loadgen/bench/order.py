"""What `bakeoff bench` was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadgen.endpoints.seats import Seat


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """A race, as the command line orders it."""

    scenario: str
    """A shipped scenario's name, a file or a run's folder; of no meaning with `resume`."""
    engines: Sequence[Seat] | None
    """Endpoints that already run; None takes the scenario's engines from the stack."""
    checkout: Path
    """Where the stack's state lies."""
    default_runs_dir: Path
    """Where runs go that neither the user nor the stack has a place for."""
    runs_dir: Path | None = None
    """Where the run folder goes; None for the stack's, or the default."""
    resume: str | None = None
    """The run to take up again, by id or folder."""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Scenario keys to replace."""
    most_repeats: int | None = None
    """Repeat until the verdict is clear, but no more often than this; None: as the scenario says."""
    workers: int = 1
    """Locust workers of a race without the stack."""
    accepted: frozenset[str] = frozenset()
    """Preflight checks whose blocking findings do not stop the race."""

    @property
    def own_runs_dir(self) -> Path:
        """Where runs go that the stack has no place for."""
        return self.runs_dir or self.default_runs_dir
