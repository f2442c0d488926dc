"""Continuous batching as a pure function of arrivals: no clock, no I/O, the same answer each time.

Which request is in a step is up to a scheduler (`simulator.policies`); how long a step takes and when its tokens are
due follows here. All times are integer nanoseconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.config import BatchingTiming
from simulator.policies import POLICIES, Plan, Policy, Sequence

__all__ = ["BatchingModel", "Sequence", "Step", "step_ns"]


@dataclass(slots=True)
class Step:
    """One step: its interval, what it worked on, and who has a new token at its end, in the order of emission."""

    start: int
    end: int = 0
    prefill_tokens: int = 0
    decode_sequences: int = 0
    context_tokens: int = 0
    swapped_blocks: int = 0
    plan: Plan = field(default_factory=Plan)
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
    plan_us = cfg.plan_ms * 1000
    return round((max(micros, plan_us) if cfg.plan_ahead else micros + plan_us) * 1000)


class BatchingModel:
    """An engine: a scheduler and the time its steps take.

    Call `add` at arrivals and `step` at each step's end, or at an arrival when idle.
    """

    def __init__(self, cfg: BatchingTiming, slow_down: Callable[[int], float] = lambda now: 1.0) -> None:
        """`slow_down(now)` multiplies every step's length (drift)."""
        self.cfg = cfg
        self.policy: Policy = POLICIES[cfg.policy or "vllm"](cfg)
        self._slow_down = slow_down
        self._emitter_free = 0
        self._gap = round(cfg.emit_gap_us * 1000)

    def fits(self, prompt: int, output: int) -> bool:
        """Whether a request of this size could ever run alone."""
        return -(-(prompt + output) // self.cfg.block_tokens) <= self.cfg.kv_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue an arrival. Arrivals must come in the order of `arrived`."""
        self.policy.add(sequence)

    @property
    def usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return 1 - self.policy.free_blocks / self.cfg.kv_blocks

    def step(self, start: int) -> Step | None:
        """Make up the step that begins at `start`, the end of the one before or an arrival. None: nothing to do.

        Arrivals after `start` are left for later steps, so it may be called late without changing the outcome.
        """
        self.policy.reap(start)
        plan = self.policy.plan(start)
        if not plan.chosen:
            return None
        step = Step(start, swapped_blocks=plan.swapped_blocks, plan=plan)
        for sequence, tokens in plan.chosen:
            if sequence.generated and sequence.pending == 1:
                step.decode_sequences += 1
                step.context_tokens += sequence.computed
            else:
                step.prefill_tokens += tokens
            sequence.computed += tokens
        self.policy.computed(plan)
        for sequence, _ in plan.chosen:
            if not sequence.pending:
                sequence.say()
                step.outputs.append(sequence)
        length = step_ns(self.cfg, step.prefill_tokens, step.decode_sequences, step.context_tokens, step.swapped_blocks)
        step.end = start + plan.idle_ns + max(1, round(length * self._slow_down(start)))
        first = max(step.end, self._emitter_free)
        step.due = [first + k * self._gap for k in range(len(step.outputs))]
        if step.outputs:
            self._emitter_free = step.due[-1] + self._gap
        return step
