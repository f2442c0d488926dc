"""The report in one sentence, and what a reader must know before believing it.

No statistics yet: the sentence says what was measured and that differences carry no interval.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from loadgen.report.capacity import capacity_sentence
from loadgen.report.columns import HEADLINE_COLUMNS, THROUGHPUT, TTFT_P50, Column, ahead
from loadgen.report.data import BlockView, CellView, ReportData
from loadgen.report.text import cell_words, listing, number, plural, ratio

Level = Literal["bad", "warn", "info"]


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """Something to know before reading the figures."""

    level: Level
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One figure of merit over all cells that both engines completed: `other / base`."""

    column: Column
    mean: float
    """Geometric mean of the cells' ratios."""
    low: float
    high: float
    cells: int
    other_ahead: bool | None


def comparable_cells(data: ReportData) -> list[CellView]:
    """Cells whose figures are complete, with a success and not limited by the load generator, on every engine."""
    return [view for view in data.cells if all(e.decides and e.summary and e.ttft.size for e in view.engines.values())]


def tiles(data: ReportData) -> list[Tile]:
    """Ratios over the whole matrix for a race of two; empty otherwise."""
    if len(data.engines) != 2:
        return []
    found = []
    for column in HEADLINE_COLUMNS:
        values = [view.ratios(*data.engines)[column.key] for view in comparable_cells(data)]
        ratios = [value for value in values if value]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            found.append(Tile(column, mean, min(ratios), max(ratios), len(ratios), ahead(column, mean)))
    return found


def headline(data: ReportData) -> str:
    """One honest sentence: what was measured, over how much, and what it does not show."""
    if not any(entry.summary for view in data.cells for entry in view.engines.values()):
        return "Nothing was measured in this run, so there is nothing to compare."
    if data.capacity and data.slo is not None:
        return capacity_sentence(data.capacity, data.slo)
    if len(data.engines) == 1:
        return _alone(data)
    cells = comparable_cells(data)
    if not cells and any(entry.limited for view in data.cells for entry in view.engines.values()):
        return (
            "Nothing can be compared: wherever the engines completed a cell, the load generator was the limit; "
            "what was measured is shown below."
        )
    if not cells:
        return (
            f"No cell was completed by {'both' if len(data.engines) == 2 else 'all'} engines "
            f"({listing(data.engines)}), so nothing can be compared; what was measured is shown below."
        )
    body = _pair(data, cells) if len(data.engines) == 2 else _many(data, cells)
    return f"{body}; {_caveat(data, cells)}."


def _alone(data: ReportData) -> str:
    engine = data.engines[0]
    entries = [view.engines[engine] for view in data.cells]
    first = [e.summary.ttft_ms.p50 for e in entries if e.summary and e.summary.ttft_ms.p50 is not None]
    rates = [e.summary.output_tokens_per_s for e in entries if e.summary and e.summary.output_tokens_per_s is not None]
    measured = sum(e.summary is not None for e in entries)
    if not first or not rates:
        return f"{engine} answered none of {plural(data.measured_requests, 'measured request')}."
    return (
        f"{engine} alone, over {plural(measured, 'cell')}: median TTFT {_span(first)} ms and output throughput "
        f"{_span(rates)} tok/s; only one engine ran, so nothing is compared{_failures(data)}."
    )


def _span(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _pair(data: ReportData, cells: list[CellView]) -> str:
    """One clause on throughput and one on TTFT, each about the engine that is ahead in more cells."""
    a, b = data.engines
    more, rates = _lead(THROUGHPUT, cells, a, b), _lead(TTFT_P50, cells, a, b)
    if more is None:
        wins = _leads(THROUGHPUT, cells, a, b).count(True)
        each = f"each delivered more output tokens per second in {wins} of" if wins else "had the same throughput in"
        first = f"{a} and {b} {each} {len(cells)} cells ({b} {_ratio_span(THROUGHPUT, cells, a, b)} as many as {a})"
    else:
        other = b if more == a else a
        first = (
            f"{more} delivered more output tokens per second than {other} in {_wins(THROUGHPUT, cells, other, more)} "
            f"({_ratio_span(THROUGHPUT, cells, other, more)} as many)"
        )
    if rates is None:
        second = f"each had the shorter median time to first token as often ({b} "
        return f"{first}, and {second}{_ratio_span(TTFT_P50, cells, a, b)} as long as {a})"
    other = b if rates == a else a
    whose = "and its" if rates == more else f"{'and' if more is None else 'while'} {rates}'s"
    return (
        f"{first}, {whose} median time to first token was shorter in {_wins(TTFT_P50, cells, other, rates)} "
        f"({_ratio_span(TTFT_P50, cells, other, rates)} as long)"
    )


def _leads(column: Column, cells: list[CellView], base: str, other: str) -> list[bool | None]:
    """For each cell, whether `other` is ahead of `base`."""
    return [ahead(column, view.ratios(base, other)[column.key]) for view in cells]


def _lead(column: Column, cells: list[CellView], a: str, b: str) -> str | None:
    leads = _leads(column, cells, a, b)
    ours, theirs = leads.count(False), leads.count(True)
    return None if ours == theirs else a if ours > theirs else b


def _wins(column: Column, cells: list[CellView], base: str, other: str) -> str:
    some, total = _leads(column, cells, base, other).count(True), len(cells)
    if total == 1:
        return "the one cell that both completed"
    if some == total == 2:
        return "both cells"
    return f"all {total} cells" if some == total else f"{some} of {total} cells"


def _ratio_span(column: Column, cells: list[CellView], base: str, other: str) -> str:
    present = [value for view in cells if (value := view.ratios(base, other)[column.key]) is not None]
    if not present:
        return "unknown"
    low, high = ratio(min(present)), ratio(max(present))
    return low if low == high else f"{low} to {high}"


def _many(data: ReportData, cells: list[CellView]) -> str:
    """With three engines and more: which led in how many cells."""
    parts = []
    for column, words in ((THROUGHPUT, "the highest output throughput"), (TTFT_P50, "the shortest median TTFT")):
        leads = dict.fromkeys(data.engines, 0)
        for view in cells:
            figures = {e: column.get(entry.summary) for e, entry in view.engines.items() if entry.summary}
            present = {e: value for e, value in figures.items() if value is not None}
            if present:
                pick = max if column.better == "higher" else min
                leads[pick(present, key=lambda e: present[e])] += 1
        led = [f"{engine} in {n}" for engine, n in leads.items() if n]
        parts.append(f"{words} was measured on {listing(led)}")
    return f"Of {plural(len(cells), 'cell')} that all {len(data.engines)} engines completed, {', and '.join(parts)}"


def _caveat(data: ReportData, cells: list[CellView]) -> str:
    counts = sorted({e.summary.requests for view in cells for e in view.engines.values() if e.summary})
    many = f"{counts[0]:,d}" if counts[0] == counts[-1] else f"{counts[0]:,d} to {counts[-1]:,d}"
    blocks = max(len(entry.blocks) for view in cells for entry in view.engines.values())
    passes = "one block" if blocks == 1 else f"{blocks} blocks"
    word = "count" if any(e.limited for view in data.cells for e in view.engines.values()) else "were completed"
    some = "" if len(cells) == len(data.cells) else f"only {len(cells)} of {len(data.cells)} cells {word}, and "
    return (
        f"{some}this rests on {many} requests a cell and engine in {passes} and carries no confidence interval yet, "
        f"so small differences may be chance{_failures(data)}"
    )


def _failures(data: ReportData) -> str:
    if not data.failed_requests:
        return ""
    return f", and {data.failed_requests:,d} of {plural(data.measured_requests, 'measured request')} failed"


def notices(data: ReportData) -> list[Notice]:
    """What a reader must know first, gravest first."""
    manifest = data.manifest
    found: list[Notice] = []
    states: dict[str, tuple[Level, str]] = {
        "interrupted": ("bad", "This run was interrupted: what had been measured by then is shown, the rest is not."),
        "failed": ("bad", "This run failed before its end: what had been measured by then is shown."),
        "running": ("bad", "This run has not ended: it is still going on, or was killed."),
    }
    if manifest.status in states:
        found.append(Notice(*states[manifest.status]))
    found += [_block_notice(block, data.blocks) for block in data.blocks if block.status != "complete"]
    found += [_limited_notice(block) for block in data.blocks if block.used and block.client and block.client.limited]
    never = [
        f"{engine} at {cell_words(view.id)}"
        for view in data.cells
        for engine, entry in view.engines.items()
        if entry.status == "missing" and not any(b.cell == view.id and b.engine == engine for b in data.blocks)
    ]
    if not data.blocks:
        found.append(Notice("bad", "No block was ever started."))
    elif never and manifest.source == "bench" and not data.capacity:
        found.append(Notice("bad", f"{plural(len(never), 'cell')} of an engine never ran: {listing(never, most=4)}."))
    for view in data.cells:
        for engine, entry in view.engines.items():
            if entry.status == "complete" and entry.note:
                found.append(Notice("warn", f"{engine} at {cell_words(view.id)}: {entry.note}."))
    if data.failed_requests:
        text = f"{data.failed_requests:,d} of {plural(data.measured_requests, 'measured request')} failed"
        found.append(Notice("warn", f"{text}; latencies are those of the successful ones. See “Errors”."))
    unequal = [row.check for row in data.fairness if row.equal is False]
    unequal += [f"serving setting {row.setting}" for row in data.serving if row.same is False]
    if unequal and len(data.engines) > 1:
        text = f"{plural(len(unequal), 'thing')} not equal between the engines: {listing(unequal)}."
        found.append(Notice("warn", f"{text} See “Fairness”."))
    if data.broken_lines:
        text = f"{plural(data.broken_lines, 'unreadable line')} in requests.jsonl, torn by a crash, left out."
        found.append(Notice("warn", text))
    found += [Notice("info", message) for message in manifest.messages]
    found += [Notice("info", text) for text in data.memory.missing]
    return found


def _limited_notice(block: BlockView) -> Notice:
    reasons = "; ".join(block.client.reasons) if block.client else ""
    where = f"{block.engine} at {cell_words(block.cell)} (repeat {block.repeat})"
    return Notice("bad", f"{where} is client-limited and decides nothing: {reasons}.")


def _block_notice(block: BlockView, blocks: list[BlockView]) -> Notice:
    verb = {"running": "never ended", "interrupted": "was interrupted", "failed": "failed"}[block.status]
    reason = f": {block.reason.rstrip('.')}" if block.reason else ""
    attempt = f", attempt {block.attempt}" if block.attempt > 1 else ""
    again = any(
        other.status == "complete"
        and (other.engine, other.cell, other.repeat) == (block.engine, block.cell, block.repeat)
        for other in blocks
    )
    if again:
        level, fate = "info", "Another attempt completed and is the one counted."
    elif block.used:
        level, fate = "bad", f"Its {plural(block.measured, 'measured request')} are shown, marked partial."
    else:
        level, fate = "bad", "It is in no figure."
    words = f"{block.engine} at {cell_words(block.cell)} (repeat {block.repeat}{attempt}) {verb}{reason}. {fate}"
    return Notice(level, words)  # type: ignore[arg-type]
