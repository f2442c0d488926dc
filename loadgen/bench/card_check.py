"""Whether the stack's cards and the model's shape allow the sizes that a scenario asks for: asked before any start."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.bench.running_stack import RunningStack
from loadgen.endpoints.seats import Seat
from loadgen.engines.model_config import read_config
from loadgen.hosts.cards import choose_cards
from loadgen.scenario.model import Scenario


def check_cards(scenario: Scenario, stack: RunningStack, seats: Sequence[Seat]) -> list[str]:
    """What a person should know of the cards. Raises UserError, with the sizes that would do, where one cannot be."""
    notes: list[str] = []
    for seat in seats:
        cards, block = stack.cards.get(seat.stack_name), scenario.serving_of(seat.name)
        if cards is not None:
            config = read_config(stack.model_dirs.get(seat.stack_name, ""))
            notes.append(choose_cards(cards, block.asked() if block is not None else {}, stack.gpus, config).note)
    return [note for note in dict.fromkeys(notes) if note]
