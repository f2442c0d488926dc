"""Blocks that something else on the machine disturbed: how many, by what, and whether it hit one engine more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadgen.contention.reading import Contention
from loadgen.contention.rule import over_blocks, words
from loadgen.message import Message, counted, joined, say
from loadgen.report.data import BlockView

MOST_FINDINGS = 3
WORTH_A_FACT = 0.1
"""Share of the blocks that must be disturbed for the headline to speak of it."""


def shared_fact(blocks: Sequence[BlockView]) -> list[Message]:
    """For the headline: the gravest finding and its number of blocks; empty where few blocks were disturbed."""
    looked = _looked_at(blocks)
    disturbed = {block.record_id: block for block, reading in looked if reading.findings}
    if len(disturbed) < max(1, WORTH_A_FACT * len(looked)):
        return []
    finding, count = over_blocks([reading for _, reading in looked])[0]
    by_engine = Counter(block.engine for block in disturbed.values())
    engines = list(dict.fromkeys(block.engine for block, _ in looked))
    shares = [say("{engine} {count}", engine=engine, count=by_engine[engine]) for engine in engines]
    text = say(
        "The machine was shared: {what} in {count} of {blocks}",
        what=words(finding, upto=count > 1),
        count=count,
        blocks=counted(len(looked), "{count} block", "{count} blocks"),
    )
    if len(engines) < 2:
        return [say("{text}.", text=text)]
    return [say("{text} (disturbed blocks: {shares}).", text=text, shares=joined("{a}, {b}", shares))]


def shared_notice(blocks: Sequence[BlockView]) -> list[Message]:
    """All kinds of findings, each with its number of blocks; empty where there are none."""
    looked = _looked_at(blocks)
    found = over_blocks([reading for _, reading in looked])[:MOST_FINDINGS]
    if not found:
        return []
    each = [
        say("{what} in {count} of {all} blocks", what=words(finding, upto=count > 1), count=count, all=len(looked))
        for finding, count in found
    ]
    return [say("The machine was shared: {findings}.", findings=joined("{a}; {b}", each))]


def _looked_at(blocks: Sequence[BlockView]) -> list[tuple[BlockView, Contention]]:
    """The blocks in the figures whose machine was watched."""
    return [(block, block.contention) for block in blocks if block.used and block.contention is not None]
