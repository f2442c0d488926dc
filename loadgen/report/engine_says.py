"""What the engines say of themselves, by cell, and what that explains; docs/metrics.md has the rules.

It also tells which blocks did not meet cold caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from loadgen.explain import EngineFindings
from loadgen.message import Message, counted, say
from loadgen.monitoring.engine_figures import EngineFigures, figures, tally
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.monitoring.tally import Tally
from loadgen.presentation.text import cell_words, number, percent
from loadgen.report.cells import CellView
from loadgen.runs.folder import RunData
from loadgen.runs.manifest import Manifest
from loadgen.scenario.cell import Cell, read_cell
from loadgen.scenario.model import Scenario

EXPLAINED_SHARE, EXPLAINED_MS = 0.1, 2.0
"""An engine's own TTFT explains the client's within this share of it, or so many ms."""
OTHERS_SHARE = 0.2
"""Tokens beyond the client's that say that others used the engine too."""
WARM = 0.1
"""Share of the prompts beyond what they have in common that a cold cache cannot have had."""
MOST_WARM = 3
"""Blocks with warm caches that are told one by one where there are more."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine's own figures in one cell."""

    cell: str
    engine: str
    figures: EngineFigures
    why: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class WarmBlock:
    """A block whose prompts were in the prefix cache already."""

    block: str
    engine: str
    cell: str
    repeat: int
    hits: float
    """Share of the prompts' tokens that the cache had."""
    allowed: float
    """Share that all prompts have in common."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSays:
    """All of it."""

    rows: Sequence[EngineRow] = ()
    blocks: Mapping[str, EngineFigures] = dataclasses.field(default_factory=dict)
    """By record id."""
    warm: Sequence[WarmBlock] = ()


def engine_says(
    run: RunData,
    views: Sequence[CellView],
    samples: Mapping[str, BlockSamples],
    scenario: Scenario | None,
    explained: Sequence[EngineFindings],
) -> EngineSays:
    """Work out figures and reasons; empty without samples.

    Args:
        run: the run.
        views: its cells, with the blocks that count.
        samples: what was read of the engines' metrics, by block.
        scenario: the run's, where it can be read.
        explained: the mechanisms that show.
    """
    by_engine = {found.engine: found for found in explained}
    tallies = {
        block.facts.record_id: found
        for block in run.blocks
        if block.facts.record_id in samples and (found := tally(block, samples[block.facts.record_id])) is not None
    }
    by_block = {block: figures(found) for block, found in tallies.items()}
    rows = [row for view in views for row in _cell_rows(view, tallies, by_engine)]
    warm = []
    for block in run.blocks:
        facts = block.facts
        hits = by_block[facts.record_id].prefix_hits if facts.record_id in by_block else None
        allowed = in_common(facts.cell, facts.engine, run.manifest, scenario)
        if hits is not None and allowed is not None and hits > allowed + WARM:
            warm.append(WarmBlock(facts.record_id, facts.engine, facts.cell, facts.repeat, hits, allowed))
    return EngineSays(rows, by_block, warm)


def in_common(cell_id: str, engine: str, manifest: Manifest, scenario: Scenario | None) -> float | None:
    """Share of each prompt that all prompts of a cell have in common; None where that differs from request to request.

    It is the shared prefix and what the endpoint puts around every prompt (its chat template).
    """
    cell = read_cell(cell_id)
    if cell is None or cell.conversation is not None or cell.prefixes is not None or cell.trace:
        return None
    shared = scenario.shared_tokens(cell) if scenario is not None else cell.shared_tokens
    facts = next((facts for facts in manifest.engines if facts.name == engine), None)
    overhead = facts.prompts.get("overhead_tokens") if facts is not None else 0
    around = overhead if isinstance(overhead, int) and overhead > 0 else 0
    return min(1.0, (shared + around) / cell.prompt_tokens)


def warm_words(warm: Sequence[WarmBlock]) -> Iterator[Message]:
    """Which blocks did not meet cold caches, in words."""
    told = warm if len(warm) <= MOST_WARM + 1 else warm[:MOST_WARM]
    for block in told:
        yield say(
            "{engine} at {cell} (repeat {repeat}) did not meet cold caches: its prefix cache had {hits} of the "
            "prompts' tokens, of which {allowed} are the same in all. Its TTFT is that of prompts that it had seen.",
            engine=block.engine,
            cell=cell_words(block.cell),
            repeat=block.repeat,
            hits=percent(block.hits),
            allowed=percent(block.allowed),
        )
    if len(told) < len(warm):
        more = counted(len(warm) - len(told), "{count} block", "{count} blocks")
        yield say("{more} more did not meet cold caches. See “What the engines say of themselves”.", more=more)


def _cell_rows(
    view: CellView, tallies: Mapping[str, Tally], explained: Mapping[str, EngineFindings]
) -> Iterator[EngineRow]:
    """Of the blocks that are in a cell's figures, those that were read."""
    for engine, entry in view.engines.items():
        own = [tallies[block] for block in entry.blocks if block in tallies]
        if own:
            total = reduce(Tally.plus, own)
            told, shown = figures(total), explained[engine].words(view.id) if engine in explained else []
            yield EngineRow(view.id, engine, told, tuple(_why(told, view.cell, shown, total.restarted)))


def _why(own: EngineFigures, cell: Cell | None, shown: Sequence[str], restarted: bool) -> Iterator[str]:
    """What an engine's figures explain, in words: the mechanisms that show, and where its TTFT went."""
    if restarted:
        yield say("it was started anew meanwhile, so that its counters tell nothing")
    yield from shown
    yield from _others(own, cell)
    yield from _explains(own)


def _others(own: EngineFigures, cell: Cell | None) -> Iterator[Message]:
    """Requests in flight at the window's ends may be counted by one side only."""
    if own.output_tokens is None or own.client_output_tokens is None or cell is None:
        return
    slack = own.blocks * (cell.streams or 2) * cell.output_tokens
    if own.output_tokens - own.client_output_tokens > max(OTHERS_SHARE * own.client_output_tokens, slack):
        yield say(
            "it made {own} tokens while the client got {ours}: others used it too",
            own=number(own.output_tokens),
            ours=number(own.client_output_tokens),
        )


def _explains(own: EngineFigures) -> Iterator[Message]:
    if own.residual_ms is None or own.client_ttft_ms is None:
        return
    if abs(own.residual_ms) <= max(EXPLAINED_MS, EXPLAINED_SHARE * own.client_ttft_ms):
        yield say("its own TTFT explains the client's")
    elif own.residual_ms > 0:
        yield say(
            "{residual} ms of the client's TTFT are not in its own: its front end, the network or the client took them",
            residual=number(own.residual_ms),
        )
    else:
        yield say(
            "its own TTFT is {residual} ms above the client's: it is not of the same requests",
            residual=number(-own.residual_ms),
        )
