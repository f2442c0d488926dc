"""The report's section on what the engines say of themselves, as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadgen.message import joined, mark
from loadgen.monitoring.engine_figures import EngineFigures
from loadgen.presentation import text
from loadgen.presentation.style import LOOKS
from loadgen.report.data import ReportData

OPEN_ROWS = 16
"""A longer table is folded."""

Show = Callable[[EngineFigures], str]


def _share(value: float | None) -> str:
    return text.DASH if value is None else text.percent(value)


def _ms(value: float | None) -> str:
    """To a hundredth, as nothing here is finer."""
    return text.number(None if value is None else round(value, 2) + 0.0)


def _waiting(own: EngineFigures) -> str:
    """The mean, and behind it the peak where that is told and another."""
    mean, peak = text.number(own.waiting), own.waiting_peak
    return f"{mean} ({peak:g})" if own.waiting is not None and peak else mean


def _preempted(own: EngineFigures) -> str:
    counts = [count for count in (own.preemptions, own.swaps) if count is not None]
    return text.count(round(sum(counts))) if counts else text.DASH


def _tokens(own: float | None, ours: float | None) -> str:
    return text.ratio(own / ours) if own is not None and ours else text.DASH


def _of_gpus(own: EngineFigures, value: float | None, unit: float = 1.0) -> str:
    """With a mark where it is of all GPUs."""
    return text.DASH if value is None else text.number(value / unit) + ("*" if own.gpu_scope == "all" else "")


COLUMNS: tuple[tuple[str, str, Show], ...] = (
    (mark("own TTFT"), "ms", lambda own: _ms(own.ttft_ms)),
    (mark("client's less own"), "ms", lambda own: _ms(own.residual_ms)),
    (mark("wait in queue"), "ms", lambda own: _ms(own.queue_ms)),
    (mark("waiting"), mark("mean, peak"), _waiting),
    (mark("running"), mark("requests"), lambda own: text.number(own.running)),
    (mark("KV cache"), mark("peak"), lambda own: _share(own.kv_used_peak)),
    (mark("prefix hits"), mark("of prompts"), lambda own: _share(own.prefix_hits)),
    (mark("preempted"), mark("requests"), _preempted),
    (mark("prompt tokens"), mark("of ours"), lambda own: _tokens(own.prompt_tokens, own.client_prompt_tokens)),
    (mark("output tokens"), mark("of ours"), lambda own: _tokens(own.output_tokens, own.client_output_tokens)),
    (mark("GPU memory"), mark("GiB, peak"), lambda own: _of_gpus(own, own.gpu_memory_peak_bytes, 2**30)),
    (mark("GPU power"), "W", lambda own: _of_gpus(own, own.gpu_power_watts)),
)


def engine_section(data: ReportData) -> dict[str, Any] | None:
    """What the templates show: the columns that any engine has a figure in, and rows; None without rows."""
    rows = data.engine_says.rows
    if not rows:
        return None
    shown = [column for column in COLUMNS if any(column[2](row.figures) != text.DASH for row in rows)]
    warm = {(block.engine, block.cell) for block in data.engine_says.warm}
    return {
        "columns": [{"name": name, "unit": unit} for name, unit, _ in shown],
        "rows": [
            {
                "cell": data.row_label(row.cell),
                "engine": row.engine,
                "seat": data.look(row.engine),
                "glyph": LOOKS[data.look(row.engine)].glyph,
                "warm": (row.engine, row.cell) in warm,
                "figures": [show(row.figures) for _, _, show in shown],
                "why": joined("{a}; {b}", row.why),
            }
            for row in rows
        ],
        "of_all_gpus": any(row.figures.gpu_scope == "all" for row in rows),
        "open": len(rows) <= OPEN_ROWS,
    }
