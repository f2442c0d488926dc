"""The steps of a search for capacity as blocks of a run: what their records say, and when one is certain to fail."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from loadgen.capacity.search import CapacitySearch, Outcome
from loadgen.metrics.slo import Slo, strain
from loadgen.record import REJECTIONS, RequestRecord
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.capacity import FindCapacity
from loadgen.scenario.model import Block, Cell, Scenario

LONGER = 1.5
"""So many times the usual requests has a step where the crossing of a curve is roughly known: in each the queue must
fill anew, but shorter ones are better placed."""


def at_load(shape: Cell, search: FindCapacity, load: float) -> Cell:
    """The cell of a shape at a load."""
    if search.of == "rate":
        return dataclasses.replace(shape, rate=load, concurrency=0)
    return dataclasses.replace(shape, rate=0.0, concurrency=int(load))


@dataclasses.dataclass(frozen=True, slots=True)
class StepRule:
    """What the blocks of a search are judged by."""

    slo: Slo
    most_rejected: float
    """Share of a closed-loop block's requests that an engine may turn away: their users pause, so beyond it the engine
    never had the load. In an open loop the others come all the same, and a rejection is a miss like any other."""
    looks: Callable[[int], int]
    """How often a load may be decided anew, of the measured requests of its first block."""

    def outcome(self, facts: BlockFacts, records: Sequence[RequestRecord], before: Outcome) -> Outcome:
        """What a block says of its load.

        Of one that was ended early, the requests that are not known count as met where it fails all the same; else
        only those that ended count.

        Args:
            facts: the block's.
            records: its own.
            before: the outcome of earlier blocks at the same load.
        """
        kindest = self._kindest(facts, records)
        if facts.ended_early and self._fails(before + kindest):
            return kindest
        return self._count(facts, _measured(facts, records))

    def certain_to_fail(self, facts: BlockFacts, records: Sequence[RequestRecord], before: Outcome) -> bool:
        """Whether a running block fails even if all requests that have not ended yet meet the SLO."""
        return self._fails(before + self._kindest(facts, records))

    def _fails(self, outcome: Outcome) -> bool:
        return outcome.decide(self.slo.share) == "fails"

    def _kindest(self, facts: BlockFacts, records: Sequence[RequestRecord]) -> Outcome:
        measured = _measured(facts, records)
        return self._count(facts, measured, max(0, (facts.measured_requests or 0) - len(measured)))

    def _count(self, facts: BlockFacts, measured: Sequence[RequestRecord], still_open: int = 0) -> Outcome:
        total = len(measured) + still_open
        rejected = Counter(REJECTIONS[record.error] for record in measured if record.error in REJECTIONS)
        return Outcome(
            # What has not ended was mostly sent last.
            blocks=(np.array([strain(record, self.slo) for record in measured] + [0.0] * still_open),),
            looks=self.looks(facts.measured_requests or total),
            open=still_open,
            rejected=rejected,
            refused=not facts.rate and rejected.total() > self.most_rejected * total,
        )


def _measured(facts: BlockFacts, records: Sequence[RequestRecord]) -> list[RequestRecord]:
    return sorted(facts.cut_rule.cut(records).measured(records), key=lambda r: r.t_intended + r.wall_offset_ns)


class EngineSearch:
    """One engine's search over one shape, told of blocks and asked for the next."""

    def __init__(self, engine: str, shape: Cell, scenario: Scenario) -> None:
        search, slo = scenario.find_capacity, scenario.slo
        if search is None or slo is None:
            raise ValueError("this scenario searches for no capacity")
        self.engine = engine
        self.shape = shape
        self._settings = search
        self._rule = StepRule(slo, scenario.max_error_share, search.looks)
        self._requests = scenario.requests
        self._blocks: dict[float, int] = {}
        self.search = CapacitySearch(
            start=search.from_,
            most=search.to,
            precision=search.precision,
            whole=search.of == "concurrency",
            share=slo.share,
            patience=lambda load: search.most_requests(self._settings.step_requests(self._requests, load, slo)),
        )

    def next_block(self) -> Block | None:
        """The next step; None when the search is over."""
        load = self.search.next_load()
        if load is None:
            return None
        repeat = self._blocks.get(load, 0) + 1
        return Block(self.engine, at_load(self.shape, self._settings, load), repeat, self._step_requests(load))

    def before(self, block: Block) -> Outcome:
        """What is known of a block's load already."""
        return self.search.outcomes.get(float(block.cell.load), Outcome())

    def tell(self, block: Block, facts: BlockFacts, records: Sequence[RequestRecord]) -> Outcome:
        """Take in a block that is complete. Returns all that is known of its load."""
        load = float(block.cell.load)
        self.search.tell(load, self._rule.outcome(facts, records, self.before(block)))
        self._blocks[load] = block.repeat
        return self.search.outcomes[load]

    def fails(self, block: Block, facts: BlockFacts, records: Sequence[RequestRecord]) -> bool:
        """Whether a running block cannot hold the SLO any more."""
        return self._rule.certain_to_fail(facts, records, self.before(block))

    def _step_requests(self, load: float) -> int:
        """Measured requests of the next step, which has this load."""
        once = self._settings.step_requests(self._requests, load, self._rule.slo)
        return math.ceil(LONGER * once) if self.search.near else once
