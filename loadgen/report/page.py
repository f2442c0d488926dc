"""What both templates, HTML and Markdown, are filled with."""

from __future__ import annotations

from typing import Any

import jinja2

from loadgen.definitions import DEFINITIONS
from loadgen.report import text
from loadgen.report.columns import ahead
from loadgen.report.data import CellView, EngineCell, ReportData
from loadgen.report.fairness import LONG
from loadgen.report.headline import headline, notices, tiles
from loadgen.report.repeat import client_blocks, client_facts, command, repeat_facts
from loadgen.report.style import LOOKS, look

ORDER = {"bad": 0, "warn": 1, "info": 2}


def environment(*, autoescape: bool) -> jinja2.Environment:
    """Return a template environment with our filters. Undefined names are errors."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("loadgen.report", "templates"),
        autoescape=autoescape,  # noqa: S701 (off for Markdown only, which has an escaping of its own)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=text.number,
        count=text.count,
        ratio=text.ratio,
        moment=text.moment,
        plural=text.plural,
        cell=text.cell_words,
        listing=text.listing,
    )
    return made


def context(data: ReportData) -> dict[str, Any]:
    """Return everything the templates need, apart from the pictures."""
    manifest = data.manifest
    return {
        "data": data,
        "manifest": manifest,
        "title": manifest.scenario.get("name") or manifest.run_id,
        "question": manifest.scenario.get("question"),
        "headline": headline(data),
        "notices": sorted(notices(data), key=lambda notice: ORDER[notice.level]),
        "tiles": tiles(data),
        "engines": [{"name": e, "seat": i % len(LOOKS), "look": look(i)} for i, e in enumerate(data.engines)],
        "columns": data.columns,
        "load_axis": data.load_axis,
        "load_column": data.load_column,
        "groups": _groups(data),
        "definitions": DEFINITIONS,
        "command": command(data),
        "repeat": repeat_facts(data),
        "client": client_facts(data),
        "client_blocks": client_blocks(data),
        "status_words": {
            "complete": "complete",
            "interrupted": "interrupted",
            "failed": "failed",
            "running": "not ended",
        },
        "dash": text.DASH,
        "long": LONG,
    }


def _groups(data: ReportData) -> list[dict[str, Any]]:
    """The table of cells: groups by shape, cells, rows of engines and ratios."""
    groups = [{"words": text.shape_words(s), "cells": [_cell(data, v) for v in data.cells_of(s)]} for s in data.shapes]
    strangers = [_cell(data, view) for view in data.cells if view.cell is None]
    if strangers:
        groups.append({"words": "other cells", "cells": strangers})
    return groups


def _cell(data: ReportData, view: CellView) -> dict[str, Any]:
    return {
        "name": view.cell.load_text if view.cell else view.id,
        "level": f"{view.cell.load:g}" if view.cell else view.id,
        "rows": [_row(data, view.engines[engine], seat) for seat, engine in enumerate(data.engines)],
        "ratios": [_ratio_row(data, view, seat) for seat in range(1, len(data.engines))],
    }


def _row(data: ReportData, entry: EngineCell, seat: int) -> dict[str, Any]:
    return {
        "engine": entry.engine,
        "seat": seat % len(LOOKS),
        "glyph": look(seat).glyph,
        "status": entry.status,
        "note": entry.note,
        "limited": entry.limited,
        "figures": [column.text(entry.summary) for column in data.columns],
        "errors": text.DASH if entry.summary is None else text.count(sum(entry.summary.errors.values())),
        "failed": bool(entry.summary and entry.summary.errors),
    }


def _ratio_row(data: ReportData, view: CellView, seat: int) -> dict[str, Any]:
    """Ratios to the first seat, each with the seat that is ahead in it (None where neither is)."""
    ratios = view.ratios(data.engines[0], data.engines[seat])
    figures = []
    for column in data.columns:
        value = ratios.get(column.key)
        lead = None if value is None or round(value, 2) == 1 else ahead(column, value)
        winner = None if lead is None else seat if lead else 0
        figures.append(
            {
                "text": text.ratio(value),
                "seat": None if winner is None else winner % len(LOOKS),
                "glyph": "" if winner is None else look(winner).glyph,
                "engine": "" if winner is None else data.engines[winner],
            }
        )
    return {"engine": data.engines[seat], "figures": figures}
