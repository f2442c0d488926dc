"""What both templates, HTML and Markdown, are filled with."""

from __future__ import annotations

from typing import Any

import jinja2

from loadgen.analysis.prefill import PrefillFit
from loadgen.explain.words import evidence, nothing_words, page_words
from loadgen.message import Message, counted, mark, say
from loadgen.metrics.definitions import DEFINITIONS
from loadgen.presentation import text
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.style import LOOKS, SIGNS, verdict_mark
from loadgen.quality.rows import VERDICTS, rows
from loadgen.report.cards import cards_section
from loadgen.report.cells import CellView, EngineCell
from loadgen.report.cost_words import cost_section
from loadgen.report.data import ReportData
from loadgen.report.endings import endings_words, mixed
from loadgen.report.engine_words import engine_section
from loadgen.report.fairness import LONG
from loadgen.report.headline import basis, block_count, caveat_text, headline, notices, tiles, verdict_text
from loadgen.report.repeat import client_blocks, client_facts, command, repeat_facts
from loadgen.report.scaling import scaling_section
from loadgen.report.verdicts import drift_lines, drift_summary, left_out_rows, row_axis, verdict_tables

STATUS_WORDS = {
    "complete": say("complete"),
    "interrupted": say("interrupted"),
    "failed": say("failed"),
    "running": say("not ended"),
}
TILE_TITLES = {
    "ttft_ms.p50": mark("Median time to first token"),
    "tpot_ms.mean": mark("Time per output token"),
    "output_tokens_per_s": mark("Output throughput"),
}
CLIENT_COLUMNS = (
    (mark("TTFT off by"), "ms"),
    (mark("TPOT off by"), "%"),
    ("CPU", mark("% of a core")),
    (mark("kept from CPU"), "%"),
    (mark("read lag p99"), "ms"),
    (mark("loop lag p99"), "ms"),
    (mark("schedule lag p99"), "ms"),
    (mark("longest GC pause"), "ms"),
    (mark("events"), mark("a second")),
)
ORDER = {"bad": 0, "warn": 1, "info": 2}


def environment(*, autoescape: bool, language: Language = ENGLISH) -> jinja2.Environment:
    """Return a template environment with our filters, and `_` that says a text. Undefined names are errors."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("loadgen.report", "templates"),
        autoescape=autoescape,  # noqa: S701 (off for Markdown only, which has an escaping of its own)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=language.shown,
    )
    made.globals.update(_=language, language=language, mark=mark, counted=counted)
    made.filters.update(
        number=text.number,
        count=text.count,
        ratio=text.ratio,
        ratio_interval=text.ratio_interval,
        interval=text.interval,
        short_ids=text.short_ids,
        p_value=text.p_value,
        moment=text.moment,
        cell=text.cell_words,
        listing=text.listing,
    )
    return made


def context(data: ReportData, language: Language = ENGLISH) -> dict[str, Any]:
    """Return everything the templates need, apart from the pictures."""
    manifest = data.manifest
    return {
        "data": data,
        "manifest": manifest,
        "title": manifest.scenario.get("name") or manifest.run_id,
        "question": say(manifest.scenario.get("question") or ""),
        "headline": headline(data),
        "basis": basis(data),
        "notices": sorted(notices(data), key=lambda notice: ORDER[notice.level]),
        "tiles": tiles(data),
        "tile_titles": TILE_TITLES,
        "row_axis": row_axis(data),
        "client_columns": CLIENT_COLUMNS,
        "block_count": block_count(data.blocks),
        "engines": [{"name": e, "seat": i, "look": LOOKS[i]} for e, i in zip(data.engines, data.looks, strict=True)],
        "columns": data.columns,
        "load_axis": data.load_axis,
        "load_column": data.load_column,
        "groups": _groups(data),
        "traffic": _traffic(data),
        "endings": data.endings,
        "endings_words": endings_words(data.endings),
        "endings_mixed": mixed(data.endings),
        "definitions": DEFINITIONS,
        "command": command(data),
        "repeat": repeat_facts(data),
        "client": client_facts(data),
        "client_blocks": client_blocks(data),
        "status_words": STATUS_WORDS,
        "verdicts": verdict_tables(data),
        "left_out": left_out_rows(data),
        "drift": drift_lines(data),
        "drift_summary": drift_summary(data),
        "prefill": prefill_rows(data),
        "attention": attention_rows(data),
        "energy": energy_rows(data),
        "engine_says": engine_section(data),
        "explained": explained_rows(data, language),
        "cards": cards_section(data),
        "scaling": scaling_section(data),
        "cost": None if data.costs is None else cost_section(data, data.costs),
        "signs": [{"sign": sign, "words": say(words)} for sign, words in SIGNS],
        "only_headlines": text.ONLY_HEADLINES,
        "of_two_runs": False,
        "quality_rows": [] if data.quality is None else rows(data.quality),
        "quality_verdicts": VERDICTS,
        "dash": text.DASH,
        "long": LONG,
    }


def _traffic(data: ReportData) -> Message | None:
    """Which traffic the cells' TTFT is of, where another traffic of the same size would read another."""
    if data.batch:
        return say(
            "TTFT here is of requests that are sent at the same instant and wait for each other. As many users who are "
            "spread in time (`load: concurrency`) wait less for a first token."
        )
    if any(view.cell is not None and view.cell.concurrency > 1 for view in data.cells):
        return say(
            "TTFT here is of users who are spread in time: each goes on when its own answer has ended. As many "
            "requests that are sent at the same instant (`load: batch`) wait longer for their first tokens."
        )
    return None


def _groups(data: ReportData) -> list[dict[str, Any]]:
    """The table of cells: groups by shape, cells, rows of engines and ratios."""
    groups = [{"words": text.shape_words(s), "cells": [_cell(data, v) for v in data.cells_of(s)]} for s in data.shapes]
    strangers = [_cell(data, view) for view in data.cells if view.cell is None]
    if strangers:
        groups.append({"words": say("other cells"), "cells": strangers})
    return groups


def _cell(data: ReportData, view: CellView) -> dict[str, Any]:
    return {
        "level": f"{view.cell.load:g}" if view.cell else view.id,
        "rows": [_row(data, view.engines[engine], seat) for seat, engine in enumerate(data.engines)],
        "ratios": [_ratio_row(data, view, seat) for seat in range(1, len(data.engines))],
    }


def _row(data: ReportData, entry: EngineCell, seat: int) -> dict[str, Any]:
    return {
        "engine": entry.engine,
        "seat": data.looks[seat],
        "glyph": LOOKS[data.looks[seat]].glyph,
        "status": entry.status,
        "note": entry.note,
        "limited": entry.limited,
        "figures": [
            {"text": column.text(entry.summary), "interval": column.interval_text(entry.intervals.get(column.key))}
            for column in data.columns
        ],
        "errors": text.DASH if entry.summary is None else text.count(sum(entry.summary.errors.values())),
        "failed": bool(entry.summary and entry.summary.errors),
    }


def _ratio_row(data: ReportData, view: CellView, seat: int) -> dict[str, Any]:
    """Ratios to the first seat with their intervals and verdicts; of a column that is not compared the bare ratio."""
    engine = data.engines[seat]
    bare = view.ratios(data.engines[0], engine)
    statistics, cell = data.comparison(engine), data.compared(engine, view.id)
    figures: list[dict[str, Any]] = []
    for column in data.columns:
        judged = cell.metrics.get(column.key) if cell else None
        if judged is None or statistics is None:
            figures.append({"text": text.ratio(bare.get(column.key)), "interval": "", "mark": None, "verdict": ""})
            continue
        figures.append(
            {
                "text": text.ratio(judged.ratio.estimate if judged.ratio else None),
                "interval": text.ratio_interval(judged.ratio.ci95, of=judged.ratio.estimate) if judged.ratio else "",
                "mark": verdict_mark(judged.verdict, data.looks[0], data.looks[seat]) if judged.headline else None,
                "verdict": (verdict_text if judged.headline else caveat_text)(judged, statistics),
            }
        )
    return {"engine": engine, "figures": figures}


def explained_rows(data: ReportData, language: Language) -> list[dict[str, Any]]:
    """Which known mechanisms show, by engine."""
    return [
        {
            "engine": one.engine,
            "seat": data.look(one.engine),
            "glyph": LOOKS[data.look(one.engine)].glyph,
            "nothing": "" if one.found else nothing_words(one),
            "found": [
                {
                    "title": found.title,
                    "evidence": [*evidence(found)],
                    "page": page_words(found.page, language),
                }
                for found in one.found
            ],
        }
        for one in data.explained
    ]


def prefill_rows(data: ReportData) -> list[dict[str, Any]]:
    """Each engine's fitted prefill rate."""
    return [
        {
            "engine": fit.engine,
            "seat": data.look(fit.engine),
            "glyph": LOOKS[data.look(fit.engine)].glyph,
            "rate": rate_text(fit),
            "interval": text.interval(fit.ci95),
            "fixed": fixed_text(fit),
            "fixed_interval": "" if _may_be_zero(fit) else text.interval(fit.fixed_ci95),
            "requests": text.count(len(fit.ttft_ms)),
            "load": f"{fit.load:g}",
            "repeats": fit.repeats,
        }
        for fit in data.prefill
    ]


def rate_text(fit: PrefillFit) -> str:
    """A prefill rate; where TTFT may not grow with the prompt at all, no more than its least."""
    return text.number(fit.rate) if fit.least is None else say("at least {rate}", rate=text.number(fit.least))


def fixed_text(fit: PrefillFit) -> str:
    """A fixed time; where it may be none at all, no more than its most."""
    if not _may_be_zero(fit) or fit.fixed_ci95 is None:
        return text.number(fit.fixed_ms)
    most = fit.fixed_ci95[1]
    return say("at most {most}, maybe none", most=text.number(most)) if most > 0 else say("none found")


def _may_be_zero(fit: PrefillFit) -> bool:
    return fit.fixed_ci95 is not None and fit.fixed_ci95[0] <= 0


def attention_rows(data: ReportData) -> list[dict[str, Any]]:
    """What attention alone takes of each prompt length, beside the engines' TTFT."""
    return [
        {
            "tokens": text.count(row.prompt_tokens),
            "measured": text.number(row.measured_ms),
            "limit": text.number(row.limit_ms),
            "engines": [
                {"ttft": text.number(row.ttft_ms.get(engine)), "shares": _shares(row.shares(engine))}
                for engine in data.engines
            ],
        }
        for row in (data.attention.rows if data.attention else ())
    ]


def _shares(found: tuple[float | None, float] | None) -> str:
    """Attention's parts of a TTFT: `4.2%, limit 2.9%`."""
    if found is None:
        return text.DASH
    measured, limit = (None if share is None else _percent(share) for share in found)
    if measured is None:
        return say("limit {limit}", limit=limit)
    return say("{share}, limit {limit}", share=measured, limit=limit)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "< 0.1%"


def energy_rows(data: ReportData) -> list[dict[str, Any]]:
    """Energy by cell and engine."""
    rows = []
    for view in data.cells:
        for seat, engine in enumerate(data.engines):
            row = next((row for row in data.energy.rows if row.cell == view.id and row.engine == engine), None)
            if row is not None:
                rows.append(
                    {
                        "cell": text.cell_words(view.id),
                        "engine": engine,
                        "seat": data.looks[seat],
                        "glyph": LOOKS[data.looks[seat]].glyph,
                        "joules": text.number(row.joules),
                        "watts": text.number(row.watts),
                        "tokens_per_joule": text.number(row.tokens_per_joule),
                        "blocks": row.blocks,
                    }
                )
    return rows
