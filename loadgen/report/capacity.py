"""What a search for capacity has found: a row for each engine and shape, from the records of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from loadgen.capacity.search import Found
from loadgen.capacity.steps import EngineSearch, at_load
from loadgen.message import joined, say
from loadgen.metrics.definitions import length_share
from loadgen.metrics.slo import Slo
from loadgen.presentation.text import DASH, number, ratio
from loadgen.runs.folder import BlockData
from loadgen.scenario.cell import read_cell
from loadgen.scenario.model import Block, Cell, Scenario
from loadgen.statistics.lengths import lengths_apart


@dataclasses.dataclass(frozen=True, slots=True)
class CapacityRow:
    """One engine's capacity for one shape of request."""

    engine: str
    prompt_tokens: int
    output_tokens: int
    shared_prefix: float
    of: Literal["rate", "concurrency"]
    found: Found
    limited: bool
    """Whether the load generator was the limit in a step next to the result."""
    lengths: tuple[float, ...] = ()
    """Of every measured answer, its share of the length that was asked for."""
    rejections: tuple[float, str, str] | None = None
    """At the lowest load that failed: that load, what share was rejected, with which HTTP statuses."""

    def _load(self, load: float | None) -> str:
        """A load; users are whole."""
        return number(load) if load is None or self.of == "rate" else f"{load:,.0f}"

    @property
    def unit(self) -> str:
        """What it is counted in."""
        return "req/s" if self.of == "rate" else say("users")

    @property
    def text(self) -> str:
        """The estimate in words."""
        what = self.found
        if what.load is not None:
            return say("{load} {unit}", load=self._load(what.load), unit=self.unit)
        if what.low is not None:
            return say("{load} {unit} or more", load=self._load(what.low), unit=self.unit)
        if what.high is not None:
            return say("less than {load} {unit}", load=self._load(what.high), unit=self.unit)
        return DASH

    @property
    def interval_text(self) -> str:
        """The interval of the capacity."""
        if self.found.low is None and self.found.high is None:
            return DASH
        return f"[{self._load(self.found.low)}, {self._load(self.found.high)}]"

    @property
    def note(self) -> str:
        """What restrains it; empty when nothing does."""
        notes = [] if self.found.complete else [say("the search broke off")]
        if self.limited:
            notes.append(say("client-limited near the result"))
        if self.rejections is not None:
            load, share, statuses = self.rejections
            notes.append(
                say(
                    "at {load} {unit} it rejected {share} of the requests with {statuses}",
                    load=self._load(load),
                    unit=self.unit,
                    share=share,
                    statuses=statuses,
                )
            )
        return joined("{a}; {b}", notes)


def capacity_rows(scenario: Scenario | None, engines: Sequence[str], blocks: Sequence[BlockData]) -> list[CapacityRow]:
    """Replay every search over the blocks of a run. Empty where the scenario searches for no capacity."""
    if scenario is None or scenario.find_capacity is None or scenario.slo is None:
        return []
    return [_row(scenario, scenario.slo, engine, shape, blocks) for shape in scenario.cells() for engine in engines]


def _row(scenario: Scenario, slo: Slo, engine: str, shape: Cell, blocks: Sequence[BlockData]) -> CapacityRow:
    search = EngineSearch(engine, shape, scenario)
    known = {b.facts.id: b for b in blocks if b.facts.engine == engine and b.facts.status == "complete"}
    limited: set[float] = set()
    lengths: list[float] = []

    def tell(block: Block, data: BlockData) -> None:
        search.tell(block, data.facts, data.records)
        lengths.extend(share for one in data.measured if one.ok and (share := length_share(one)) is not None)
        if data.facts.client_limited:
            limited.add(float(block.cell.load))

    while (block := search.next_block()) is not None and block.id in known:
        tell(block, known.pop(block.id))
    # Steps that today's search would not have taken, such as those of an older version, say as much of their loads.
    for data in known.values():
        cell, settings = read_cell(data.facts.cell), scenario.find_capacity
        if cell is not None and settings and at_load(shape, settings, float(cell.load)).id == data.facts.cell:
            tell(Block(engine, cell, data.facts.repeat), data)
    result = search.search.found()
    failed = {load: one for load, one in search.search.outcomes.items() if one.decide(slo.share) == "fails"}
    first = min(failed, default=None)
    return CapacityRow(
        engine=engine,
        prompt_tokens=shape.prompt_tokens,
        output_tokens=shape.output_tokens,
        shared_prefix=shape.shared_percent / 100,
        of="rate" if scenario.find_capacity is not None and scenario.find_capacity.of == "rate" else "concurrency",
        found=result,
        lengths=tuple(lengths),
        limited=bool(limited & _next_to(result, search.search.outcomes)),
        rejections=(first, failed[first].rejected_percent, failed[first].rejected_with)
        if first is not None and failed[first].rejected
        else None,
    )


def _next_to(result: Found, loads: Iterable[float]) -> set[float]:
    """The loads in the interval, and the first beyond each end unless the end itself was tried."""
    tried = sorted(loads)
    low = max((load for load in tried if result.low is not None and load <= result.low), default=result.low)
    high = min((load for load in tried if result.high is not None and load >= result.high), default=result.high)
    return {load for load in tried if (low is None or load >= low) and (high is None or load <= high)}


def compared(a: CapacityRow, b: CapacityRow) -> str | None:
    """How the capacities of two engines compare; None where one of them is not known.

    The ratio's interval goes as far as the intervals of both allow: where both hold the truth, it does.
    """
    first, second = a.found, b.found
    if not (first.complete and second.complete and first.load and first.low and first.high):
        return None
    if not (second.load and second.low and second.high) or a.limited or b.limited:
        return None
    low, high = second.low / first.high, second.high / first.low
    if lengths_apart(a.lengths, b.lengths):
        return say("They are not compared: the engines' answers differ in length.")
    words = {"a": a.engine, "b": b.engine, "ratio": ratio(second.load / first.load)}
    words |= {"interval": f"[{number(low)}, {number(high)}]"}
    if low < 1 < high:
        return say("No difference is shown: {b} ÷ {a} is {ratio} {interval}.", **words)
    more = b.engine if low >= 1 else a.engine
    return say("{engine} takes more load: {b} ÷ {a} is {ratio} {interval}.", engine=more, **words)


def capacity_sentence(rows: Sequence[CapacityRow], slo: Slo) -> str:
    """The result in one sentence."""
    if len({(row.prompt_tokens, row.output_tokens, row.shared_prefix) for row in rows}) > 1:
        return say(
            "The capacity at which {slo} is in the table, for {count} engines and shapes.",
            slo=slo.text(),
            count=len(rows),
        )
    parts = [
        say("{engine} {load} {interval}", engine=row.engine, load=row.text, interval=row.interval_text) for row in rows
    ]
    found = say(
        "At {prompt} prompt and {output} output tokens, {slo}: {engines}.",
        prompt=rows[0].prompt_tokens,
        output=rows[0].output_tokens,
        slo=slo.text(),
        engines=joined("{a}, {b}", parts),
    )
    difference = compared(*rows) if len(rows) == 2 else None
    return found if difference is None else joined("{a} {b}", [found, difference])
