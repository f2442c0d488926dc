"""`compare.html`, `compare.md` and `compare.json`: the report's page, with the differences in front."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from loadgen.compare.comparison import RunComparison
from loadgen.compare.headline import headline, notices
from loadgen.compare.rows import rows
from loadgen.compare.sides import Side
from loadgen.errors import UserError
from loadgen.files import atomic_write, make_folder
from loadgen.gate.decide import Decision, exit_code
from loadgen.gate.words import OUTCOMES, estimate_words, gravest_first, subject
from loadgen.gate.words import headline as gate_headline
from loadgen.message import say
from loadgen.presentation.language import ENGLISH, language_of
from loadgen.presentation.style import LOOKS
from loadgen.presentation.text import cell_words
from loadgen.report.charts import charts
from loadgen.report.figures import draw_svgs, png_language, write_pngs
from loadgen.report.markdown import markdown_environment, tidy
from loadgen.report.page import context, environment
from loadgen.statistics.words import family_words

SCHEMA_VERSION = 2
FILES = "compare_files"


def write_comparison(comparison: RunComparison, folder: Path, language: str = "en") -> Path:
    """Write the three files and their pictures into a folder, which is made. Returns the page's path.

    A language other than English has its code in the files' names; `compare.json` is always English.

    Raises:
        UserError: they cannot be written.
    """
    told = language_of(language)
    name = "compare" if told is ENGLISH else f"compare.{told.code}"
    files = FILES if told is ENGLISH else f"{FILES}.{told.code}"
    page = folder / f"{name}.html"
    try:
        make_folder(folder)
        atomic_write(folder / "compare.json", json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n")
        drawn = charts(comparison.report, memory=False)
        pictures = write_pngs(comparison.report, drawn, folder / files, png_language(told))
        made = markdown_environment(files, told).get_template("compare.md.j2")
        text = tidy(made.render(**_context(comparison), pictures=pictures))
        atomic_write(folder / f"{name}.md", text)
        html = environment(autoescape=True, language=told).get_template("compare.html.j2")
        text = html.render(
            **_context(comparison),
            plots=draw_svgs(drawn, told),
            looks=LOOKS,
        )
        atomic_write(page, text)
    except OSError as error:
        raise UserError(f"{folder}: the comparison cannot be written: {error.strerror or error}.") from None
    return page


def as_json(comparison: RunComparison) -> dict[str, Any]:
    """`compare.json`: `statistics` has the schema of docs/statistics.schema.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "a": _side(comparison.a, comparison.report.looks[0]),
        "b": _side(comparison.b, comparison.report.looks[1]),
        "headline": headline(comparison).as_json(),
        "cells": dataclasses.asdict(comparison.cells),
        "differences": [dataclasses.asdict(row) for row in comparison.differences],
        "statistics": comparison.statistics.model_dump(mode="json"),
        "thresholds": [decision_json(decision) for decision in comparison.decisions],
        "exit_code": exit_code(comparison.decisions),
    }


def decision_json(decision: Decision) -> dict[str, Any]:
    """One threshold in one cell."""
    case = decision.case
    return {
        "threshold": str(case.threshold),
        "cell": case.cell,
        "engine": case.engine,
        "against": case.against,
        "outcome": decision.outcome,
        "estimate": decision.estimate,
        "ci95": None if decision.ci95 is None else [_finite(bound) for bound in decision.ci95],
        "unit": case.threshold.unit if case.threshold.unit not in ("s", "ms") else "ms",
        "confidence_to_fail": decision.level,
        "reason": decision.reason,
    }


def _finite(value: float) -> float | None:
    return value if abs(value) < 1e300 else None


def _side(side: Side, look: int) -> dict[str, Any]:
    return {
        "letter": side.letter,
        "label": side.label,
        "engine": side.engine,
        "version": side.facts.version if side.facts else None,
        "model": side.facts.model if side.facts else None,
        "run_id": side.manifest.run_id,
        "started_at": side.manifest.started_at,
        "cpu": side.manifest.host.get("cpu"),
        "seat": look,
        "glyph": LOOKS[look].glyph,
    }


def _context(comparison: RunComparison) -> dict[str, Any]:
    looks = comparison.report.looks
    groups = itertools.groupby(rows(comparison.statistics), key=lambda row: row.cell)
    return context(comparison.report) | {
        "title": say("{b} against {a}", a=comparison.a.label, b=comparison.b.label),
        "headline": headline(comparison),
        "notices": notices(comparison),
        "sides": [_side(comparison.a, looks[0]), _side(comparison.b, looks[1])],
        "differences": [{"words": cell_words(cell), "rows": list(own)} for cell, own in groups],
        "family": family_words(comparison.statistics),
        "unequal": comparison.differences,
        "of_two_runs": True,
        "gate": _gate(comparison) if comparison.decisions else None,
    }


def _gate(comparison: RunComparison) -> dict[str, Any]:
    decisions = comparison.decisions
    return {
        "code": exit_code(decisions),
        "headline": gate_headline(decisions),
        "rows": [
            {
                "outcome": decision.outcome,
                "words": OUTCOMES[decision.outcome],
                "threshold": str(decision.case.threshold),
                "cell": cell_words(decision.case.cell),
                "subject": subject(decision),
                "found": estimate_words(decision),
                "reason": decision.reason,
            }
            for decision in gravest_first(decisions)
        ],
    }
