"""Looks for every known mechanism in every complete block of a run, and puts together where each shows. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from loadgen.engines import GENERIC
from loadgen.explain.block_figures import Seen
from loadgen.explain.caching import CACHING, cached_share
from loadgen.explain.mechanism import Figures, Mechanism
from loadgen.explain.scheduling import SCHEDULING
from loadgen.explain.streams import STREAMS
from loadgen.monitoring.engine_figures import figures, tally
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.runs.folder import BlockData, RunData
from loadgen.runs.manifest import EngineFacts
from loadgen.scenario.cell import in_order, read_cell
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import asked_of

ONLY_OF = {"waiting_n": "ksana", "steps": "vllm"}
"""Names of figures that one kind of engine has."""
MECHANISMS: tuple[Mechanism, ...] = (*SCHEDULING, *CACHING, *STREAMS)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A cell that shows a mechanism."""

    cell: str
    blocks: tuple[str, ...]
    """Record ids of the blocks that show it."""
    of: int
    """How many complete blocks of the engine in this cell could have shown it."""
    figures: Mapping[str, float]
    """The evidence; times in ms where a name ends so."""
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A mechanism that shows in an engine."""

    mechanism: str
    title: str
    page: str
    """Where it is explained, from the top of the repository."""
    places: tuple[Place, ...]
    """In the order of cells."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineFindings:
    """One engine, and what shows in it."""

    engine: str
    blocks: int
    """Complete blocks that were looked at."""
    read: int
    """Of those, how many have figures of the engine's own."""
    found: tuple[Finding, ...]

    def words(self, cell: str) -> list[str]:
        """What shows in one cell."""
        return [place.words for finding in self.found for place in finding.places if place.cell == cell]


def findings(
    run: RunData, samples: Mapping[str, BlockSamples], scenario: Scenario | None
) -> tuple[EngineFindings, ...]:
    """What shows in a run, by engine in the order of seats.

    Args:
        run: the run.
        samples: what was read of the engines' metrics, by block.
        scenario: the run's, where it can be read.
    """
    last = {block.facts.id: block for block in run.blocks if block.facts.status == "complete"}
    kinds = {facts.name: _kind(facts, run, samples) for facts in run.manifest.engines}
    names = dict.fromkeys([*kinds, *(block.facts.engine for block in last.values())])
    seen = {key: one for key, block in last.items() if (one := _seen(block, kinds, run, samples, scenario)) is not None}
    hits: dict[str, dict[str, list[float]]] = {}
    for key, one in seen.items():
        if (share := cached_share(one)) is not None:
            facts = last[key].facts
            hits.setdefault(facts.cell, {}).setdefault(facts.engine, []).append(share)
    found = []
    for engine in names:
        own: list[tuple[str, str, Seen]] = []
        for key, one in seen.items():
            facts = last[key].facts
            if facts.engine == engine:
                others = {name: fmean(v) for name, v in hits.get(facts.cell, {}).items() if name != engine}
                best = max(others.items(), key=lambda pair: pair[1], default=None)
                own.append((facts.cell, facts.record_id, dataclasses.replace(one, best=best)))
        found.append(of_engine(engine, kinds.get(engine, ""), own))
    return tuple(found)


def of_engine(engine: str, kind: str, blocks: Sequence[tuple[str, str, Seen]]) -> EngineFindings:
    """What shows in one engine.

    Args:
        engine: its name.
        kind: what engine it is.
        blocks: of each its cell, its record id, and what is known of it.
    """
    found = []
    for mechanism in MECHANISMS:
        shown: dict[str, list[tuple[str, Figures]]] = {}
        for cell, block, seen in blocks:
            evidence = None if mechanism.mostly and seen.disturbed else mechanism.look(seen)
            if evidence is not None:
                shown.setdefault(cell, []).append((block, evidence))
        places = []
        for cell in in_order(shown):
            of = sum(name == cell and not (mechanism.mostly and seen.disturbed) for name, _, seen in blocks)
            if not mechanism.mostly or 2 * len(shown[cell]) > of:
                evidence = _together([figures_ for _, figures_ in shown[cell]], mechanism.adds)
                ids = tuple(block for block, _ in shown[cell])
                places.append(Place(cell, ids, of, evidence, mechanism.words(evidence)))
        if places:
            found.append(Finding(mechanism.name, mechanism.title, mechanism.page(kind), tuple(places)))
    read = sum(seen.samples is not None for _, _, seen in blocks)
    return EngineFindings(engine, len(blocks), read, tuple(found))


def _together(evidence: Sequence[Figures], adds: Iterable[str]) -> Figures:
    """The evidence of several blocks: the sum of what adds up, of the rest the mean over those that tell it."""
    names = dict.fromkeys(name for figures_ in evidence for name in figures_)
    values = {name: [figures_[name] for figures_ in evidence if name in figures_] for name in names}
    return {name: float(sum(told) if name in adds else fmean(told)) for name, told in values.items()}


def _kind(facts: EngineFacts, run: RunData, samples: Mapping[str, BlockSamples]) -> str:
    """What engine it is; of one that did not say so, by the figures that only one kind has."""
    if facts.kind != GENERIC:
        return facts.kind
    own = (block.facts.record_id for block in run.blocks if block.facts.engine == facts.name)
    names = {name for block in own if block in samples for name in samples[block].names}
    return next((kind for name, kind in ONLY_OF.items() if name in names), facts.kind)


def _seen(
    block: BlockData,
    kinds: Mapping[str, str],
    run: RunData,
    samples: Mapping[str, BlockSamples],
    scenario: Scenario | None,
) -> Seen | None:
    """What is known of a block; None where its cell cannot be read."""
    facts = block.facts
    cell, read = read_cell(facts.cell), samples.get(facts.record_id)
    if cell is None:
        return None
    sums = None if read is None else tally(block, read)
    return Seen(
        block.records,
        read,
        cell,
        () if scenario is None else scenario.load.script,
        kind=kinds.get(facts.engine, ""),
        asked=asked_of(run.manifest.scenario, facts.engine),
        own=None if sums is None else figures(sums),
        disturbed=facts.client_limited or facts.contended,
        shared_tokens=cell.shared_tokens if scenario is None else scenario.shared_tokens(cell),
    )
