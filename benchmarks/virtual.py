"""A scenario on the simulator's schedulers in virtual time: the very prompts and moments of a race, and no process.

What comes out is what a race leaves behind: records, and what the engine's counters say.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.explain.block_figures import Seen
from loadgen.monitoring.engine_figures import figures, tally
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.record import RequestRecord, TpotBasis, int64s
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.cell import Cell
from loadgen.scenario.model import Scenario
from loadgen.scenario.script import script_trace
from loadgen.scenario.serving import Serving
from loadgen.traffic.arrivals import arrival_offsets_ns
from loadgen.traffic.plan import BlockPlan
from simulator.batching import BatchingModel, Sequence, Step
from simulator.config import BatchingTiming

PART_TOKENS = 512
"""What KsanaLLM's launcher has prompts cut to where `chunked_prefill` is asked for."""
SPEED: Mapping[str, Any] = {
    "base_ms": 2.7,
    "prefill_us_per_token": 2,
    "decode_us_per_sequence": 20,
    "kv_us_per_token": 0,
    "plan_ms": 0.7,
}
"""Steps about as long as those of a small model on an H200."""
COUNTED = (
    *("queries", "hits", "recomputed", "swapped", "steps", "ttft_s", "ttft_n", "queue_s", "queue_n"),
    *("prompt_tokens", "output_tokens"),
)
COUNTED_BY_STEP = ("running_sum", "running_n", "waiting_sum", "waiting_n")
READ_NS = 250_000_000
RECIPE = PromptRecipe("ids", 0, tuple(str(number) for number in range(1000, 3000)))


def batching_settings(kind: str, serving: Serving) -> dict[str, Any]:
    """The simulator's `batching` keys that a `serving:` block becomes; without `kv_cache_tokens` the cache is large.

    Of vLLM's blocks one is never handed out.
    """
    size = serving.kv_block_size or 16
    blocks = (serving.kv_cache_tokens or 1 << 22) // size
    keys = {
        "policy": kind,
        "block_tokens": size,
        "kv_blocks": blocks - (kind == "vllm"),
        "max_num_seqs": serving.max_batch_size,
        "max_num_batched_tokens": serving.max_tokens_per_step,
        "prefix_caching": serving.prefix_caching,
        "plan_ahead": serving.async_scheduling,
    }
    if kind == "vllm":
        keys["chunked_prefill"] = serving.chunked_prefill
    elif serving.chunked_prefill:
        keys["split_fuse_tokens"] = PART_TOKENS
    return {**SPEED} | {key: value for key, value in keys.items() if value is not None}


def play(scenario: Scenario, engine: str, kind: str, cell: Cell, settings: Mapping[str, Any] | None = None) -> Seen:
    """One block of a scenario on one policy (`vllm` or `ksana`), to the last answer.

    Args:
        scenario: a closed loop, batches, or a script.
        engine: its name in the race, for its serving settings.
        kind: whose scheduler.
        cell: which of the scenario's.
        settings: of `batching`, over those that the scenario asks for.
    """
    keys = batching_settings(kind, scenario.serving_of(engine) or Serving())
    model = BatchingModel(BatchingTiming(**{**keys, **(settings or {})}))
    return _Player(scenario, engine, kind, cell, model).run()


class _Player:
    def __init__(self, scenario: Scenario, engine: str, kind: str, cell: Cell, model: BatchingModel) -> None:
        script = scenario.load.script
        self.plan = BlockPlan(
            run_id="virtual",
            scenario=scenario.name,
            block=f"{kind}.{cell.id}.r1",
            engine=kind,
            cell=cell,
            requests=scenario.requests,
            warmup_requests=scenario.warmup,
            shared_prefix_tokens=scenario.shared_tokens(cell),
            seed="1",
            endpoint=Endpoint(kind, "vllm", "http://virtual", "virtual", "completions", None, None, None),
            recipe=RECIPE,
            trace=script_trace(script) if script else None,
        )
        self.asked = (scenario.serving_of(engine) or Serving()).asked()
        self.script, self.kind, self.cell, self.model = script, kind, cell, model
        self.factory = self.plan.prompt_factory()
        self.counters = dict.fromkeys((*COUNTED, *(COUNTED_BY_STEP if kind == "ksana" else ())), 0.0)
        self.rows: list[tuple[float, dict[str, float]]] = []
        self.scheduled: set[int] = set()
        self.records: list[RequestRecord] = []
        self.answers = itertools.count(1 << 24)

    def run(self) -> Seen:
        todo = [(at, number, 0) for number, at in enumerate(self._given())]
        total = len(todo) or self.cell.concurrency * self.plan.warmup_requests + (self.plan.requests or 0)
        numbers = iter(range(len(todo), total))
        if not todo:
            todo = [(0, next(numbers), user) for user in range(min(self.cell.concurrency, total))]
        heapq.heapify(todo)
        now = 0
        self._read(now)
        while True:
            while todo and todo[0][0] <= now:
                self._send(*heapq.heappop(todo))
            step = self.model.step(now)
            if step is None and not todo:
                break
            if step is None:
                now = todo[0][0]
                continue
            now = step.end
            for ended, user in self._take(step):
                if not self.plan.cell.open_loop and not self.cell.batch and (number := next(numbers, None)) is not None:
                    heapq.heappush(todo, (ended, number, user))
            if now >= self.rows[-1][0] * 1e9 + READ_NS:
                self._read(now)
        self._read(now)
        return self._seen()

    def _seen(self) -> Seen:
        samples, plan = BlockSamples(self.plan.block, self.rows), self.plan
        requests = {"warmup_requests": plan.warmup_requests, "measured_requests": plan.requests}
        arrivals = None if plan.trace is None else len(plan.trace.arrivals_ns)
        facts = BlockFacts.begun(plan.block, self.kind, self.cell, arrivals=arrivals, **requests)
        sums = tally(BlockData(facts, self.records, facts.cut_rule.cut(self.records)), samples)
        return Seen(
            self.records,
            samples,
            self.cell,
            self.script,
            kind=self.kind,
            asked=self.asked,
            own=None if sums is None else figures(sums),
            shared_tokens=plan.shared_prefix_tokens,
        )

    def _read(self, now: int) -> None:
        """Read the engine's page, as a race does while a block runs."""
        policy, gauges = self.model.policy, {}
        if self.kind == "vllm":
            gauges = {"running": float(len(policy.running)), "waiting": float(len(policy.waiting))}
            gauges["kv_used"] = self.model.usage
        self.rows.append((now / 1e9, {**self.counters, **gauges}))

    def _given(self) -> Iterator[int]:
        """The moments of an open loop, ns."""
        if self.plan.trace is not None:
            return iter(self.plan.trace.arrivals_ns)
        wanted = self.plan.warmup_requests + (self.plan.requests or 0) if self.cell.open_loop else 0
        return itertools.islice(arrival_offsets_ns("constant", self.cell.rate or 1.0, "1"), wanted)

    def _send(self, at: int, number: int, user: int) -> None:
        prompt, output = self.plan.lengths(number)
        which = self.plan.prompt_number(number)
        prefix = self.cell.prefixes.which(which) if self.cell.prefixes is not None else None
        ids = json.loads(self.factory.prompt(which, prompt, prefix))
        begun = next(self.answers) << 16
        record = RequestRecord(
            *("virtual", self.plan.block, self.kind, "virtual", self.cell.id, "completions", "virtual"),
            user=user, index=number, t_intended=at, t_send=at, t_done=at, wall_offset_ns=0,
            prompt_tokens_wanted=prompt, output_tokens_wanted=output, prompt_tokens=prompt, output_tokens=0,
            event_offsets_ns=int64s(), tpot_basis=TpotBasis.EVENTS,
        )  # fmt: skip
        self.records.append(record)
        self.model.add(Sequence(prompt, output, at, record, ids=ids, answer=list(range(begun, begun + output))))

    def _take(self, step: Step) -> Iterator[tuple[int, int]]:
        """Put down what a step did; yields when each request that it ended was answered, and its user."""
        count = self.counters
        count["steps"] += 1
        for one in step.plan.admitted:
            if one.number not in self.scheduled:
                self.scheduled.add(one.number)
                count["queue_s"] += (step.start - one.arrived) / 1e9
                count["queue_n"] += 1
        if self.kind == "ksana":
            # More than fit into a batch are not told, however many wait.
            waiting = min(len(self.model.policy.waiting), self.model.cfg.max_num_seqs)
            for name, value in zip(COUNTED_BY_STEP, (len(step.plan.chosen), 1, waiting, 1), strict=True):
                count[name] += value
        count["output_tokens"] += len(step.outputs)
        count["swapped" if step.swapped_blocks else "recomputed"] += len(step.plan.preempted)
        if self.kind == "vllm":
            first = [one for one in step.plan.admitted if not one.preemptions]
            count["queries"] += sum(one.prompt for one in first)
            count["hits"] += sum(one.cached for one in first)
        else:
            # Both prompts and answers but each one's first token are computed, unless the cache had them.
            count["hits"] -= step.prefill_tokens + step.decode_sequences
        for sequence, due in zip(step.outputs, step.due, strict=True):
            record: RequestRecord = sequence.owner
            if sequence.generated == 1:
                record.t_first = due
                count["ttft_s"] += (due - record.t_send) / 1e9
                count["ttft_n"] += 1
                count["prompt_tokens"] += sequence.prompt
                count["queries"] += sequence.prompt if self.kind == "ksana" else 0
                count["hits"] += sequence.prompt if self.kind == "ksana" else 0
            elif self.kind == "ksana":
                count["hits"] += 1
            record.event_offsets_ns.append(due - record.t_send)
            record.t_last = record.t_done = due
            record.output_tokens = record.events = sequence.generated
            record.tpot_tokens = sequence.generated - 1
            if sequence.generated >= sequence.output:
                yield due, record.user
