"""Preflight's findings as a table, and as data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from loadgen.runs.manifest import ParityFact

STYLES = {"equal": "green", "unknown": "yellow", "noted": "yellow", "blocking": "bold red", "accepted": "yellow"}
WORDS = {"unknown": "could not be told"}
SCHEMA_VERSION = 1


def findings_table(findings: Sequence[ParityFact], engines: Sequence[str]) -> Table:
    """Each check with every engine's value; what stops a race comes first."""
    table = Table(title="Preflight", title_justify="left", show_lines=True)
    table.add_column("check", no_wrap=True)
    for heading in (*engines, "verdict", "what it means"):
        table.add_column(heading, overflow="fold")
    order = ("blocking", "noted", "unknown", "equal")
    for fact in sorted(findings, key=lambda fact: order.index(fact.verdict or "noted")):
        verdict = "accepted" if fact.accepted else fact.verdict or "noted"
        values = [Text(fact.values.get(engine, "")) for engine in engines]
        words = "" if fact.equal else f"{fact.detail}; {fact.advice}"
        table.add_row(
            Text(fact.name, style="bold"),
            *values,
            Text(WORDS.get(verdict, verdict), style=STYLES[verdict]),
            Text(words),
        )
    return table


def findings_json(findings: Sequence[ParityFact], engines: Sequence[str]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "schema_version": SCHEMA_VERSION,
        "engines": list(engines),
        "blocked": any(fact.verdict == "blocking" and not fact.accepted for fact in findings),
        "checks": [fact.model_dump() for fact in findings],
    }
