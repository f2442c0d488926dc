"""Names of engines in a race of both placements: one that is measured in turns and together is two rows there."""

from __future__ import annotations

_BEHIND = "-together"


def together_name(engine: str) -> str:
    """What an engine's blocks are called that ran at the same instant as the others'."""
    return f"{engine}{_BEHIND}"


def alone_name(name: str) -> str:
    """The engine's own name."""
    return name.removesuffix(_BEHIND)
