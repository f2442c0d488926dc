"""Random loads for schedulers, and what the simulator's does with one, step by step."""

from __future__ import annotations

import random
from typing import Any

from simulator.batching import BatchingModel
from simulator.config import BatchingTiming
from simulator.policies import Sequence

Case = dict[str, Any]
"""`settings` of the scheduler, and `requests`: the step before which each arrives, its prompt's and answer's tokens."""
Trace = list[list[Any]]
"""By step: [request, tokens] in the order scheduled, those admitted, those sent back, and how many blocks are held."""
LONGEST = 400


def case(seed: int, *, caching: bool, chunking: bool, tight: bool, requests: int = 60) -> Case:
    """Make up a load: prompts that share beginnings, some equal, in bursts and alone. `tight`: blocks run out."""
    rng = random.Random(f"{seed} {caching} {chunking} {tight}")
    size = rng.choice([2, 4, 8, 16])
    stems = [[rng.randrange(3, 1000) for _ in range(rng.randint(0, 150))] for _ in range(6)]
    step, asked = 0, []
    for _ in range(requests):
        step += rng.choice([0, 0, 0, 1, 2, 5, 20])
        stem = rng.choice(stems)
        own = [rng.randrange(3, 1000) for _ in range(rng.choice([0, 1, rng.randint(1, 60)]))]
        prompt = (stem[: rng.choice([len(stem), rng.randint(0, len(stem))])] + own) or [3]
        # As a model that is asked greedily would, equal prompts are mostly answered alike.
        words = random.Random(str(prompt) if rng.random() < 0.8 else rng.random())
        answer = [words.randrange(3, 1000) for _ in range(rng.randint(1, 90))]
        asked.append({"step": step, "prompt": prompt, "answer": answer})
    longest = -(-max(len(each["prompt"]) + len(each["answer"]) for each in asked) // size)
    settings = {
        "block_tokens": size,
        "kv_blocks": longest + rng.randint(0, longest) if tight else 40 * longest,
        "max_num_seqs": rng.choice([3, 8, 32]),
        "max_num_batched_tokens": rng.randint(17, 200) if chunking else rng.randint(LONGEST, 2 * LONGEST),
        "chunked_prefill": chunking,
        "prefix_caching": caching,
    }
    # vLLM wants room for at least as many tokens as may run at once.
    settings["max_num_batched_tokens"] = max(settings["max_num_batched_tokens"], settings["max_num_seqs"])
    return {"settings": settings, "longest": LONGEST, "requests": asked}


def cases(seeds: range, requests: int = 60) -> list[Case]:
    """Every way to set caching, chunking and the number of blocks, with each seed."""
    return [
        case(seed, caching=bool(ways & 1), chunking=bool(ways & 2), tight=bool(ways & 4), requests=requests)
        for seed in seeds
        for ways in range(8)
    ]


def simulated(load: Case, policy: str) -> Trace:
    """Return what a scheduler of the simulator does with a load."""
    model = BatchingModel(BatchingTiming(policy=policy, **load["settings"]))
    todo = [
        Sequence(len(each["prompt"]), len(each["answer"]), each["step"], number, ids=list(each["prompt"]),
                 answer=each["answer"])
        for number, each in enumerate(load["requests"])
    ]  # fmt: skip
    trace: Trace = []
    number = 0
    left = len(todo)
    while left:
        while todo and todo[0].arrived <= number:
            model.add(todo.pop(0))
        step = model.step(number)
        number += 1
        if step is None:
            continue
        left -= sum(sequence.generated >= sequence.output for sequence in step.outputs)
        plan = step.plan
        trace.append([
            [[sequence.owner, tokens] for sequence, tokens in plan.chosen],
            [sequence.owner for sequence in plan.admitted],
            sorted(sequence.owner for sequence in plan.preempted),
            model.cfg.kv_blocks - model.policy.free_blocks,
        ])  # fmt: skip
    return trace


def first_difference(ours: Trace, theirs: Trace) -> str | None:
    """Return where two traces part, or None."""
    for number, (mine, real) in enumerate(zip(ours, theirs, strict=False)):
        for what, one, other in zip(("tokens", "admitted", "sent back", "blocks"), mine, real, strict=True):
            if one != other:
                return f"step {number}, {what}: {one} here, {other} there"
    if len(ours) != len(theirs):
        return f"{len(ours)} steps here, {len(theirs)} there"
    return None
