"""Which GPUs each engine was on, as it was given them and as the GPU exporter saw it, and what each went through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loadgen.message import Message, joined, mark, say
from loadgen.monitoring.card_figures import CardFigures
from loadgen.presentation import text
from loadgen.presentation.style import LOOKS
from loadgen.report.engine_says import EngineSays
from loadgen.report.gpus import facts_of
from loadgen.runs.folder import RunData
from loadgen.runs.manifest import EngineFacts

if TYPE_CHECKING:
    from loadgen.report.data import ReportData

OPEN_ROWS = 16
"""A longer table is folded."""
MOST_NAMED = 16
"""GPUs of one engine that are named."""
MB, GB = 1e6, 1e9


@dataclasses.dataclass(frozen=True, slots=True)
class SeatCards:
    """The GPUs of one engine."""

    engine: str
    given: tuple[str, ...]
    """As its latest launch had them, by index, else as they were named; empty where nobody chose."""
    seen: tuple[str, ...]
    """By index: those that its processes were on while its blocks ran; empty where nobody tells."""
    names: tuple[str, ...]
    """What kinds of GPU those are, each once."""


def seat_cards(run: RunData, engines: Sequence[str], says: EngineSays) -> list[SeatCards]:
    """Those of each engine of which something is known."""
    told = run.manifest.host.get("gpus")
    known = [gpu for gpu in told if isinstance(gpu, Mapping)] if isinstance(told, list) else []
    rows = []
    for engine in engines:
        ids = [block.facts.record_id for block in run.blocks if block.facts.engine == engine]
        own = [says.blocks[each] for each in ids if each in says.blocks]
        seen = {card.gpu for figures in own if figures.gpu_scope == "engine" for card in figures.cards}
        given = tuple(_index(each, known) for each in _given(facts_of(run.manifest, engine)))
        if seen or given:
            ordered = tuple(sorted(seen, key=lambda gpu: (len(gpu), gpu)))
            places = [int(gpu) for gpu in ordered or given if gpu.isdecimal() and int(gpu) < len(known)]
            names = dict.fromkeys(str(known[place].get("name")) for place in places)
            rows.append(SeatCards(engine, given, ordered, tuple(names)))
    return rows


def _given(facts: EngineFacts | None) -> tuple[str, ...]:
    gpus: Any = facts.launch.get("gpus") if facts is not None else None
    ids = gpus.get("device_ids") if isinstance(gpus, Mapping) else None
    return tuple(str(each) for each in ids) if isinstance(ids, list) else ()


def _index(given: str, known: Sequence[Mapping[str, Any]]) -> str:
    """A GPU by its index where it was named by its UUID, or the beginning of one, and the machine has it."""
    found = [place for place, gpu in enumerate(known) if given and str(gpu.get("uuid")).startswith(given)]
    return str(found[0]) if len(found) == 1 else given


def _gib(value: float | None) -> str:
    return text.DASH if value is None else text.number(value / 2**30)


def _both(rates: tuple[float | None, float | None] | None, unit: float) -> str:
    """Two rates: `12.3 / 12.1`."""
    if rates is None or None in rates:
        return text.DASH
    return " / ".join(text.number(rate / unit) for rate in rates if rate is not None)


REASONS = {
    "power_cap": mark("power limit"),
    "hardware_slowdown": mark("hardware slowdown"),
    "software_thermal": mark("heat (software)"),
    "hardware_thermal": mark("heat (hardware)"),
    "power_brake": mark("power brake"),
    "sync_boost": mark("slower cards beside it"),
}


def _held(card: CardFigures) -> str | Message:
    """For which share of the time its clocks were held down, and why."""
    if card.held_down is None:
        return text.DASH
    held = [say("{reason} {share}", reason=say(REASONS[each]), share=text.percent(share))
            for each, share in card.held_down.items() if each in REASONS]  # fmt: skip
    return joined("{a}, {b}", held) if held else say("never")


Show = Callable[[CardFigures], str | Message]
COLUMNS: tuple[tuple[str, str, Show], ...] = (
    (mark("its memory"), mark("GiB, peak"), lambda card: _gib(card.engine_memory_peak_bytes)),
    (mark("memory in use"), mark("GiB, peak"), lambda card: _gib(card.memory_peak_bytes)),
    (mark("power"), "W", lambda card: text.number(card.power_watts)),
    (mark("SM clock"), "MHz", lambda card: text.number(card.sm_megahertz)),
    (mark("clocks held down"), mark("of the time"), _held),
    ("NVLink", mark("GB/s, out / in"), lambda card: _both(card.nvlink_bytes_per_second, GB)),
    (
        "PCIe",
        mark("MB/s, out / in"),
        lambda card: _both((card.pcie_transmit_bytes_per_second, card.pcie_receive_bytes_per_second), MB),
    ),
)


def cards_section(data: ReportData) -> dict[str, Any] | None:
    """What the templates show: who was on which GPUs, and a row for each engine's GPU in each cell; None without."""
    found = [(row, card) for row in data.engine_says.rows for card in row.figures.cards]
    if not found and not data.cards:
        return None
    shown = [column for column in COLUMNS if any(column[2](card) != text.DASH for _, card in found)]
    return {
        "sentences": [seat_words(seat) for seat in data.cards],
        "columns": [{"name": name, "unit": unit} for name, unit, _ in shown],
        "rows": [
            {
                "cell": data.row_label(row.cell),
                "engine": row.engine,
                "seat": data.look(row.engine),
                "glyph": LOOKS[data.look(row.engine)].glyph,
                "gpu": card.gpu + ("*" if row.figures.gpu_scope == "all" else ""),
                "figures": [show(card) for _, _, show in shown],
            }
            for row, card in found
        ],
        "of_all_gpus": any(row.figures.gpu_scope == "all" for row, _ in found),
        "open": len(found) <= OPEN_ROWS,
    }


def seat_words(seat: SeatCards) -> Message:
    """Where an engine was: `two was on GPU 0 and 1 (NVIDIA H200).`"""
    given, seen = (text.listing(gpus, most=MOST_NAMED) for gpus in (seat.given, seat.seen))
    values = {"engine": seat.engine, "given": given}
    if not seat.seen:
        return say("{engine} was given GPU {given}; the GPU exporter did not tell where it was.", **values)
    where = say("GPU {gpus}", gpus=seen)
    if seat.names:
        where = say("GPU {gpus} ({names})", gpus=seen, names=text.listing(seat.names))
    if seat.given and seat.given != seat.seen:
        return say("{engine} was on {where}; it was given {given}.", where=where, **values)
    return say("{engine} was on {where}.", where=where, **values)
