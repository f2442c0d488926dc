"""The table of serving settings: what the scenario asked for, and what each engine made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from loadgen.engines.serving import SETTINGS, plain
from loadgen.message import mark, of_data
from loadgen.presentation.text import DASH
from loadgen.runs.manifest import EngineFacts, Manifest

UNKNOWN = mark("not known: Bakeoff did not set this engine up")
DEFAULT = "default"
SHORT = (mark("differs"), mark("not honoured"))


@dataclasses.dataclass(frozen=True, slots=True)
class ServingValue:
    """One setting on one engine."""

    told: str
    """The engine's own name and the value it was given, such as `--max-num-seqs 128`; a dash where nothing was."""
    outcome: str
    """`honoured`, `differs`, `not honoured`, `default`, or `unknown`."""
    note: str


@dataclasses.dataclass(frozen=True, slots=True)
class ServingRow:
    """One setting."""

    setting: str
    asked: str
    same: bool | None
    """Whether every engine does just what was asked; None where nothing was asked, or an engine is not known."""
    values: dict[str, ServingValue]


def serving_rows(manifest: Manifest, engines: Sequence[str]) -> list[ServingRow]:
    """Every setting by engine, those asked for first. Empty where the scenario asks for none."""
    asked = manifest.scenario.get("serving")
    if not isinstance(asked, dict) or not any(value is not None for value in asked.values()):
        return []
    known = {facts.name: _of_engine(facts) for facts in manifest.engines}
    rows = []
    for setting in SETTINGS:
        values = {engine: known.get(engine, {}).get(setting) or _unknown() for engine in engines}
        wanted = asked.get(setting)
        rows.append(ServingRow(setting, DASH if wanted is None else plain(wanted), _same(wanted, values), values))
    return sorted(rows, key=lambda row: row.asked == DASH)


def _same(wanted: object, values: dict[str, ServingValue]) -> bool | None:
    outcomes = {value.outcome for value in values.values()}
    if wanted is None or not outcomes:
        return None
    if outcomes & set(SHORT):
        return False
    return True if outcomes == {"honoured"} else None


def _of_engine(facts: EngineFacts) -> dict[str, ServingValue]:
    """An engine's launch record, by setting; a record that cannot be read counts as none."""
    found = {}
    settings = facts.launch.get("serving")
    for entry in settings if isinstance(settings, list) else []:
        if isinstance(entry, dict):
            text = {key: str(of_data(entry.get(key)) or "") for key in ("setting", "name", "outcome", "note")}
            found[text["setting"]] = ServingValue(
                _told(text["name"], entry.get("value")), text["outcome"], text["note"]
            )
    return found


def _told(name: str, value: Any) -> str:
    if not name or value is None:
        return DASH
    if name.startswith("--"):
        if isinstance(value, bool):
            return name if value else name.replace("--", "--no-", 1)
        return f"{name} {value}"
    return f"{name}: {plain(value)}"


def _unknown() -> ServingValue:
    return ServingValue(DASH, "unknown", UNKNOWN)
