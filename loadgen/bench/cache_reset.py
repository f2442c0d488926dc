"""Has engines empty their prefix caches between blocks, where they can be asked to.

Prompts are salted block by block, so that none finds another's: this is for whoever wants to be surer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loadgen.endpoints.endpoint import Client
from loadgen.endpoints.seats import Seat, read_api_key
from loadgen.engines import GENERIC, get_engine
from loadgen.errors import UserError
from loadgen.message import Message, say
from loadgen.runs.manifest import Manifest

LIMIT_S = 30.0


class CacheReset:
    """Asks each engine before each of its blocks; one that has no such route, or refuses, is told of once."""

    def __init__(self, seats: Mapping[str, Seat], manifest: Manifest) -> None:
        """The manifest tells what kind an engine is once it was asked."""
        self._seats = seats
        self._manifest = manifest
        self._told: set[str] = set()

    def before_block(self, engine: str, note: Callable[[str], None]) -> None:
        """Ask an engine; `note` is told once why its cache was not emptied."""
        words = self._ask(engine)
        if words is not None and engine not in self._told:
            self._told.add(engine)
            note(words)

    def _ask(self, engine: str) -> Message | None:
        """Why its cache was not emptied; None where it was."""
        seat = self._seats[engine]
        kind = next((facts.kind for facts in self._manifest.engines if facts.name == engine), seat.kind) or GENERIC
        known = get_engine(kind)
        if known.cache_reset_path is None:
            return say(
                "{engine} has no route that empties its prefix cache: blocks rely on salted prompts.", engine=engine
            )
        try:
            client = Client(seat.local_url or seat.base_url, read_api_key(seat.api_key_env), seat.needs)
            status, _ = client.post(known.cache_reset_path, {}, LIMIT_S)
        except UserError as error:
            return say(
                "{engine} did not empty its prefix cache before a block ({problem}): such blocks rely on salted "
                "prompts.",
                engine=engine,
                problem=error,
            )
        if 200 <= status < 300:
            return None
        if status == 404 and known.cache_reset_variable:
            return say(
                "{engine} does not empty its prefix cache (POST {path}: HTTP {status}): blocks rely on salted prompts. "
                "It has that route where it is started with {variable}=1.",
                engine=engine,
                path=known.cache_reset_path,
                status=status,
                variable=known.cache_reset_variable,
            )
        return say(
            "{engine} does not empty its prefix cache (POST {path}: HTTP {status}): blocks rely on salted prompts.",
            engine=engine,
            path=known.cache_reset_path,
            status=status,
        )
