"""The rows that the terminal and the document show: one for each peer at each load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.client.loads import BLAST
from benchmarks.client.results import PeerResult, medians

HEADINGS = ("TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "TPOT mean", "us/event", "MB")
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
            found.append(
                Row(
                    load,
                    title + LATE * late,
                    _cells(medians(good)) if good else ("-",) * len(HEADINGS),
                    "" if good else next(run.error for run in runs if run.error is not None),
                    _rate(medians(good)["cpu_us_per_event"]),
                )
            )
    return found


def _order(load: str) -> tuple[bool, int]:
    return load == BLAST, int(load) if load.isdigit() else 0


def _cells(figures: dict[str, float | None]) -> tuple[str, ...]:
    return (
        _number(figures["ttft_p50_ms"], ".3f"),
        _number(figures["ttft_p99_ms"], ".3f"),
        _number(figures["tpot_p50_percent"], ".3f"),
        _number(figures["tpot_p99_percent"], ".3f"),
        _number(figures["tpot_mean_percent"], "+.3f"),
        _number(figures["cpu_us_per_event"], ".1f"),
        _number(figures["peak_mb"], ".0f"),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _rate(us_per_event: float | None) -> str:
    return "-" if not us_per_event else f"{1e6 / us_per_event:,.0f}"


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
