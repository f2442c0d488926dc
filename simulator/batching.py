"""Continuous batching as a pure function of arrivals: no clock, no I/O, the same answer each time.

The scheduler is the one that vLLM's V1 engine uses (running sequences first, each with one token or a chunk of its
prompt; then swapped, then waiting ones, first come first served; the last admitted is preempted first). All times are
integer nanoseconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulator.config import BatchingTiming


@dataclass(slots=True, eq=False)
class Sequence:
    """One request in the engine. `generated` and `computed` (KV tokens) are as of the end of the newest step."""

    prompt: int
    output: int
    arrived: int
    owner: Any = None
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    swapped_blocks: int = 0
    admitted: int = -1
    preemptions: int = 0
    gone: bool = False
    """Nobody waits for it any more: it leaves when the next step is made up."""

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed: 1 for a decode, more for a prefill."""
        return self.prompt + self.generated - self.computed


@dataclass(slots=True)
class Step:
    """One step: its interval, what it worked on, and who has a new token at its end, in the order of emission."""

    start: int
    end: int = 0
    prefill_tokens: int = 0
    decode_sequences: int = 0
    context_tokens: int = 0
    swapped_blocks: int = 0
    preempted: int = 0
    outputs: list[Sequence] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    """When each output's event is due: `end` and then one emit gap apart, never before the emission of earlier ones."""


def step_ns(
    cfg: BatchingTiming, prefill_tokens: int, decode_sequences: int, context_tokens: int, swapped_blocks: int = 0
) -> int:
    """Return how long a step takes, in ns, before drift."""
    micros = (
        cfg.base_ms * 1000
        + cfg.prefill_us_per_token * prefill_tokens
        + cfg.decode_us_per_sequence * decode_sequences
        + cfg.kv_us_per_token * context_tokens
        + cfg.swap_us_per_block * swapped_blocks
    )
    return round(micros * 1000)


class BatchingModel:
    """The engine's queues and KV blocks. Call `add` at arrivals and `step` at each step's end, or at one when idle."""

    def __init__(self, cfg: BatchingTiming, slow_down: Callable[[int], float] = lambda now: 1.0) -> None:
        """`slow_down(now)` multiplies every step's length (drift)."""
        self.cfg = cfg
        self.waiting: deque[Sequence] = deque()
        self.swapped: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.free_blocks = cfg.kv_blocks
        self.free_swap_blocks = cfg.swap_blocks
        self.preemptions = 0
        self._slow_down = slow_down
        self._emitter_free = 0
        self._gap = round(cfg.emit_gap_us * 1000)

    def fits(self, prompt: int, output: int) -> bool:
        """Whether a request of this size could ever run alone."""
        return self._blocks_for(prompt + output) <= self.cfg.kv_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue an arrival. Arrivals must come in the order of `arrived`."""
        self.waiting.append(sequence)

    @property
    def usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return 1 - self.free_blocks / self.cfg.kv_blocks

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.cfg.block_tokens)

    def _release(self, sequence: Sequence) -> None:
        self.free_blocks += sequence.blocks
        self.free_swap_blocks += sequence.swapped_blocks
        sequence.blocks = sequence.swapped_blocks = 0

    def _reap(self) -> None:
        def stays(sequence: Sequence) -> bool:
            if sequence.gone or sequence.generated >= sequence.output:
                self._release(sequence)
                return False
            return True

        self.running = [s for s in self.running if stays(s)]
        for name in ("waiting", "swapped"):
            queue: deque[Sequence] = getattr(self, name)
            if any(s.gone for s in queue):
                setattr(self, name, deque(s for s in queue if stays(s)))

    def _preempt(self, victim: Sequence, step: Step) -> None:
        victim.preemptions += 1
        self.preemptions += 1
        step.preempted += 1
        if self.cfg.preemption == "swap" and victim.blocks <= self.free_swap_blocks:
            blocks = victim.blocks
            self._release(victim)
            victim.swapped_blocks = blocks
            self.free_swap_blocks -= blocks
            step.swapped_blocks += blocks
            self.swapped.appendleft(victim)
        else:
            self._release(victim)
            victim.computed = 0
            self.waiting.appendleft(victim)

    def _allocate(self, sequence: Sequence, tokens: int) -> bool:
        need = self._blocks_for(sequence.computed + tokens) - sequence.blocks
        if need > self.free_blocks:
            return False
        self.free_blocks -= need
        sequence.blocks += need
        return True

    def _schedule_running(self, step: Step, budget: int) -> tuple[list[tuple[Sequence, int]], int]:
        chosen: list[tuple[Sequence, int]] = []
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            tokens = min(sequence.pending, budget)
            while not (fitted := self._allocate(sequence, tokens)):
                victim = self.running.pop()
                self._preempt(victim, step)
                if victim is sequence:
                    break
            if not fitted:
                break
            chosen.append((sequence, tokens))
            budget -= tokens
            index += 1
        return chosen, budget

    def _admit(self, step: Step, chosen: list[tuple[Sequence, int]], budget: int) -> None:
        for queue, swapped in ((self.swapped, True), (self.waiting, False)):
            while queue and budget > 0 and len(self.running) < self.cfg.max_num_seqs:
                sequence = queue[0]
                if sequence.arrived > step.start:
                    return
                tokens = min(sequence.pending, budget)
                if tokens < sequence.pending and not self.cfg.chunked_prefill:
                    if chosen:
                        return
                    tokens = sequence.pending  # A prompt longer than the budget runs in a step of its own.
                if not self._allocate(sequence, tokens):
                    return
                queue.popleft()
                if swapped:
                    step.swapped_blocks += sequence.swapped_blocks
                    self.free_swap_blocks += sequence.swapped_blocks
                    sequence.swapped_blocks = 0
                if sequence.admitted < 0:
                    sequence.admitted = step.start
                self.running.append(sequence)
                chosen.append((sequence, tokens))
                budget -= tokens
            if queue and swapped:
                return  # What was swapped out comes back before anything new starts.

    def step(self, start: int) -> Step | None:
        """Make up the step that begins at `start`, the end of the one before or an arrival. None: nothing to do.

        Arrivals after `start` are left for later steps, so it may be called late without changing the outcome.
        """
        self._reap()
        step = Step(start)
        chosen, budget = self._schedule_running(step, self.cfg.max_num_batched_tokens)
        if not step.preempted:
            self._admit(step, chosen, budget)
        if not chosen:
            return None
        for sequence, tokens in chosen:
            if sequence.generated and sequence.pending == 1:
                step.decode_sequences += 1
                step.context_tokens += sequence.computed
            else:
                step.prefill_tokens += tokens
            sequence.computed += tokens
            if sequence.computed == sequence.prompt + sequence.generated:
                sequence.generated += 1
                step.outputs.append(sequence)
        length = step_ns(self.cfg, step.prefill_tokens, step.decode_sequences, step.context_tokens, step.swapped_blocks)
        step.end = start + max(1, round(length * self._slow_down(start)))
        first = max(step.end, self._emitter_free)
        step.due = [first + k * self._gap for k in range(len(step.outputs))]
        if step.outputs:
            self._emitter_free = step.due[-1] + self._gap
        return step
