"""A simulated user that holds conversations: the history grows from turn to turn, with time to think in between."""

from __future__ import annotations

import random
import time

from loadgen.scenario.shapes import Conversation
from loadgen.traffic.block import ClosedLoopUser, Traffic
from loadgen.traffic.open_loop import wait_until


class ChatUser(ClosedLoopUser):
    """Plays one conversation after the other; the next turn comes when the answer has ended and been thought about.

    A conversation is one long text, and turn k's prompt is its beginning, as long as all that was said by then: so each
    prompt opens with the one before it, as with a real history, and has the same tokens on every engine.
    """

    def __init__(self, traffic: Traffic, conversation: Conversation) -> None:
        super().__init__(traffic)
        self._conversation = conversation
        self._pauses = random.Random(f"think/{self.plan.seed}/{self._ordinal}")
        self._started = 0
        """Conversations before this one."""
        # Users begin at different turns, as if they had been at it for long: else all histories would grow in step.
        self._turn = self._ordinal % conversation.turns
        self._due: int | None = None

    def send(self) -> None:
        """Think, and send the next turn."""
        due = self._due
        if due is not None:
            wait_until(due)
        chat, cell = self._conversation, self.plan.cell
        length = chat.prompt_tokens(cell.prompt_tokens, cell.output_tokens, self._turn)
        number = self._started * cell.concurrency + self._ordinal
        self._turn += 1
        if self._turn == chat.turns:
            self._turn, self._started = 0, self._started + 1
        self._send(self._traffic.factory.prompt(number, length), length, due)
        # From here, not from the answer's end: what this process needs in between is no thought of the user's, and
        # where there is no pause the request is sent as in any closed loop.
        self._due = time.monotonic_ns() + round(self._pause_s() * 1e9) if chat.think_s else None

    def _pause_s(self) -> float:
        chat = self._conversation
        return chat.think_s if chat.think == "fixed" else self._pauses.expovariate(1 / chat.think_s)


def closed_loop_user(traffic: Traffic) -> ClosedLoopUser:
    """A new user for the block."""
    conversation = traffic.plan.cell.conversation
    return ClosedLoopUser(traffic) if conversation is None else ChatUser(traffic, conversation)
