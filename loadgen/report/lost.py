"""Blocks that an engine lost to failures: what is left may be its better ones, which a headline must not hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadgen.message import Message, counted, say
from loadgen.report.data import BlockView


def lost_words(blocks: Sequence[BlockView], most_errors: Mapping[str, float]) -> list[Message]:
    """Say of each engine that lost blocks to failures how many; `most_errors` is by engine, in the order to tell."""
    found = [_lost_words(blocks, engine, most) for engine, most in most_errors.items()]
    return [words for words in found if words is not None]


def _lost_words(blocks: Sequence[BlockView], engine: str, most_errors: float) -> Message | None:
    """Say how many blocks of an engine failed, or had too many failed requests; None where none did.

    Args:
        blocks: all attempts at all blocks of a run.
        engine: whose.
        most_errors: the share of failed requests beyond which a block decides nothing.
    """
    own = [block for block in blocks if block.engine == engine]
    every = {(block.cell, block.repeat) for block in own}
    ended = {(block.cell, block.repeat) for block in own if block.status == "complete"}
    broken = {(block.cell, block.repeat) for block in own if block.status == "failed"} - ended
    failing = {
        (block.cell, block.repeat)
        for block in own
        if block.status == "complete" and block.errors > most_errors * block.measured
    }
    lost = len(broken | failing)
    if not lost or lost == len(every):
        return None
    return say(
        "{engine} lost {lost} of {blocks} to failures of its own, so this speaks only of the others.",
        engine=engine,
        lost=lost,
        blocks=counted(len(every), "{count} block", "{count} blocks"),
    )
