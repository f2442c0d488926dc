"""Have the images there: ours built, upstream's pulled, and what cannot be had named with what is lost by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound

from loadgen.files import tail
from loadgen.hosts.base import quoted
from loadgen.hosts.docker import explained
from stack.commands import run_logged, say
from stack.containers.compose import Compose

OWN = "bakeoff/"
"""How the names of images start that are built from this checkout."""


class Images:
    """The images of a set of services."""

    def __init__(self, compose: Compose, client: docker.DockerClient, services: Mapping[str, Any], log: Path) -> None:
        self._compose = compose
        self._client = client
        self._services = services
        self._log = log

    def is_here(self, service: str) -> bool:
        """Whether the Docker engine has the image of a service."""
        with explained():
            try:
                self._client.images.get(self._services[service]["image"])
            except ImageNotFound:
                return False
        return True

    def missing(self, services: Iterable[str]) -> list[str]:
        """The services whose images the Docker engine does not have."""
        return [name for name in services if not self.is_here(name)]

    def obtain(self, services: Sequence[str]) -> dict[str, str]:
        """Build our images, each once, and pull those of upstream that are not here.

        Returns why an image could not be had, by service.
        """
        done: dict[str, str | None] = {}
        for name in services:
            image = self._services[name]["image"]
            if image in done:
                continue
            here = self.is_here(name)
            if image.startswith(OWN):
                if not here:
                    say(f"image {image}: building, once (details in {self._log})")
                done[image] = self._run(["build", name], f"building {image}", lines=12)
            elif not here:
                say(f"image {image}: pulling")
                done[image] = self._run(["pull", "--quiet", name], f"pulling {image}", lines=1)
        failed = {name: done.get(self._services[name]["image"]) for name in services}
        return {name: why for name, why in failed.items() if why is not None}

    def _run(self, arguments: Sequence[str], what: str, lines: int) -> str | None:
        """Run a Compose command that takes long; None, or the end of what it said."""
        if run_logged(
            self._compose.command(*arguments), what=what, log=self._log, environment=self._compose.environment
        ):
            return None
        return quoted(tail(self._log, lines))
