"""KsanaLLM's scheduler, of c451219 (src/ksana_llm/batch_scheduler/strategy/continuous_batching.cpp), planning each
step after the one before has ended, as it does by default.

A step takes the decoding queue, then swapped requests, then the waiting queue. What a request costs of the step's
budget is 1 for a decode, and for a prompt its whole length so far, cached or not. Each request has room for one token
more than it needs. The decode that finds no block is itself sent out, one at a time; while a swapped request waits to
come back, nothing new starts.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from simulator.policies.ksana_tree import PrefixTree
from simulator.policies.sequence import Plan, Policy, Sequence

if TYPE_CHECKING:
    from simulator.config import BatchingTiming

HEAD_ROOM = 2.0
"""Blocks that must stay free for each request of the step when another is launched or swapped in."""
WAITING_LIMIT = 1200
TIME_LIMIT_S = 600.0
BLOCKED_NS = 100_000_000
"""It looks again after so long when requests are there and none of them can run."""
IDLE_NS = 1_000_000


class KsanaPolicy(Policy):
    """Whole prompts unless `split_fuse_tokens` cuts each, swapping of the decode that fails, a radix tree of blocks.

    Copies to and from the host are done when the next step is made up. `swapped` is in the order in which requests
    come back: by number, the oldest first.
    """

    def __init__(self, cfg: BatchingTiming) -> None:
        super().__init__(cfg)
        caching = cfg.prefix_caching or cfg.split_fuse_tokens > 0
        self.tree = PrefixTree(cfg.kv_blocks, cfg.block_tokens, cfg.swap_blocks, caching=caching)
        self.split_fuse = cfg.split_fuse_tokens
        """Tokens of one prompt that a step takes, 0: all. Set to 0 for good when a decode finds no block."""
        self.returning: list[Sequence] = []
        self.leaving: list[Sequence] = []
        self.prefilling: set[Sequence] = set()
        """Waiting requests of which a part has been computed."""
        self._nothing_new = False
        if self.waiting_limit is None:
            self.waiting_limit = WAITING_LIMIT
        if self.time_limit_s is None:
            self.time_limit_s = TIME_LIMIT_S

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds, those on their way to the host left out."""
        return self.tree.usable

    @property
    def free_swap_blocks(self) -> int:
        """Free blocks of host memory."""
        return self.tree.host_free

    def reap(self, now: int) -> None:
        """Let go of what has ended, was given up, or has been here too long; not while it is being copied."""
        super().reap(now)
        self.prefilling &= set(self.waiting)

    def release(self, sequence: Sequence) -> None:
        """Take a request's blocks from it; what they hold stays in the tree until room is needed."""
        self.tree.release(sequence)

    def plan(self, now: int) -> Plan:
        """Decide what the step that begins at `now` does; while all that could run is being copied, wait for that."""
        plan = Plan()
        while True:
            self._nothing_new = False
            copied = bool(self.leaving)
            self._land()
            self._decode(plan)
            self._swap_in(plan, copied=copied)
            if not self._nothing_new:
                self._admit(plan, now)
            if plan.chosen or not (copied or self.leaving or self.returning):
                return plan
            plan.idle_ns += BLOCKED_NS if self.running or self.waiting else IDLE_NS

    def computed(self, plan: Plan) -> None:
        """Put the blocks that the step has filled into the tree."""
        for sequence, _ in plan.chosen:
            self.tree.fill(sequence)

    def _land(self) -> None:
        for sequence in self.returning:
            self.tree.swapped_in(sequence)
            self.running.append(sequence)
        self.returning.clear()

    def _decode(self, plan: Plan) -> None:
        allowed = self.running[: min(self.cfg.max_num_batched_tokens, self.cfg.max_num_seqs)]
        for sequence in allowed:
            while not self._grow(sequence):
                if self._stop_splitting(plan):
                    continue
                if self.leaving or len(self.running) < 2:
                    self._nothing_new = True  # It sits this step out.
                else:
                    self.running.remove(sequence)
                    self._send_out(sequence, plan)
                break
            else:
                plan.chosen.append((sequence, sequence.pending))

    def _grow(self, sequence: Sequence) -> bool:
        return self.tree.allocate(sequence, self.tree.more(sequence.length, len(sequence.table)), [])

    def _stop_splitting(self, plan: Plan) -> bool:
        """Give up split-fuse when a decode finds no block; whether that has freed some."""
        if not (self.split_fuse and self.waiting):
            return False
        self.split_fuse = 0
        halves = [sequence for sequence in self.waiting if sequence in self.prefilling]
        for sequence in halves:
            self.waiting.remove(sequence)
            self._recompute(sequence, plan)
        return bool(halves)

    def _send_out(self, sequence: Sequence, plan: Plan) -> None:
        if self.cfg.preemption == "swap":
            self._land()  # A swap-out waits for swap-ins under way.
            blocks = self.tree.swap_out(sequence)
            if blocks is not None:
                self._count(sequence, plan)
                plan.swapped_blocks += blocks
                self.leaving.append(sequence)
                return
        self._recompute(sequence, plan)

    def _recompute(self, sequence: Sequence, plan: Plan) -> None:
        self._count(sequence, plan)
        self.tree.release(sequence)
        self.prefilling.discard(sequence)
        sequence.computed = 0
        self.waiting.appendleft(sequence)

    def _count(self, sequence: Sequence, plan: Plan) -> None:
        sequence.preemptions += 1
        self.preemptions += 1
        plan.preempted.append(sequence)

    def _swap_in(self, plan: Plan, *, copied: bool) -> None:
        """Land what was sent out before (`copied`); then bring back the oldest, as long as there is head-room."""
        if copied:
            self.tree.swapped_out()
            self.swapped = sorted([*self.swapped, *self.leaving], key=lambda s: s.number)
            self.leaving.clear()
        if self.leaving or self._nothing_new:
            return
        while self.swapped:
            sequence = self.swapped[0]
            need = self.tree.missing(sequence) + self.tree.more(sequence.length, len(sequence.table))
            blocks = None
            if need + math.ceil(len(self.running) * HEAD_ROOM) <= self.tree.usable:
                blocks = self.tree.swap_in(sequence)
            if blocks is None:
                self._nothing_new = True
                return
            plan.swapped_blocks += blocks
            self.swapped.pop(0)
            self.returning.append(sequence)

    def _admit(self, plan: Plan, now: int) -> None:
        step_tokens = step_requests = batch = len(plan.chosen)
        started: list[Sequence] = []
        for sequence in self.waiting:
            if sequence.arrived > now:
                break
            matched = [] if sequence in self.prefilling else self.tree.match(sequence.ids)
            done = max(sequence.computed, len(matched) * self.cfg.block_tokens)
            length, last = sequence.length, True
            if self.split_fuse and length - done > self.split_fuse:
                length, last = done + self.split_fuse, False
            count = self.tree.more(length, len(sequence.table) + len(matched))
            # As in the engine, the request launched just before does not count for the head-room yet.
            head_room, batch = math.ceil(batch * HEAD_ROOM), step_requests
            # It never lets the budget be below the longest prompt, so one that is longer runs with no other.
            fits = step_tokens + length <= self.cfg.max_num_batched_tokens or not step_requests
            if not (
                fits
                and step_requests < self.cfg.max_num_seqs
                and count + head_room <= self.tree.usable_beside(matched)
                and self.tree.allocate(sequence, count, matched)
            ):
                break
            step_requests += 1
            step_tokens += length
            self._launch(sequence, plan, done, length, now)
            if last:
                started.append(sequence)
        for sequence in started:
            self.prefilling.discard(sequence)
            self.running.append(sequence)
        if started:
            left = set(started)
            self.waiting = deque(s for s in self.waiting if s not in left)

    def _launch(self, sequence: Sequence, plan: Plan, done: int, length: int, now: int) -> None:
        if sequence not in self.prefilling:
            sequence.cached = done
            plan.admitted.append(sequence)
            self.prefilling.add(sequence)
        if sequence.admitted < 0:
            sequence.admitted = now
        # A prompt that is known in full has no logits: its last token is computed again.
        sequence.computed = min(done, length - 1)
        plan.chosen.append((sequence, length - sequence.computed))
