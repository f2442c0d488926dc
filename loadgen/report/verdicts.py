"""The verdicts as tables: by cell and metric, the blocks that decide nothing, and drift."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from loadgen.message import Message, counted, say
from loadgen.presentation.figures import brief, lead_mark
from loadgen.presentation.headline import lacks_least, loads_words
from loadgen.presentation.style import Mark, verdict_mark
from loadgen.presentation.text import cell_words, listing
from loadgen.report.data import ReportData
from loadgen.report.headline import verdict_text
from loadgen.statistics.result import Judged, Statistics
from loadgen.statistics.words import drift_words, family_words, margin_words, metric_words, why


@dataclasses.dataclass(frozen=True, slots=True)
class VerdictEntry:
    """One metric's verdict."""

    mark: Mark
    lead: Mark | None
    """Of who is ahead, where that is undecided or does not matter."""
    brief: str
    """By how much who is ahead is faster, and how sure that is, in ten characters at most."""
    text: Message
    """The whole verdict."""
    ratio: float | None
    ci95: tuple[float, float] | None
    """Of the ratio."""
    p_adjusted: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class VerdictRow:
    """One cell's verdicts on the headline metrics; those over several cells have no cell."""

    cell: str | None
    words: str
    mark: Mark
    entries: list[VerdictEntry]


@dataclasses.dataclass(frozen=True, slots=True)
class VerdictTable:
    """The first engine against another one."""

    a: str
    b: str
    metrics: list[str]
    first: int
    """Place of the metric that the headline names first."""
    margin: str
    """The share up to which a difference does not matter."""
    rows: list[VerdictRow]
    family: Message | None
    """What was done about many comparisons; None where nothing was tested."""
    blocks: int
    """Repeats with a valid block of both engines, at most."""
    figures: Message
    """What the brief figures mean."""
    reasons: list[tuple[str, Message]]
    """Why single cells name nobody: the sign, and of which metric and how many cells why."""


@dataclasses.dataclass(frozen=True, slots=True)
class LeftOutRow:
    """A block that decides nothing."""

    engine: str
    cell: str
    repeat: int
    reason: str


def verdict_tables(data: ReportData) -> list[VerdictTable]:
    """A table for each comparison."""
    return [_table(data, found) for found in data.comparisons]


def _table(data: ReportData, statistics: Statistics) -> VerdictTable:
    looks = data.look(statistics.a), data.look(statistics.b)
    keys = [key for key in statistics.settings.headline if key in statistics.overall]

    def entry(judged: Judged) -> VerdictEntry:
        ratio = judged.ratio
        return VerdictEntry(
            mark=verdict_mark(judged.verdict, *looks),
            lead=lead_mark(judged, *looks),
            brief=brief(judged),
            text=verdict_text(judged, statistics),
            ratio=ratio.estimate if ratio else None,
            ci95=ratio.ci95 if ratio else None,
            p_adjusted=judged.p_adjusted,
        )

    rows = []
    if len(statistics.cells) > 1:
        overall = [entry(statistics.overall[key]) for key in keys]
        rows.append(VerdictRow(None, say("all cells"), verdict_mark(statistics.verdict, *looks), overall))
    for load in statistics.loads:
        entries = [entry(load.metrics[key]) for key in keys]
        name = loads_words([(load.unit, f"{load.value:g}")])
        rows.append(VerdictRow(None, say("all at {load}", load=name), verdict_mark(load.verdict, *looks), entries))
    cells = {cell.id: cell for cell in statistics.cells}
    for view in data.cells:
        cell = cells.get(view.id)
        if cell is not None:
            entries = [entry(cell.metrics[key]) for key in keys]
            rows.append(VerdictRow(view.id, data.row_label(view.id), verdict_mark(cell.verdict, *looks), entries))
    return VerdictTable(
        a=statistics.a,
        b=statistics.b,
        metrics=[metric_words(key) for key in keys],
        first=_first(statistics, keys),
        margin=margin_words(statistics),
        rows=rows,
        family=family_words(statistics) if statistics.family else None,
        blocks=max((judged.repeats for judged in statistics.overall.values()), default=0),
        figures=say(
            "The share is by how much the engine whose mark stands there is faster than the other, decided or not; "
            "± reaches to both ends of its 95% interval; where these are not as far from it, a range shows them."
        ),
        reasons=_reasons(statistics, keys),
    )


def _first(statistics: Statistics, keys: Sequence[str]) -> int:
    """Place of the metric that the headline names first: one that decides, or the one that is nearest to it."""
    each = [statistics.overall[key] for key in keys]
    if statistics.verdict in ("a", "b", "none") or statistics.reason == "mixed":
        wanted = ("a", "b") if statistics.reason == "mixed" else (statistics.verdict,)
        return next((place for place, one in enumerate(each) if one.verdict in wanted), 0)
    nearest = lacks_least(each)
    return 0 if nearest is None else keys.index(nearest.metric)


def _reasons(statistics: Statistics, keys: Sequence[str]) -> list[tuple[str, Message]]:
    """Each reason once, with the metrics: of all cells, of those of each load, and of single cells."""
    several = len(statistics.cells) > 1
    told: list[tuple[str, str, str, str]] = [
        (key, say("all cells"), one.verdict, one.reason)
        for key in keys
        for one in [statistics.overall[key]]
        if several and one.verdict in ("undecided", "invalid")
    ]
    loads: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for load in statistics.loads:
        for key in keys:
            one = load.metrics[key]
            if one.verdict in ("undecided", "invalid"):
                loads.setdefault((key, one.verdict, one.reason), []).append((load.unit, f"{load.value:g}"))
    told += [
        (key, say("all at {load}", load=loads_words(where)), verdict, reason)
        for (key, verdict, reason), where in loads.items()
    ]
    counts = Counter(
        (key, cell.metrics[key].verdict, cell.metrics[key].reason)
        for key in keys
        for cell in statistics.cells
        if cell.metrics[key].verdict in ("undecided", "invalid")
    )
    told += [
        (key, counted(count, "{count} cell", "{count} cells"), verdict, reason)
        for (key, verdict, reason), count in counts.items()
    ]
    metrics: dict[tuple[str, str, str], list[str]] = {}
    for key, where, verdict, reason in told:
        metrics.setdefault((where, verdict, reason), []).append(metric_words(key))
    return [
        (
            verdict_mark(verdict, 0, 0).sign,
            say("{metric}, {cells}: {why}", metric=listing(words), cells=where, why=why(reason, statistics)),
        )
        for (where, verdict, reason), words in metrics.items()
    ]


def row_axis(data: ReportData) -> Message:
    """What the labels of a difference plot's rows mean."""
    several = len({view.cell.output_tokens for view in data.cells if view.cell is not None}) > 1
    lengths = say("prompt → output tokens") if several else say("prompt tokens")
    return say("{lengths} × {load}", lengths=lengths, load=say(data.load_axis))


def left_out_rows(data: ReportData) -> list[LeftOutRow]:
    """Every block that decides nothing, and why, each once."""
    found: dict[tuple[str, str, int, str], LeftOutRow] = {}
    for statistics in data.comparisons:
        names = {"a": statistics.a, "b": statistics.b}
        for cell in statistics.cells:
            for block in cell.left_out:
                reason = ALONE if block.reason is None else block.reason
                row = LeftOutRow(names[block.engine], cell.id, block.repeat, reason)
                found.setdefault((row.engine, row.cell, row.repeat, str(reason)), row)
    return list(found.values())


ALONE = say("the other engine has no valid block of this repeat")


def drift_lines(data: ReportData) -> list[Message]:
    """Which engine's blocks moved beyond chance, in which cell; headline metrics only."""
    lines = []
    for statistics in data.comparisons:
        for cell in statistics.cells:
            for key in statistics.settings.headline:
                comparison = cell.metrics.get(key)
                for words in drift_words(comparison, statistics) if comparison else ():
                    lines.append(say("At {cell}: {words}.", cell=cell_words(cell.id), words=words))
    return lines


def drift_summary(data: ReportData) -> Message | None:
    """How many comparisons were checked for drift, and what came out; None where there was nothing to check."""
    checked = [
        cell.metrics[key].drift
        for statistics in data.comparisons
        for cell in statistics.cells
        for key in statistics.settings.headline
        if key in cell.metrics and cell.metrics[key].drift is not None
    ]
    if not checked:
        return None
    moved = sum(bool(drift.moved) for drift in checked if drift is not None)
    return say(
        "{comparisons} checked: in {moved} an engine moved between its first and its last block by more than chance, "
        "the margin and the difference called, if any.",
        comparisons=counted(len(checked), "{count} comparison", "{count} comparisons"),
        moved=moved,
    )
