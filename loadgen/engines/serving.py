"""Serving settings: how one declaration is told to an engine, and what becomes of it.

Standard library only, as is all of `loadgen/engines/`: launchers import it inside the engines' own images.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, Union

from loadgen.errors import UserError
from loadgen.message import as_data

Value = Union[bool, int, float, str]  # noqa: UP007 - evaluated at import, maybe by an image's Python 3.9
Block = Mapping[str, Value]
"""The settings that were asked for; one that is absent is the engine's own affair."""

SETTINGS = (
    *("dtype", "tensor_parallel_size", "data_parallel_size", "max_model_length", "max_batch_size"),
    "max_tokens_per_step",
    *("kv_block_size", "kv_dtype", "gpu_memory_fraction", "kv_cache_tokens", "prefix_caching", "chunked_prefill"),
    *("cuda_graphs", "async_scheduling", "seed"),
)
"""All settings, in the order in which they are told and shown."""

RESET = "reset_prefix_caches"
"""Beside the settings: whether races will ask for an empty prefix cache."""

Outcome = Literal["honoured", "differs", "not honoured", "default"]
"""`differs`: told to the engine, which means something else by it. `default`: not asked for."""


@dataclasses.dataclass(frozen=True)
class NativeSetting:
    """What one engine makes of one setting."""

    setting: str
    asked: Value | None
    """None: not asked for."""
    name: str
    """The engine's own name for it; empty where it has none."""
    value: Value | None
    """The value told to the engine under that name; None: nothing is told."""
    outcome: Outcome
    note: str = ""

    def told(self) -> dict[str, Value]:
        """Name and value as one entry; empty where nothing is told."""
        return {self.name: self.value} if self.name and self.value is not None else {}

    def remark(self) -> str | None:
        """What a person should know if the engine does not do just what was asked."""
        if self.outcome not in ("differs", "not honoured"):
            return None
        return f"{self.setting}: {plain(self.asked)} {self.outcome}: {self.note}"


def plain(value: object) -> str:
    """A value as a scenario file has it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def read_block(text: str) -> dict[str, Any]:
    """Read a block from JSON; no text is an empty block. A null is a setting that was not asked for.

    Types and ranges were checked when the scenario was read. Raises UserError for anything but known settings.
    """
    block = _read(text)
    return {name: block[name] for name in SETTINGS if block.get(name) is not None}


def asks_for_resets(text: str) -> bool:
    """Whether the same JSON tells that races will ask for an empty prefix cache. Raises UserError as `read_block`."""
    return _read(text).get(RESET) is True


def _read(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        block = json.loads(text)
    except ValueError as error:
        raise UserError(f"The serving settings are not JSON: {error}") from None
    if not isinstance(block, dict):
        raise UserError(f"The serving settings are not a JSON object, but {text.strip()[:60]}")
    unknown = sorted(set(block) - {*SETTINGS, RESET})
    if unknown:
        raise UserError(f"Unknown serving settings: {', '.join(unknown)}. Known: {', '.join(SETTINGS)}.")
    return block


def block_facts(settings: list[NativeSetting]) -> list[dict[str, Any]]:
    """The settings as a launch record holds them under `serving`."""
    return [dataclasses.asdict(setting) | {"note": as_data(setting.note)} for setting in settings]
