"""vLLM's V1 scheduler, of 0.32.0 (v1/core/sched/scheduler.py), for one model with full attention.

A step has one budget of tokens that are computed. Running requests come first, in the order in which they were
admitted, each with what it lacks; if blocks run out, the last admitted is sent back to the head of the queue and loses
all it had. In a step without such a preemption, waiting requests are admitted, first come first served, while their
whole sequence fits into the free blocks; the last gets what is left of the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.policies.sequence import Plan, Policy, Sequence
from simulator.policies.vllm_blocks import BlockPool

if TYPE_CHECKING:
    from simulator.config import BatchingTiming


class VllmPolicy(Policy):
    """Chunked prefill by step, preemption of the last admitted by recomputation, an index that forgets the oldest."""

    def __init__(self, cfg: BatchingTiming) -> None:
        super().__init__(cfg)
        self.pool = BlockPool(cfg.kv_blocks, cfg.block_tokens, caching=cfg.prefix_caching)

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return self.pool.free

    def release(self, sequence: Sequence) -> None:
        """Take a request's blocks from it; what they hold stays in the index until they are handed out again."""
        self.pool.release(sequence)

    def reset_prefixes(self) -> bool:
        """Forget what no request holds; False where one holds blocks, which vLLM refuses too."""
        return self.pool.reset()

    def plan(self, now: int) -> Plan:
        """Decide what the step that begins at `now` does."""
        plan = Plan()
        budget = self._run(plan, self.cfg.max_num_batched_tokens)
        if not plan.preempted:
            self._admit(plan, budget, now)
        return plan

    def _run(self, plan: Plan, budget: int) -> int:
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            tokens = min(sequence.pending, budget)
            while not (fits := self.pool.take(sequence, sequence.computed + tokens, [])):
                victim = self.running.pop()
                self._preempt(victim, plan)
                if victim is sequence:
                    break
            if not fits:
                break
            plan.chosen.append((sequence, tokens))
            budget -= tokens
            index += 1
        return budget

    def _preempt(self, victim: Sequence, plan: Plan) -> None:
        self.pool.release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        plan.preempted.append(victim)
        self.waiting.appendleft(victim)

    def _admit(self, plan: Plan, budget: int, now: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.cfg.max_num_seqs:
            sequence = self.waiting[0]
            if sequence.arrived > now:
                return
            hits = self.pool.hits(sequence)
            done = max(sequence.computed, len(hits) * self.cfg.block_tokens)
            tokens = min(sequence.length - done, budget)
            if done + tokens < sequence.length and not self.cfg.chunked_prefill:
                if plan.chosen:
                    return
                tokens = sequence.length - done  # vLLM itself refuses a budget below the longest prompt.
            if self.pool.needed(sequence, sequence.length, hits) > self.pool.free:
                return
            self.pool.take(sequence, done + tokens, hits)
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.computed = sequence.cached = done
            if sequence.admitted < 0:
                sequence.admitted = now
            plan.admitted.append(sequence)
            plan.chosen.append((sequence, tokens))
            budget -= tokens
