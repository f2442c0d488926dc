"""The table of serving settings: what the scenario asked for, and what each engine made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from loadgen.engines.serving import SETTINGS, plain
from loadgen.message import joined, mark, of_data
from loadgen.presentation.text import DASH
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.serving import asked_of, settings_apart

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
    question: bool = False
    """Whether the scenario sets it apart: what the race asks about, which need not be equal."""

    @property
    def sign(self) -> str:
        """Its verdict as one sign."""
        return {True: "✓", False: "≠", None: "A/B" if self.question else ""}[self.same]


def serving_rows(manifest: Manifest, engines: Sequence[str]) -> list[ServingRow]:
    """Every setting by engine, those asked for first. Empty where the scenario asks for none."""
    asked = {engine: asked_of(manifest.scenario, engine) for engine in engines}
    if not any(asked.values()):
        return []
    apart = settings_apart(asked.values())
    known = {facts.name: _of_engine(facts) for facts in manifest.engines}
    rows = []
    for setting in SETTINGS:
        values = {engine: known.get(engine, {}).get(setting) or _unknown() for engine in engines}
        wanted = {engine: block.get(setting) for engine, block in asked.items()}
        told = {engine: DASH if value is None else plain(value) for engine, value in wanted.items()}
        if setting in apart:
            words = joined("{a}, {b}", [f"{engine}: {value}" for engine, value in told.items()])
            same = False if _outcomes(values) & set(SHORT) else None
            rows.append(ServingRow(setting, words, same, values, question=True))
        else:
            rows.append(ServingRow(setting, next(iter(told.values())), _same(wanted, values), values))
    return sorted(rows, key=lambda row: (not row.question, row.asked == DASH))


def _outcomes(values: dict[str, ServingValue]) -> set[str]:
    return {value.outcome for value in values.values()}


def _same(wanted: dict[str, Any], values: dict[str, ServingValue]) -> bool | None:
    outcomes = _outcomes(values)
    if set(wanted.values()) <= {None} or not outcomes:
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
