"""Run Compose on one project and read what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docker.commands import run
from tests.docker.engine import Engine


@dataclass(frozen=True)
class Stack:
    """A Compose project: its file's folder, and the variables that the file reads."""

    engine: Engine
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str) -> str:
        """Run a Compose command and return what it printed. Raises EngineError if it fails."""
        options = ("--project-directory", str(self.folder), "--ansi", "never")
        command = [*self.engine.compose, *options, *arguments]
        return run(command, env={**self.engine.environment(), **self.variables})
