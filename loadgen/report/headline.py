"""The verdict in one sentence, what it rests on, and what a reader must know before believing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from loadgen.analysis.samples import most_errors
from loadgen.message import Message, counted, joined, mark, say
from loadgen.presentation.figures import brief, lead_mark
from loadgen.presentation.headline import MOST_FACTS, Answers, Headline
from loadgen.presentation.headline import headline as headline_of
from loadgen.presentation.style import Mark, verdict_mark
from loadgen.presentation.text import cell_words, listing, number
from loadgen.report.capacity import capacity_sentence
from loadgen.report.columns import HEADLINE_COLUMNS, Column, all_failed
from loadgen.report.data import BlockView, ReportData
from loadgen.report.endings import endings_words, mixed
from loadgen.report.engine_says import warm_words
from loadgen.report.lost import lost_words
from loadgen.report.shared_machine import shared_fact, shared_notice
from loadgen.report.together import disturbance_words, together_words
from loadgen.runs.manifest import BY_USER
from loadgen.runs.record_file import BadLine
from loadgen.runs.resume import extend_command
from loadgen.statistics.power import MOST_REPEATS
from loadgen.statistics.result import Judged, Overall, Reason, Statistics
from loadgen.statistics.words import verdict_words

Level = Literal["bad", "warn", "info"]

CAVEATS: frozenset[Reason] = frozenset(
    {
        "within_floor",
        "below_floor",
        "few_requests",
        "tokens_per_event",
        "no_valid_pair",
        "not_measured",
        "tpot_basis",
        "not_positive",
    }
)
"""Reasons that lie in the values themselves, not in how sure they are."""

MOST_ALIKE = 3
"""Notices of one kind that are shown in full where there are more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """Something to know before reading the figures."""

    level: Level
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One figure of merit over all cells that can be compared: `other / base`."""

    column: Column
    judged: Overall
    verdict: Message
    brief: str
    mark: Mark
    lead: Mark | None
    mean: float
    """Geometric mean of the cells' ratios."""
    low: float
    high: float
    cells: int


def tiles(data: ReportData) -> list[Tile]:
    """Ratios over the whole matrix for a race of two; empty otherwise."""
    if len(data.comparisons) != 1:
        return []
    found = []
    statistics = data.comparisons[0]
    looks = data.look(statistics.a), data.look(statistics.b)
    for column in HEADLINE_COLUMNS:
        judged = statistics.overall.get(column.key)
        if judged is None or judged.ratio is None:
            continue
        each = [cell.metrics[column.key].ratio for cell in statistics.cells]
        ratios = [ratio.estimate for ratio in each if ratio is not None]
        verdict = verdict_text(judged, statistics)
        found.append(
            Tile(
                column,
                judged,
                verdict,
                brief(judged),
                verdict_mark(judged.verdict, *looks),
                lead_mark(judged, *looks),
                judged.ratio.estimate,
                min(ratios),
                max(ratios),
                judged.cells or len(ratios),
            )
        )
    return found


def verdict_text(judged: Judged, statistics: Statistics) -> Message:
    """The verdict on one metric."""
    if judged.reason == "one_repeat":
        return say("undecided: one block")
    return verdict_words(judged, statistics)


def caveat_text(judged: Judged, statistics: Statistics) -> str:
    """What is said of a metric outside Holm's family: why its interval decides nothing, never who is faster.

    Among so many uncorrected metrics some name a winner between equals.
    """
    return verdict_text(judged, statistics) if judged.reason in CAVEATS else ""


def headline(data: ReportData) -> Headline:
    """The verdict in one sentence with what must be known beside it, or why there is none."""
    if not any(entry.summary for view in data.cells for entry in view.engines.values()):
        return Headline(say("Nothing was measured in this run, so there is nothing to compare."))
    if data.capacity and data.slo is not None:
        return Headline(capacity_sentence(data.capacity, data.slo))
    if len(data.engines) == 1:
        return Headline(_alone(data), (*_no_tpot(data), *_lost(data), *shared_fact(data.blocks)))
    if any(found.verdict != "invalid" for found in data.comparisons):
        return dataclasses.replace(_compared(data), following=following(data))
    if failed := [engine for engine in data.engines if _never_succeeded(data, engine)]:
        text = say(
            "Every request to {engines} failed, so nothing can be compared; what was measured is shown all the same.",
            engines=listing(failed),
        )
    elif _limited_throughout(data):
        text = say(
            "Nothing can be compared: wherever the engines completed a cell, the load generator was the limit; "
            "what was measured is shown all the same."
        )
    else:
        text = say(
            "In no repeat did all engines ({engines}) complete a cell with requests that count, so nothing can be "
            "compared; what was measured is shown all the same.",
            engines=listing(data.engines),
        )
    return Headline(text, tuple(_no_tpot(data)), verdict="invalid" if data.comparisons else None)


def _limited_throughout(data: ReportData) -> bool:
    """Whether in each repeat of a cell that all engines completed the load generator was the limit of one of them."""
    found: dict[tuple[str, int], dict[str, bool]] = {}
    for block in data.blocks:
        if block.status == "complete" and block.used:
            limited = block.client is not None and block.client.limited
            found.setdefault((block.cell, block.repeat), {})[block.engine] = limited
    pairs = [own for own in found.values() if set(own) >= set(data.engines)]
    return bool(pairs) and all(any(own.values()) for own in pairs)


def _never_succeeded(data: ReportData, engine: str) -> bool:
    """Whether an engine was measured, and no request to it came to its end."""
    found = [view.engines[engine].summary for view in data.cells]
    return any(found) and all(all_failed(summary) for summary in found if summary is not None)


def _compared(data: ReportData) -> Headline:
    """The verdict on the first engine and each other one."""
    lost, limited = [*_no_tpot(data), *_lost(data)], [*_limited(data), *shared_fact(data.blocks)]
    each = [
        headline_of(
            found,
            repeat_s=repeat_seconds(data.blocks, (found.a, found.b)),
            answers=_answers(data, found),
            others=[*lost, *limited] if len(data.comparisons) == 1 else (),
        )
        for found in data.comparisons
    ]
    if len(each) == 1:
        return each[0]
    answers = [fact for found in data.comparisons if (told := _answers(data, found)) for fact in [told.sentence]]
    facts = [*lost, *limited, *answers, *(fact for told in each for fact in told.facts[:1])]
    return Headline(joined("{a} {b}", [told.sentence for told in each]), tuple(dict.fromkeys(facts))[:MOST_FACTS])


LONGEST_PAUSE_S = 900.0
"""Between two blocks of one session: an engine may take so long to start."""
ENOUGH = 4
"""Repeats that a race of one is told to make."""


def following(data: ReportData) -> Message | None:
    """The command that runs the repeats of which an undecided verdict speaks."""
    had = int(data.manifest.scenario_number("repeats", 1))
    wanted = [more for found in data.comparisons if (more := _more(found, had)) is not None]
    repeats = had + max(wanted, default=0)
    command = extend_command(data.manifest, repeats) if wanted and repeats <= MOST_REPEATS else ""
    return say("To go on to {repeats} repeats: `{command}`", repeats=repeats, command=command) if command else None


def _more(found: Statistics, had: int) -> int | None:
    """Further repeats that would probably decide between two; None where none are needed, or nobody knows."""
    if found.verdict != "undecided":
        return None
    if found.reason == "one_repeat":
        return ENOUGH - 1 if had == 1 else None
    judged = [found.overall[key] for key in found.settings.headline if key in found.overall]
    return min((one.further_repeats for one in judged if one.further_repeats is not None), default=None)


def repeat_seconds(blocks: Sequence[BlockView], engines: Sequence[str]) -> float | None:
    """Seconds of one more repeat of all cells of these engines, by the blocks that there were; None without any.

    What lay between two blocks, such as an engine's start, counts; the night between a run and its resumption does not.
    """
    found: dict[tuple[str, str], list[float]] = {}
    pauses: list[float] = []
    before: float | None = None
    for block in sorted(blocks, key=lambda each: each.started_at):
        if before is not None and 0 <= block.started_at - before <= LONGEST_PAUSE_S:
            pauses.append(block.started_at - before)
        before = block.ended_at
        if block.engine in engines and block.status == "complete" and block.ended_at is not None:
            found.setdefault((block.engine, block.cell), []).append(block.ended_at - block.started_at)
    pause = sum(pauses) / len(pauses) if pauses else 0.0
    return sum(pause + sum(each) / len(each) for each in found.values()) if found else None


def _answers(data: ReportData, statistics: Statistics) -> Answers | None:
    """Whether two engines' answers are the same; None where nobody asked."""
    if data.quality is None:
        return None
    if data.quality.verdict == "degenerate" or len(data.engines) == 2:
        return Answers(data.quality.verdict, data.quality.sentence)
    pair = next((one for one in data.quality.pairs if {one.a, one.b} == {statistics.a, statistics.b}), None)
    return None if pair is None else Answers(pair.verdict, pair.sentence)


def _limited(data: ReportData) -> list[Message]:
    """How many blocks decide nothing because of the load generator."""
    limited = sum(bool(block.used and block.client and block.client.limited) for block in data.blocks)
    if not limited:
        return []
    every = counted(block_count(data.blocks), "{count} block", "{count} blocks")
    return [
        say(
            "The load generator was the limit in {count} of {blocks}, which decide nothing.",
            count=limited,
            blocks=every,
        )
    ]


def _no_tpot(data: ReportData) -> list[Message]:
    """Engines whose streams carry no TPOT, and why: of each its first such cell."""
    found: dict[str, Message] = {}
    for view in data.cells:
        for engine, entry in view.engines.items():
            if entry.summary is not None and entry.summary.no_tpot is not None and engine not in found:
                found[engine] = say("No TPOT of {engine}: {why}.", engine=engine, why=entry.summary.no_tpot)
    return list(found.values())


def block_count(blocks: Sequence[BlockView]) -> int:
    """How many blocks that is; several attempts at one are one block."""
    return len({(block.engine, block.cell, block.repeat) for block in blocks})


def _lost(data: ReportData) -> list[Message]:
    return lost_words(data.blocks, dict.fromkeys(data.engines, most_errors(data.manifest)))


def basis(data: ReportData) -> str | None:
    """How much the verdict rests on; None where there is none. What decides nothing is not in it."""
    judged = {
        (found.b, cell.id): cell.metrics["ttft_ms.p50"]
        for found in data.comparisons
        for cell in found.cells
        if cell.metrics["ttft_ms.p50"].repeats
    }
    if not judged:
        return None
    cells = len({cell for _, cell in judged})
    requests = [count for one in judged.values() for count in (one.requests_a, one.requests_b) if count]
    repeats = [one.repeats for one in judged.values()]
    parts = [
        say(
            "{cells}, {requests} requests a cell and engine in {repeats}",
            cells=counted(cells, "{count} cell", "{count} cells"),
            requests=_range(requests),
            repeats=say("1 repeat") if max(repeats) == 1 else say("{range} repeats", range=_range(repeats)),
        ),
    ]
    over_all = [one.cells for found in data.comparisons for one in found.overall.values() if one.cells]
    if (few := cells - min(over_all, default=cells)) > 0:
        parts.append(say("{count} of them with too few blocks for a figure over all cells", count=few))
    if cells < len(data.cells):
        parts.append(say("only {some} of {all} cells count on every engine", some=cells, all=len(data.cells)))
    if data.failed_requests:
        parts.append(_failed(data))
    return say("It rests on {parts}. Brackets and ± are 95% intervals.", parts=joined("{a}; {b}", parts))


def _range(counts: Sequence[int]) -> str:
    """`80`, or `60–80` where they differ."""
    low, high = min(counts), max(counts)
    return f"{low:,d}" if low == high else f"{low:,d}–{high:,d}"


def _failed(data: ReportData) -> Message:
    requests = counted(data.measured_requests, "{count} measured request", "{count} measured requests")
    return say("{failed} of {requests} failed", failed=f"{data.failed_requests:,d}", requests=requests)


def _alone(data: ReportData) -> str:
    engine = data.engines[0]
    entries = [view.engines[engine] for view in data.cells]
    first = [e.summary.ttft_ms.p50 for e in entries if e.summary and e.summary.ttft_ms.p50 is not None]
    rates = [e.summary.output_tokens_per_s for e in entries if e.summary and e.summary.output_tokens_per_s is not None]
    measured = sum(e.summary is not None for e in entries)
    if not first or not rates:
        requests = counted(data.measured_requests, "{count} measured request", "{count} measured requests")
        return say("{engine} answered none of {requests}.", engine=engine, requests=requests)
    return say(
        "{engine} alone, over {cells}: median TTFT {ttft} ms and output throughput {rate} tok/s; only one engine ran, "
        "so nothing is compared{failed}.",
        engine=engine,
        cells=counted(measured, "{count} cell", "{count} cells"),
        ttft=_span(first),
        rate=_span(rates),
        failed=joined("{a}; {b}", ["", _failed(data)]) if data.failed_requests else "",
    )


def _span(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low}–{high}"


def notices(data: ReportData) -> list[Notice]:
    """What a reader must know first, gravest first."""
    manifest = data.manifest
    found: list[Notice] = []
    states: dict[str, tuple[Level, str]] = {
        "interrupted": (
            "bad",
            say("This run was interrupted: what had been measured by then is shown, the rest is not."),
        ),
        "failed": ("bad", say("This run failed before its end: what had been measured by then is shown.")),
        "running": ("bad", say("This run has not ended: it is still going on, or was killed.")),
    }
    if manifest.status in states:
        found.append(Notice(*states[manifest.status]))
    found += [_block_notice(block, data.blocks) for block in data.blocks if block.status != "complete"]
    limited = [block for block in data.blocks if block.used and block.client and block.client.limited]
    told = limited if len(limited) <= MOST_ALIKE + 1 else limited[:MOST_ALIKE]
    found += [_limited_notice(block, searched=bool(data.capacity)) for block in told]
    if len(told) < len(limited):
        more = counted(len(limited) - len(told), "{count} block", "{count} blocks")
        found.append(
            Notice(
                "bad",
                say(
                    "{more} more of {all} are client-limited. See “Validity”.", more=more, all=block_count(data.blocks)
                ),
            )
        )
    never = [
        say("{engine} at {cell}", engine=engine, cell=cell_words(view.id))
        for view in data.cells
        for engine, entry in view.engines.items()
        if entry.status == "missing" and not any(b.cell == view.id and b.engine == engine for b in data.blocks)
    ]
    if not data.blocks:
        found.append(Notice("bad", say("No block was ever started.")))
    elif never and manifest.source == "bench" and not data.capacity:
        text = say(
            "{cells} of an engine never ran: {which}.",
            cells=counted(len(never), "{count} cell", "{count} cells"),
            which=listing(never, most=4),
        )
        found.append(Notice("bad", text))
    for view in data.cells:
        for engine, entry in view.engines.items():
            if entry.status == "complete" and entry.note:
                text = say("{engine} at {cell}: {note}.", engine=engine, cell=cell_words(view.id), note=entry.note)
                found.append(Notice("warn", text))
    if data.failed_requests:
        text = say("{failed}; latencies are those of the successful ones. See “Errors”.", failed=_failed(data))
        found.append(Notice("warn", text))
    ended = endings_words(data.endings)
    if ended is not None and mixed(data.endings):
        found.append(Notice("warn", say("{which}. See “Errors”.", which=ended)))
    unequal: list[str] = [say(row.check) for row in data.fairness if row.equal is False]
    unequal += [say("serving setting {name}", name=row.setting) for row in data.serving if row.same is False]
    if unequal and len(data.engines) > 1:
        text = say(
            "{things} not equal between the engines: {which}. See “Fairness”.",
            things=counted(len(unequal), "{count} thing", "{count} things"),
            which=listing(unequal),
        )
        found.append(Notice("warn", text))
    found += [Notice("warn", text) for text in (*shared_notice(data.blocks), *warm_words(data.engine_says.warm))]
    if data.together is not None:
        found += [Notice("warn", text) for text in disturbance_words(data.together)]
        found += [Notice("info", text) for text in together_words(data.together)]
    if data.beyond_calibration is not None and data.comparisons:
        found.append(Notice("warn", data.beyond_calibration))
    found += bad_line_notices(data.bad_lines)
    found += [Notice("info", message) for message in manifest.messages]
    found += [Notice("info", text) for text in data.memory.missing]
    return found


def bad_line_notices(lines: Sequence[BadLine]) -> list[Notice]:
    """Lines of `requests.jsonl` that are in no figure: those that a crash tore, and those that were changed since."""
    found = []
    torn = [f"{line.number}" for line in lines if line.torn]
    if torn:
        text = say(
            "{lines} of requests.jsonl, torn by a crash, left out: {numbers}.",
            lines=counted(len(torn), "{count} line", "{count} lines"),
            numbers=listing(torn),
        )
        found.append(Notice("warn", text))
    other = [say("{number} ({problem})", number=line.number, problem=line.problem) for line in lines if not line.torn]
    if other:
        text = say(
            "{lines} of requests.jsonl cannot be read: {which}. Their requests are in no figure.",
            lines=counted(len(other), "{count} line", "{count} lines"),
            which=listing(other, most=4),
        )
        found.append(Notice("bad", text))
    return found


def _limited_notice(block: BlockView, *, searched: bool) -> Notice:
    facts = {
        "engine": block.engine,
        "cell": cell_words(block.cell),
        "repeat": block.repeat,
        "reasons": joined("{a}; {b}", block.client.reasons) if block.client else "",
    }
    if searched:
        text = say("{engine} at {cell} is client-limited, and the search went by it: {reasons}.", **facts)
    else:
        text = say("{engine} at {cell} (repeat {repeat}) is client-limited and decides nothing: {reasons}.", **facts)
    return Notice("bad", text)


def _block_notice(block: BlockView, blocks: list[BlockView]) -> Notice:
    what = {
        "running": say("{engine} at {cell} (repeat {repeat}, attempt {attempt}) never ended", **_block(block)),
        "interrupted": say("{engine} at {cell} (repeat {repeat}, attempt {attempt}) was interrupted", **_block(block)),
        "failed": say("{engine} at {cell} (repeat {repeat}, attempt {attempt}) failed", **_block(block)),
    }[block.status]
    if block.reason == BY_USER:  # older manifests have it as plain text
        what = say(
            "{engine} at {cell} (repeat {repeat}, attempt {attempt}) was interrupted by the user", **_block(block)
        )
    elif block.reason:
        what = say("{what}: {reason}", what=what, reason=block.reason)
    again = any(
        other.status == "complete"
        and (other.engine, other.cell, other.repeat) == (block.engine, block.cell, block.repeat)
        for other in blocks
    )
    level: Level = "info" if again else "bad"
    if again:
        fate = say("Another attempt completed and is the one counted.")
    elif block.used:
        fate = say(
            "{requests} of it are shown, marked partial.",
            requests=counted(block.measured, "{count} measured request", "{count} measured requests"),
        )
    else:
        fate = say("It is in no figure.")
    # An error that is the reason may have a full stop of its own.
    ended = mark("{a} {b}") if what.endswith(".") else mark("{a}. {b}")
    return Notice(level, say(ended, a=what, b=fate))


def _block(block: BlockView) -> dict[str, object]:
    return {
        "engine": block.engine,
        "cell": cell_words(block.cell),
        "repeat": block.repeat,
        "attempt": block.attempt,
    }
