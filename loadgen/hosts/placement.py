"""`.bakeoff/stack/placement.json`: the cards, cores and memory of engines where a race wants others than the stack's.

Plain processes only: whoever becomes an engine of the stack reads it at each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written
from loadgen.hosts.base import EngineHost
from loadgen.hosts.stack_file import stack_file
from loadgen.validation import wrong_value


@dataclass(frozen=True)
class Place:
    """Where an engine of the stack is to run; what is left out is as the stack is set up."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    gpus: tuple[str, ...] = ()
    """Cards by nvidia-smi's index or UUID."""
    cpus: str = ""
    """Cores in Linux's list format, such as 16-31."""
    memory_node: int | None = None
    """The NUMA node of its memory."""


PLACES = TypeAdapter(dict[str, Place])


def placement_file(checkout: Path) -> Path:
    """Where a checkout's engines find their places."""
    return stack_file(checkout).parent / "placement.json"


def read_places(checkout: Path) -> dict[str, Place]:
    """Places by the stack's own names of engines; none where there is no file. Raises UserError for a malformed one."""
    path = placement_file(checkout)
    try:
        return PLACES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: {where}: {wrong_value(first)}" if where else f"{path}: {wrong_value(first)}"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def write_places(checkout: Path, places: Mapping[str, Place]) -> None:
    """Have engines that are started from now on run there; those that run stay. Raises UserError."""
    path = placement_file(checkout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, PLACES.dump_json(dict(places), exclude_defaults=True).decode() + "\n", mode=0o644)
    except OSError as error:
        raise cannot_be_written(path, error) from None


def declare_places(checkout: Path, places: Mapping[str, Place], host: EngineHost) -> None:
    """The same, and engines that run elsewhere are stopped. Raises UserError where that cannot be written down."""
    try:
        before = read_places(checkout)
    except UserError:  # written anew
        before = {}
    if before == dict(places) and (places or not placement_file(checkout).exists()):
        return
    for name in host.running():
        if before.get(name, Place()) != places.get(name, Place()):
            host.stop(name)
    write_places(checkout, places)
