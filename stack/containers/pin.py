"""Add digests to the images that compose.yaml pins by version, asked of their registries."""

from __future__ import annotations

import re
from collections.abc import Callable

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
