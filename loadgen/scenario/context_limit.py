"""Leaves out the cells that an engine's context cannot hold, and says so."""

from __future__ import annotations

from loadgen.errors import UserError
from loadgen.message import Message, say
from loadgen.scenario.model import Cell, Scenario


def limit_context(scenario: Scenario, context: int | None, engine: str) -> tuple[Scenario, Message | None]:
    """Return the scenario without the cells that need more tokens than an engine serves, and what is to be told.

    They are left out for every engine: where one cannot run, there is nothing to compare.

    Raises:
        UserError: no cell fits.
    """
    if context is None:
        return scenario, None
    beyond = [cell for cell in scenario.cells() if scenario.tokens_needed(cell) > context]
    if not beyond:
        return scenario, None
    if len(beyond) == len(scenario.cells()):
        least = min(map(scenario.tokens_needed, beyond))
        raise UserError(
            f"Scenario {scenario.name!r} needs a context of {least} tokens or more; {engine} serves {context}."
        )
    limited = scenario.model_copy(update={"max_context": context})
    return limited, left_out_note(
        scenario, beyond, say("{engine} serves a context of {context} tokens", engine=engine, context=context)
    )


def left_out_note(scenario: Scenario, cells: list[Cell], why: Message) -> Message:
    """Say which cells are left out, and why."""
    needs = ", ".join(f"{cell.id} ({scenario.tokens_needed(cell)} tokens)" for cell in cells[:4])
    if len(cells) > 4:
        needs = say("{some} and {last}", some=needs, last=say("{count} more", count=len(cells) - 4))
    return say("Left out for all engines, because {why}: {cells}.", why=why, cells=needs)
