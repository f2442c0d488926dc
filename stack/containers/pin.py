"""Add digests to the images that compose.yaml pins by version, asked of their registries."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException

from loadgen.errors import UserError
from loadgen.files import atomic_write
from stack.commands import say
from stack.containers.docker_engine import engine_address, find_engine

_PINNED = re.compile(r"\$\{(?P<variable>[A-Z_]+_IMAGE):-(?P<image>[^}@\s]+)(?:@sha256:[0-9a-f]{64})?\}")
# Built by each site: there is no registry to ask.
NOT_PUBLISHED = ("KSANA_IMAGE",)


def pinned_images(text: str) -> dict[str, str]:
    """The published images of a Compose file without digests, by variable."""
    found = {match["variable"]: match["image"] for match in _PINNED.finditer(text)}
    return {variable: image for variable, image in found.items() if variable not in NOT_PUBLISHED}


def with_digests(text: str, digest_of: Callable[[str], str]) -> str:
    """The file with `@sha256:...` after each published image; `digest_of` tells it for NAME:TAG.

    A digest that is there already is replaced. Nothing else changes.
    """
    digests = {variable: digest_of(image) for variable, image in pinned_images(text).items()}

    def pin(match: re.Match[str]) -> str:
        variable, image = match["variable"], match["image"]
        return f"${{{variable}:-{image}@{digests[variable]}}}" if variable in digests else match[0]

    return _PINNED.sub(pin, text)


def pin_images(path: Path) -> None:
    """Rewrite a Compose file with the digests that the registries tell. Raises UserError, and writes nothing."""
    engine = find_engine(engine_address())
    if isinstance(engine, str):
        raise UserError(f"no Docker engine to ask the registries with: {engine}")
    client = docker.DockerClient(base_url=engine.host, timeout=60)

    def digest_of(image: str) -> str:
        try:
            digest = str(client.images.get_registry_data(image).id)
        except (APIError, DockerException, requests.RequestException) as error:
            why = getattr(error, "explanation", None) or error
            raise UserError(f"{image}: its registry does not tell its digest, so nothing was written: {why}") from None
        say(f"{image}@{digest}")
        return digest

    text = path.read_text(encoding="utf-8")
    atomic_write(path, with_digests(text, digest_of))
    say(f"{len(pinned_images(text))} digests are in {path.name}: review and commit it")
