"""Find Compose on this machine and run it on this checkout's project."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from stack.containers.docker_engine import DockerEngine, engine_address, find_engine

ANSWER_LIMIT_S = 30.0
OLDEST = (2, 20)
"""The first with `scale` beside `deploy`, and with `--wait-timeout`."""
CANDIDATES = (("docker", "compose"), ("docker-compose",))


def version_of(text: str) -> tuple[int, int] | None:
    """Major and minor number in what `compose version --short` prints; None if it is no version."""
    major, _, rest = text.strip().removeprefix("v").partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def find_compose(limit_s: float = ANSWER_LIMIT_S) -> tuple[str, ...] | str:
    """The command that is Compose: Docker's plugin, else the program of its own; or why there is none."""
    too_old = ""
    for command in CANDIDATES:
        try:
            result = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=False, timeout=limit_s
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = version_of(result.stdout) if result.returncode == 0 else None
        if found and found >= OLDEST:
            return command
        if found:
            too_old = f"`{' '.join(command)}` is {found[0]}.{found[1]}, and {OLDEST[0]}.{OLDEST[1]} or newer is needed"
    return too_old or "neither `docker compose` nor `docker-compose` runs here"


def find_docker() -> tuple[DockerEngine, tuple[str, ...]] | str:
    """The Docker engine of this machine, and the command that is Compose; or which of them is missing, and why."""
    engine = find_engine(engine_address())
    if isinstance(engine, str):
        return f"no Docker engine: {engine}"
    compose = find_compose()
    return f"no Docker Compose: {compose}" if isinstance(compose, str) else (engine, compose)


@dataclass(frozen=True)
class Compose:
    """Compose for one project: its program, the checkout, the variables that compose.yaml reads, the profiles."""

    program: Sequence[str]
    checkout: Path
    environment: Mapping[str, str]
    profiles: Sequence[str] = ()
    files: Sequence[str] = ("compose.yaml",)

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        options = ["--project-directory", str(self.checkout), "--ansi", "never", "--progress", "plain"]
        for file in self.files:
            options += ["--file", str(self.checkout / file)]
        for profile in self.profiles:
            options += ["--profile", profile]
        return [*self.program, *options, *arguments]

    def run(self, *arguments: str) -> str:
        """Run to the end; what it printed. Raises UserError with what it said."""
        try:
            result = subprocess.run(
                self.command(*arguments), env=dict(self.environment), capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise UserError(f"cannot run {self.program[0]}: {error.strerror or error}") from None
        if result.returncode:
            said = "\n".join(f"  | {line}" for line in (result.stderr or result.stdout).strip().splitlines()[-12:])
            raise UserError(f"`{' '.join(self.program)} {' '.join(arguments)}` failed:\n{said}")
        return result.stdout

    def services(self) -> dict[str, dict[str, Any]]:
        """The services of the profiles as Compose resolves them. Raises UserError."""
        return dict(json.loads(self.run("config", "--format", "json"))["services"])
