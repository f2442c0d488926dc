"""Runs a scheduler without a clock: one call, one step, told as text that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence as Several

from simulator.batching import BatchingModel, Step
from simulator.config import BatchingTiming
from simulator.policies import Plan, Sequence


def request(
    name: str, prompt: int | list[int], output: int, *, arrived: int = 0, answer: Several[int] = ()
) -> Sequence:
    """Return a request; `prompt` is its length or its token ids."""
    ids = prompt if isinstance(prompt, list) else []
    return Sequence(len(ids) or int(prompt), output, arrived, owner=name, ids=list(ids), answer=list(answer))  # type: ignore[call-overload]


def told(plan: Plan) -> str:
    """Return a step in words: `A6 B1`, with those sent out before it as `-C`."""
    return " ".join([*(f"-{s.owner}" for s in plan.preempted), *(f"{s.owner}{n}" for s, n in plan.chosen)])


def drive(cfg: BatchingTiming, requests: Several[Sequence], *, most: int = 10_000) -> tuple[list[str], BatchingModel]:
    """Run requests to their end, each arriving at the step whose number is `arrived`; return the steps in words."""
    model = BatchingModel(cfg)
    todo, rows = list(requests), []
    for number in range(most):
        while todo and todo[0].arrived <= number:
            model.add(todo.pop(0))
        step: Step | None = model.step(number)
        if step is None and not todo:
            break
        rows.append("" if step is None else told(step.plan))
    return rows, model
