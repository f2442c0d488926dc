"""What schedulers work on: a request in the engine, and what one step does with which requests."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.config import BatchingTiming

SAID = 1 << 32
"""Stands for the first token of an answer that nobody knows: equal prompts get equal answers, as greedy ones are."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One request in the engine. `generated` and `computed` (KV tokens) are as of the end of the newest step."""

    prompt: int
    output: int
    arrived: int
    owner: Any = None
    generated: int = 0
    computed: int = 0
    ids: list[int] = field(default_factory=list)
    """The prompt's token ids and then the answer's, for a scheduler with a prefix index; else empty."""
    answer: list[int] = field(default_factory=list)
    """Token ids that it will be given; where they end, `SAID` and on."""
    admitted: int = -1
    preemptions: int = 0
    cached: int = 0
    """Tokens that the index held when it was admitted last."""
    gone: bool = False
    """Nobody waits for it any more: it leaves when the next step is made up."""
    number: int = -1
    """By order of arrival, from 0."""
    table: list[Any] = field(default_factory=list)
    """Its KV blocks, as its scheduler names them."""
    indexed: int = 0
    """How many of those, from the first on, are in the index."""
    keys: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens known so far: the prompt's, and the answer's until now."""
        return self.prompt + self.generated

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed: 1 for a decode, more for a prefill."""
        return self.length - self.computed

    def say(self) -> None:
        """Take one more token."""
        if self.ids:
            done = self.generated
            self.ids.append(self.answer[done] if done < len(self.answer) else SAID + done)
        self.generated += 1


@dataclass(slots=True)
class Plan:
    """What one step does: who computes how many tokens, who came in or was sent out, how many blocks are copied."""

    chosen: list[tuple[Sequence, int]] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    swapped_blocks: int = 0
    idle_ns: int = 0
    """How long it took until anything could run."""


class Policy:
    """Queues, and what all schedulers do with them alike. One of its kind adds `plan` and keeps the blocks."""

    def __init__(self, cfg: BatchingTiming) -> None:
        self.cfg = cfg
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.swapped: list[Sequence] = []
        self.preemptions = 0
        self.expired: list[Sequence] = []
        """Those that have been here too long, for who owns them to end and take off."""
        self.waiting_limit = cfg.waiting_limit
        self.time_limit_s = cfg.time_limit_s
        self._arrived = 0

    @property
    def free_blocks(self) -> int:
        """Blocks that could be had now, those that are kept only for their content included."""
        raise NotImplementedError

    @property
    def free_swap_blocks(self) -> int:
        """Free blocks of host memory."""
        return self.cfg.swap_blocks

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self.waiting_limit is not None and len(self.waiting) >= self.waiting_limit

    def reset_prefixes(self) -> bool:
        """Empty the index of known prompts; False where that is refused, or there is no such thing."""
        return False

    def add(self, sequence: Sequence) -> None:
        """Queue an arrival. Arrivals must come in the order of `arrived`."""
        sequence.number = self._arrived
        self._arrived += 1
        self.waiting.append(sequence)

    def reap(self, now: int) -> None:
        """Let go of what has ended, of what nobody waits for, and of what has been here too long."""
        limit = None if self.time_limit_s is None else now - round(self.time_limit_s * 1e9)

        def leaves(sequence: Sequence) -> bool:
            over = sequence.gone or sequence.generated >= sequence.output
            if not over and limit is not None and sequence.arrived <= limit:
                self.expired.append(sequence)
                over = True
            if over:
                self.release(sequence)
            return over

        self.running = [s for s in self.running if not leaves(s)]
        if any(s.gone for s in self.waiting) or (limit is not None and self.waiting and self._oldest() <= limit):
            self.waiting = deque(s for s in self.waiting if not leaves(s))
        self.swapped = [s for s in self.swapped if not leaves(s)]

    def _oldest(self) -> int:
        return min(s.arrived for s in self.waiting)

    def release(self, sequence: Sequence) -> None:
        """Take a request's blocks from it; it may have none."""
        raise NotImplementedError

    def plan(self, now: int) -> Plan:
        """Decide what the step that begins at `now` does. Arrivals after `now` are left for later steps."""
        raise NotImplementedError

    def computed(self, plan: Plan) -> None:
        """Take note that a step's tokens have been computed."""
