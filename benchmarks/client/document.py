"""The document: the tables in Markdown, with all that is needed to read and to repeat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.client.peer import Peer
from benchmarks.client.results import PeerResult
from benchmarks.client.table import HEADINGS, LATE, rows
from stack.scrape_config import render_template

BUSY_LOAD = 0.5
SHOWN_LOAD = "64"
"""Whose command is shown, if it was measured."""
UNITS = {"TTFT": " ms", "TPOT": " %"}


@dataclass(frozen=True)
class Setting:
    """When and on what it was measured."""

    date: str
    host: Mapping[str, str]
    """`cpu`, `cores`, `kernel`, `memory`."""
    load_average: float
    """The highest before any tool's runs."""
    command: str
    minutes: float | None
    """How long the whole took; None where it was put together from several runs."""
    repeats: int
    realtime: bool


def document(results: Sequence[PeerResult], peers: Sequence[Peer], setting: Setting) -> str:
    """The whole Markdown text."""
    shown = rows(results, {peer.name: peer.title for peer in peers})
    by_name = {result.peer: result for result in results}
    known = [(peer, by_name[peer.name]) for peer in peers if peer.name in by_name]
    notes = [
        f"{LATE} In most of these runs more than 1% of the server's writes were over 0.3 ms late. Its real times "
        "are what is compared with, so errors hold; but its events came less evenly than told."
    ] * any(row.peer.endswith(LATE) for row in shown)
    notes += [f"{p.title} was not measured: {_first_line(result.skipped)}" for p, result in known if result.skipped]
    notes += [f"{row.peer} at load {row.load}: {_first_line(row.note)}" for row in shown if row.note]
    return render_template(
        Path(__file__).with_suffix(".md.j2"),
        setting=setting,
        host=setting.host,
        busy_load=BUSY_LOAD,
        headings=[heading + UNITS.get(heading[:4], "") for heading in HEADINGS],
        tables={load: list(some) for load, some in groupby(shown, lambda row: row.load)},
        notes=notes,
        tools=[_tool(peer, result) for peer, result in known if result.runs],
    )


def _tool(peer: Peer, result: PeerResult) -> tuple[Peer, str, str, str]:
    """A tool with its versions, the day of its measurement, and its command."""
    versions = [f"{name} {result.basis[name]}" for name in ("Python", *peer.packages) if name in result.basis]
    commit = [f"commit {result.basis['commit']}"] if "commit" in result.basis else []
    commands = {run.load: run.command for run in result.runs if run.command}
    command = commands.get(SHOWN_LOAD) or next(iter(commands.values()), "")
    return peer, ", ".join([*versions, *commit]), result.measured_at[:10], command


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].rstrip(":")
