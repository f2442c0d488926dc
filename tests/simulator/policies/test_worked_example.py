"""The worked example of docs/engines/side-by-side.md, block by block."""

from __future__ import annotations

import pytest

from simulator.batching import BatchingModel
from simulator.config import BatchingTiming
from simulator.policies import KsanaPolicy, Sequence, VllmPolicy
from tests.simulator.policies.drive import drive, request, told

NAMES = {token: number for number, token in enumerate("pqabcdefghi", start=1)}


def prompt(*blocks: str, last: str) -> list[int]:
    """Return whole blocks of 4 tokens, each of one token four times, and one more token."""
    return [NAMES[token] for block in blocks for token in block * 4] + [NAMES[last]]


A, B, C = (prompt("p", "q", own, last=own) for own in "abc")
D, E = prompt("d", "e", "f", last="d"), prompt("g", "h", "i", last="g")


def at(policy: str, end: int, *, blocks: int = 8) -> tuple[str, BatchingModel]:
    """Run A, then B and C together, then D, then E; return the step `end` in words, and the model after it."""
    load = [request("A", A, 2), request("B", B, 2, arrived=4), request("C", C, 2, arrived=4)]
    load += [request("D", D, 2, arrived=8), request("E", E, 2, arrived=12)]
    cfg = BatchingTiming(policy=policy, block_tokens=4, kv_blocks=blocks, prefix_caching=True)
    model, said = BatchingModel(cfg), ""
    for number in range(end + 1):
        while load and load[0].arrived <= number:
            model.add(load.pop(0))
        step = model.step(number)
        said = "" if step is None else told(step.plan)
    return said, model


def tree(model: BatchingModel) -> str:
    """Return KsanaLLM's tree in order of insertion, held blocks in capitals, and the number of free blocks."""
    policy = model.policy
    assert isinstance(policy, KsanaPolicy)
    letters = {number: token for token, number in NAMES.items()}
    names = [(letters[node.tokens[0]], bool(node.holders)) for node in policy.tree._timeline]
    return "".join(name.upper() if held else name for name, held in names) + str(policy.tree.free)


@pytest.mark.parametrize(
    ("end", "step", "kept"),
    [
        (0, "A13", "PQA4"),
        (2, "", "pqa5"),
        (4, "B5 C5", "PQaBC1"),
        (6, "", "pqabc3"),
        (8, "D13", "pqabDEF0"),
        (10, "", "pqabdef1"),
        (12, "E13", "pqabGHI0"),
    ],
)
def test_ksana_gives_up_what_came_last(end, step, kept):
    said, model = at("ksana", end)
    assert (said, tree(model)) == (step, kept)


@pytest.mark.parametrize(
    ("end", "step", "tables", "queue"),
    [
        (0, "A13", {"A": [0, 1, 2, 3]}, [4, 5, 6, 7]),
        (2, "", {}, [3, 4, 5, 6, 7, 2, 1, 0]),
        (4, "B5 C5", {"B": [0, 1, 3, 4], "C": [0, 1, 5, 6]}, [7, 2]),
        (6, "", {}, [6, 4, 7, 2, 3, 5, 1, 0]),
        (8, "D13", {"D": [6, 4, 7, 2]}, [3, 5, 1, 0]),
        (10, "", {}, [2, 3, 5, 1, 0, 7, 4, 6]),
        (12, "E13", {"E": [2, 3, 5, 1]}, [0, 7, 4, 6]),
    ],
)
def test_vllm_gives_up_what_was_longest_unused(end, step, tables, queue):
    said, model = at("vllm", end)
    policy = model.policy
    assert isinstance(policy, VllmPolicy)
    assert (said, {s.owner: s.table for s in policy.running}, list(policy.pool._free)) == (step, tables, queue)


def again(policy: str, *, after: int) -> list[int]:
    """Return how many tokens A, B and C would compute if each were asked again, alone, after step `after`."""
    computed = []
    for ids in (A, B, C):
        _, model = at(policy, after)
        model.add(request("again", list(ids), 1, arrived=after))
        step = model.step(after + 1)
        assert step is not None
        computed.append(sum(tokens for _, tokens in step.plan.chosen))
    return computed


@pytest.mark.parametrize(
    ("policy", "after_d", "after_e"), [("vllm", [5, 1, 1], [9, 9, 9]), ("ksana", [1, 1, 5], [1, 1, 5])]
)
def test_what_is_found_again(policy, after_d, after_e):
    assert again(policy, after=10) == after_d
    assert again(policy, after=14) == after_e


@pytest.mark.parametrize(("policy", "first"), [("vllm", "A13 B5 C5"), ("ksana", "A13 B13 C13")])
def test_all_three_at_once(policy, first):
    load: list[Sequence] = [request(name, ids, 2) for name, ids in zip("ABC", (A, B, C), strict=True)]
    cfg = BatchingTiming(policy=policy, block_tokens=4, kv_blocks=100, prefix_caching=True)
    rows, model = drive(cfg, load, most=1)
    assert (rows, model.policy.free_blocks) == ([first], 92)
