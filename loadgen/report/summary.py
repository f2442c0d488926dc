"""`summary.json`: the report for programs. Nothing that was not measured is ever 0; it is null."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.analysis.prefill import PrefillFit
from loadgen.analysis.scaling import Step
from loadgen.explain.words import as_json
from loadgen.files import atomic_write
from loadgen.message import as_data
from loadgen.monitoring.energy import EnergyRow
from loadgen.report.attention import Attention
from loadgen.report.cells import CellView, EngineCell
from loadgen.report.cost import Costs, Money, SavingRow
from loadgen.report.data import ReportData
from loadgen.report.engine_says import EngineRow
from loadgen.report.experiment import Outcome
from loadgen.report.headline import basis, headline, notices, tiles
from loadgen.report.together import Together
from loadgen.scenario.shapes import Conversation, Prefixes
from loadgen.scenario.shapes import Step as LoadStep
from loadgen.statistics.result import Estimate

SCHEMA_VERSION = 3


def summary(data: ReportData) -> dict[str, Any]:
    """Return the whole content of `summary.json` as plain data. Times in ms where a name ends so."""
    manifest = data.manifest
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": manifest.run_id,
        "source": manifest.source,
        "status": manifest.status,
        "partial": data.partial,
        "scenario": manifest.scenario.get("name"),
        "started_at": manifest.started_at,
        "ended_at": manifest.ended_at,
        "headline": headline(data).as_json(),
        "basis": basis(data),
        "notices": [dataclasses.asdict(notice) for notice in notices(data)],
        "engines": [_engine(data, engine) for engine in data.engines],
        "overall_ratios": {
            tile.column.key: {"geometric_mean": tile.mean, "min": tile.low, "max": tile.high, "cells": tile.cells}
            for tile in tiles(data)
        },
        "statistics": [found.model_dump(mode="json") for found in data.comparisons],
        "prefill": [_prefill(fit) for fit in data.prefill],
        "attention": None if data.attention is None else _attention(data.attention, data.engines),
        "energy": [_energy(row) for row in data.energy.rows],
        "energy_of": "engine" if data.energy.own else "all",
        "gpus": dict(data.gpus),
        "scaling": [_scaling(step) for step in data.scaling],
        "cards": [dataclasses.asdict(seat) for seat in data.cards],
        "engine_figures": [_engine_figures(row) for row in data.engine_says.rows],
        "mechanisms": as_json(data.explained),
        "warm_blocks": [dataclasses.asdict(block) for block in data.engine_says.warm],
        "slo": data.slo.model_dump() if data.slo is not None else None,
        "capacity": [dataclasses.asdict(row) for row in data.capacity],
        "cost": None if data.costs is None else _cost(data.costs),
        "experiment": None if data.experiment is None else _experiment(data.experiment),
        "quality": None if data.quality is None else data.quality.model_dump(mode="json", exclude={"answers"}),
        "cells": [_cell(data, view) for view in data.cells],
        "blocks": [dataclasses.asdict(block) for block in data.blocks],
        "endings": [
            {"engine": row.engine, "cell": row.cell, **dataclasses.asdict(row.endings)} for row in data.endings
        ],
        "errors": [dataclasses.asdict(row) for row in data.errors],
        "fairness": [dataclasses.asdict(row) for row in data.fairness],
        "together": None if data.together is None else _together(data.together),
        "serving": [dataclasses.asdict(row) for row in data.serving],
        "client": dataclasses.asdict(data.client),
        "measured_requests": data.measured_requests,
        "failed_requests": data.failed_requests,
        "unreadable_lines": len(data.bad_lines),
        "missing": [*data.memory.missing, *([data.energy.missing] if data.energy.missing else [])],
    }


def _together(found: Together) -> dict[str, Any]:
    return {
        "placement": found.placement,
        "placed": [one.model_dump() for one in found.placed],
        "client_cpus": list(found.client_cpus),
        "overlap": None if found.overlap is None else dataclasses.asdict(found.overlap),
        "disturbances": [one.model_dump(mode="json") for one in found.disturbances],
    }


def write_summary(data: ReportData, path: Path) -> None:
    """Write `summary.json`. Raises OSError."""
    atomic_write(path, json.dumps(summary(data), indent=2, allow_nan=False) + "\n")


def _engine(data: ReportData, engine: str) -> dict[str, Any]:
    facts = data.facts(engine)
    peak = next((max(v for _, v in s.samples) for s in data.memory.series if s.engine == engine), None)
    known = {} if facts is None else {key: getattr(facts, key) for key in ("kind", "api", "model", "version")}
    return {"name": engine, **known, "peak_memory_bytes": peak}


def _prefill(fit: PrefillFit) -> dict[str, Any]:
    return {
        "engine": fit.engine,
        "load": fit.load,
        "requests": len(fit.ttft_ms),
        "repeats": fit.repeats,
        "tokens_per_s": fit.rate,
        "ci95": fit.ci95,
        "least_tokens_per_s": fit.least,
        "fixed_ms": fit.fixed_ms,
        "fixed_ci95": fit.fixed_ci95,
        "ms_a_token": fit.ms_a_token,
    }


def _attention(found: Attention, engines: Sequence[str]) -> dict[str, Any]:
    rows = []
    for row in found.rows:
        shares = {engine: row.shares(engine) or (None, None) for engine in engines}
        told = {
            engine: {"ttft_p50_ms": row.ttft_ms.get(engine), "measured_share": measured, "limit_share": limit}
            for engine, (measured, limit) in shares.items()
        }
        rows.append({**dataclasses.asdict(row), "engines": told})
        del rows[-1]["ttft_ms"]  # each engine's is in `engines`
    return dataclasses.asdict(found) | {"rows": rows, "basis": found.basis}


def _energy(row: EnergyRow) -> dict[str, Any]:
    return dataclasses.asdict(row) | {"watts": row.watts, "output_tokens_per_joule": row.tokens_per_joule}


def _scaling(step: Step) -> dict[str, Any]:
    told = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return {name: value.model_dump() if isinstance(value, Estimate) else value for name, value in told.items()}


def _engine_figures(row: EngineRow) -> dict[str, Any]:
    told = dataclasses.asdict(row.figures)
    return {"cell": row.cell, "engine": row.engine, **told, "why": [as_data(words) for words in row.why]}


def _cost(found: Costs) -> dict[str, Any]:
    """Money is for a million tokens; `joules` for one."""
    return {
        "gpu_hour": found.cost.gpu_hour,
        "currency": found.cost.currency,
        "gpus": found.gpus,
        "cells": [
            {
                "cell": row.cell,
                "engine": row.engine,
                "output_tokens_per_s_per_user": row.per_user,
                "output_tokens_per_s_per_gpu": row.per_gpu,
                "per_million_output_tokens": _money(row.output),
                "per_million_tokens": _money(row.total),
                "joules_per_output_token": row.joules,
            }
            for row in found.rows
        ],
        "capacity": [
            {
                "engine": one.row.engine,
                "prompt_tokens": one.row.prompt_tokens,
                "output_tokens": one.row.output_tokens,
                "shared_prefix": one.row.shared_prefix,
                "per_million_output_tokens": _money(one.output),
                "per_million_tokens": _money(one.total),
            }
            for one in found.capacity
        ],
        "savings": [_saving(row) for row in (*found.overall, *found.savings)],
    }


def _money(money: Money) -> dict[str, Any]:
    return {"estimate": money.estimate, "ci95": [money.low, money.high]}


def _saving(row: SavingRow) -> dict[str, Any]:
    told = {"cell": row.cell, "a": row.a, "b": row.b, "cheaper": row.cheaper}
    return told | {"share": row.found and row.found.share, "ci95": row.found and row.found.ci95}


def _cell(data: ReportData, view: CellView) -> dict[str, Any]:
    base = data.engines[0] if data.engines else None
    return {
        "id": view.id,
        "prompt_tokens": view.cell.prompt_tokens if view.cell else None,
        "output_tokens": view.cell.output_tokens if view.cell else None,
        "concurrency": view.cell.concurrency or None if view.cell else None,
        "rate": view.cell.rate or None if view.cell else None,
        "batch": view.cell.batch or None if view.cell else None,
        "shared_prefix": view.cell.shared_percent / 100 if view.cell else None,
        "step": _plain(view.cell.step if view.cell else None),
        "conversation": _plain(view.cell.conversation if view.cell else None),
        "prefixes": _plain(view.cell.prefixes if view.cell else None),
        "trace": view.cell.trace or None if view.cell else None,
        "engines": {engine: _entry(entry) for engine, entry in view.engines.items()},
        "ratios": {other: {"to": base, **view.ratios(base, other)} for other in data.engines[1:]} if base else {},
    }


def _experiment(found: Outcome) -> dict[str, Any]:
    rows = [{**dataclasses.asdict(row), "verdict": row.verdict} for row in found.findings]
    return {**found.experiment.model_dump(exclude={"decides"}), "findings": rows}


def _plain(extra: LoadStep | Conversation | Prefixes | None) -> dict[str, Any] | None:
    return extra.model_dump() if extra is not None else None


def _entry(entry: EngineCell) -> dict[str, Any]:
    return {
        "status": entry.status,
        "note": entry.note,
        "client_limited": entry.limited,
        "blocks": entry.blocks,
        "ci95": entry.intervals,
        "summary": dataclasses.asdict(entry.summary) if entry.summary else None,
    }
