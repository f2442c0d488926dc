"""The rows that the terminal and the document show: one for each peer at each load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.client.loads import BLAST
from benchmarks.client.results import FIGURES, PeerResult, medians

HEADINGS = tuple(heading for heading, _ in FIGURES.values())
LATE = "*"


@dataclass(frozen=True)
class Row:
    """One peer at one load. `cells` belong to `HEADINGS`."""

    load: str
    peer: str
    cells: tuple[str, ...]
    note: str
    """Why cells are missing; empty where none is."""
    events_per_core_second: str


def rows(results: Sequence[PeerResult], titles: dict[str, str]) -> list[Row]:
    """Medians over the runs, loads in ascending order, peers in the order of `titles`.

    A title gets a `*` where the server missed its schedule in most of the runs.
    """
    by_name = {result.peer: result for result in results}
    loads = sorted({run.load for result in results for run in result.runs}, key=_order)
    found = []
    for load in loads:
        for name, title in titles.items():
            runs = by_name[name].of(load) if name in by_name else []
            if not runs:
                continue
            good = [run for run in runs if run.error is None]
            late = sum(not run.oracle_valid for run in good) > len(good) / 2
            figures = medians(good)
            cells = ((figures[name], form) for name, (_, form) in FIGURES.items())
            texts = tuple("-" if value is None else format(value, form) for value, form in cells)
            cost = figures["cpu_us_per_event"]
            note = "" if good else next(run.error for run in runs if run.error is not None)
            found.append(Row(load, title + LATE * late, texts, note, f"{1e6 / cost:,.0f}" if cost else "-"))
    return found


def _order(load: str) -> tuple[bool, int]:
    return load == BLAST, int(load) if load.isdigit() else 0


def terminal_table(shown: Sequence[Row]) -> Table:
    """The rows for 80 columns."""
    table = Table(title="Error of each tool: TTFT ms, TPOT %", box=box.SIMPLE_HEAD, padding=0, collapse_padding=True)
    table.add_column("load", no_wrap=True)
    table.add_column("tool", max_width=20)
    for heading in HEADINGS:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    last = None
    for row in shown:
        if last not in (None, row.load):
            table.add_section()
        table.add_row(row.load if row.load != last else "", row.peer, *row.cells)
        last = row.load
    return table
