"""A copy of this working tree with a container stack of its own: `make` in it does what a user's `make` does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.models.containers import Container

from loadgen.machine import unused_ports
from loadgen.settings import variables
from tests.docker.engine import CHECKOUT, Engine

PORTS = tuple(name for name in variables() if name.endswith("_PORT"))
COMMAND_LIMIT_S = 600
PROJECT_LABEL = "com.docker.compose.project"


@dataclass(frozen=True)
class Done:
    """A command that ended: exit status, and both its outputs."""

    status: int
    text: str
    seconds: float

    @property
    def raced(self) -> bool:
        """Whether `make bench` went well. A busy machine may leave nothing to judge, exit code 6 of `bakeoff bench`."""
        return self.status == 0 or "Error 6" in self.text


@dataclass(frozen=True)
class Checkout:
    """The copy, its Compose project, and the variables that its commands get."""

    folder: Path
    project: str
    environment: Mapping[str, str]

    def having(self, **settings: str) -> Checkout:
        """The same copy and project, with other settings."""
        return dataclasses.replace(self, environment={**self.environment, **settings})

    def make(self, *words: str) -> Done:
        """Run `make` to its end, however it ends."""
        began = time.monotonic()
        result = subprocess.run(
            ["make", "--no-print-directory", *words],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT_S,
        )
        return Done(result.returncode, result.stdout, time.monotonic() - began)

    def making(self, *words: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """Run `make` beside the test; what is still running at the end is killed."""
        return self._beside("make", "--no-print-directory", *words)

    def racing(self, scenario: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """Race beside the test on the stack as it is: without what `make bench` brings up first, which takes longer."""
        return self._beside(".venv/bin/python", "-m", "loadgen", "bench", scenario, "--no-quality")

    @contextlib.contextmanager
    def _beside(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def url(self, port: str, path: str = "") -> str:
        """Where this machine reaches a published port, such as LOCUST."""
        return f"http://127.0.0.1:{self.environment[f'BAKEOFF_{port}_PORT']}{path}"

    def get(self, port: str, path: str, **parameters: str) -> Any:
        """What a published port answers, as JSON."""
        return requests.get(self.url(port, path), parameters, timeout=60).json()

    def query(self, expression: str) -> dict[str, float]:
        """A PromQL query's values by the values of their labels, joined with commas in the labels' order."""
        result = self.get("PROMETHEUS", "/api/v1/query", query=expression)["data"]["result"]
        return {
            ",".join(value for _, value in sorted(each["metric"].items())): float(each["value"][1]) for each in result
        }

    def containers(self, client: docker.DockerClient, service: str | None = None) -> list[Container]:
        """The project's containers, ended ones too."""
        labels = [f"{PROJECT_LABEL}={self.project}"]
        if service:
            labels.append(f"com.docker.compose.service={service}")
        found: list[Container] = client.containers.list(all=True, ignore_removed=True, filters={"label": labels})
        return found

    def left(self, client: docker.DockerClient) -> dict[str, list[str]]:
        """Names of what the project has, by kind."""
        filters = {"label": f"{PROJECT_LABEL}={self.project}"}
        return {
            "containers": [each.name for each in client.containers.list(all=True, filters=filters)],
            "networks": [each.name for each in client.networks.list(filters=filters)],
            "volumes": sorted(each.name for each in client.volumes.list(filters=filters)),
        }

    def scenario(self, name: str, **keys: Any) -> str:
        """Write a scenario file; its path from the top of the copy, as a user names it."""
        keys = {"name": name, "question": "Does the stack work?", "output_tokens": [16], "seed": 1, **keys}
        (self.folder / f"{name}.yaml").write_text(json.dumps(keys), encoding="utf-8")
        return f"{name}.yaml"


def copy_checkout(folder: Path, engine: Engine, project: str, settings: Mapping[str, str]) -> Checkout:
    """Copy what git knows of this working tree, and what it does not ignore, to `folder`."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = CHECKOUT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (folder / ".venv").symlink_to(sys.prefix)
    os.utime(folder / "requirements.lock", (0, 0))  # older than the environment, so that make takes that as it is
    ports = zip(PORTS, unused_ports(len(PORTS)), strict=True)
    # Not the user's own settings, nor what a `make test-docker` around this hands down.
    handed_down = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "ARGS", "SCENARIO", "RUN", "WORKERS")
    dropped = {*variables(), "BAKEOFF_UID", "BAKEOFF_GID", *handed_down}
    environment = {
        **{name: value for name, value in engine.environment().items() if name not in dropped},
        **{name: str(port) for name, port in ports},
        "COMPOSE_PROJECT_NAME": project,
        **settings,
    }
    return Checkout(folder, project, environment)
