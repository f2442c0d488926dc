"""The report's section on cost, as text."""

from __future__ import annotations

from typing import Any

from loadgen.message import Message, counted, joined, say
from loadgen.presentation import text
from loadgen.presentation.style import LOOKS
from loadgen.report.cost import Costs, Money, SavingRow
from loadgen.report.data import ReportData

OPEN_ROWS = 8
"""A longer table of cells is folded."""


def cost_section(data: ReportData, found: Costs) -> dict[str, Any]:
    """What the templates show: sentences, and rows of both tables."""
    return {
        "currency": found.cost.currency,
        "sentences": [_sentence(row, several=len(data.cells) > 1) for row in found.overall],
        "basis": say(
            "At {price} {currency} an hour of a GPU; {gpus}.",
            price=f"{found.cost.gpu_hour:,.10g}",
            currency=found.cost.currency,
            gpus=joined("{a}, {b}", [_gpus(engine, count) for engine, count in found.gpus.items()]),
        ),
        "capacity": [
            {
                **_engine(data, one.row.engine),
                "lengths": f"{one.row.prompt_tokens} → {one.row.output_tokens}",
                "capacity": one.row.text,
                "output": _money(one.output),
                "total": _money(one.total),
            }
            for one in found.capacity
        ],
        "rows": _rows(data, found),
        "energy": any(row.joules is not None for row in found.rows),
        "open": len(found.rows) <= OPEN_ROWS,
    }


def _rows(data: ReportData, found: Costs) -> list[dict[str, Any]]:
    rows = []
    entries = {view.id: view.engines for view in data.cells}
    for row in found.rows:
        entry = entries[row.cell][row.engine]
        partial = say("partial") if entry.status == "partial" else ""
        rows.append(
            {
                **_engine(data, row.engine),
                "cell": data.row_label(row.cell),
                "note": say("client-limited") if entry.limited else partial,
                "per_user": text.number(row.per_user),
                "per_gpu": text.number(row.per_gpu),
                "output": _money(row.output),
                "total": _money(row.total),
                "joules": text.number(row.joules),
                "saved": joined("{a}, {b}", [_saved(one) for one in found.saved(row.cell, row.engine)]),
            }
        )
    return rows


def _engine(data: ReportData, engine: str) -> dict[str, Any]:
    look = data.look(engine)
    return {"engine": engine, "seat": look, "glyph": LOOKS[look].glyph}


def _gpus(engine: str, gpus: int) -> Message:
    return say("{engine} on {gpus}", engine=engine, gpus=counted(gpus, "{count} GPU", "{count} GPUs"))


def _money(money: Money) -> dict[str, str]:
    """The figure and its interval; of a capacity that is known on one side only, a bound."""
    if money.estimate is None and (money.low is None) != (money.high is None):
        if money.low is None:
            return {"text": say("at most {money}", money=text.number(money.high)), "interval": ""}
        return {"text": say("at least {money}", money=text.number(money.low)), "interval": ""}
    return {"text": text.number(money.estimate), "interval": text.interval(money.ci95)}


def _sentence(row: SavingRow, *, several: bool) -> Message:
    """What the verdict over all cells is worth."""
    if row.found is None:
        return say(
            "Output throughput decides on no cheaper engine between {a} and {b}: no saving is claimed.",
            a=row.a,
            b=row.b,
        )
    low, high = (_percent(end) for end in row.found.ci95)
    share = _percent(row.found.share)
    values = {"cheaper": row.cheaper, "dearer": row.dearer, "share": share, "low": low, "high": high}
    if several:
        return say(
            "Over all cells, output tokens of {cheaper} cost {share} [{low}, {high}] less than those of {dearer}.",
            **values,
        )
    return say("Output tokens of {cheaper} cost {share} [{low}, {high}] less than those of {dearer}.", **values)


def _saved(row: SavingRow) -> Message:
    """A cell's saving, such as `21% [20%, 23%] less than ksana`."""
    assert row.found is not None  # noqa: S101 - `Costs.saved` chose it
    low, high = (_percent(end) for end in row.found.ci95)
    return say(
        "{share} [{low}, {high}] less than {dearer}",
        share=_percent(row.found.share),
        low=low,
        high=high,
        dearer=row.dearer,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%" if abs(share) < 0.1 else f"{100 * share:.0f}%"
