"""Have the images there: ours built, upstream's pulled, and what cannot be had named with what is lost by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound

from loadgen.errors import UserError
from loadgen.hosts.base import quoted
from stack.commands import run_logged, say, tail
from stack.containers.compose import Compose

OWN = "bakeoff/"


def is_own(image: str) -> bool:
    """Whether an image is built from this checkout."""
    return image.startswith(OWN)


class Images:
    """The images of a set of services."""

    def __init__(self, compose: Compose, client: docker.DockerClient, services: Mapping[str, Any], log: Path) -> None:
        self._compose = compose
        self._client = client
        self._services = services
        self._log = log

    def is_here(self, service: str) -> bool:
        """Whether the Docker engine has the image of a service."""
        try:
            self._client.images.get(self._services[service]["image"])
        except ImageNotFound:
            return False
        except APIError as error:
            raise UserError(f"the Docker engine refuses: {error.explanation or error}") from None
        return True

    def missing(self, services: Iterable[str]) -> list[str]:
        """The services whose images the Docker engine does not have."""
        return [name for name in services if not self.is_here(name)]

    def build(self, services: Sequence[str]) -> dict[str, str]:
        """Build the images of ours among these services. Returns why one could not be built, by service."""
        failed: dict[str, str] = {}
        built: dict[str, str | None] = {}
        for name in services:
            image = self._services[name]["image"]
            if not is_own(image):
                continue
            if image not in built:
                if not self.is_here(name):
                    say(f"image {image}: building, once (details in {self._log})")
                built[image] = self._run(["build", name], f"building {image}", lines=12)
            if (why := built[image]) is not None:
                failed[name] = why
        return failed

    def pull(self, services: Sequence[str]) -> dict[str, str]:
        """Pull the images of upstream that are not here. Returns why one could not be pulled, by service."""
        failed: dict[str, str] = {}
        for name in services:
            image = self._services[name]["image"]
            if is_own(image) or self.is_here(name):
                continue
            say(f"image {image}: pulling")
            if (why := self._run(["pull", "--quiet", name], f"pulling {image}", lines=1)) is not None:
                failed[name] = why
        return failed

    def _run(self, arguments: Sequence[str], what: str, lines: int) -> str | None:
        """Run a Compose command that takes long; None, or the end of what it said."""
        if run_logged(
            self._compose.command(*arguments), what=what, log=self._log, environment=self._compose.environment
        ):
            return None
        return quoted(tail(self._log, lines))
