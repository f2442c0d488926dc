"""Which records a master takes: what a worker may send is what the plan has it send, once, and as it can have been."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.distributed.door import KEPT_BLOCKS, Door
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.record import ErrorKind
from loadgen.scenario.cell import Cell
from loadgen.scenario.trace import Trace
from loadgen.traffic.plan import BlockPlan
from tests.loadgen.records import MS, record

WORKERS = ("w0", "w1")
CLOSED, OPEN, BATCH = Cell(4, 2, 3), Cell(4, 2, 0, 5.0), Cell(4, 2, 0, 0.0, 4)


def plan(cell=CLOSED, **fields) -> BlockPlan:
    known = {
        **{"run_id": "run", "scenario": "s", "block": "b", "engine": "e", "cell": cell, "requests": 8, "seed": "1"},
        **{"warmup_requests": 1, "workers": WORKERS, "recipe": PromptRecipe("text", 0, ("a", "b"), (), "nowhere")},
        "endpoint": Endpoint(name="e", kind="vllm", base_url="http://127.0.0.1:1", model="m", api="chat"),
    }
    return BlockPlan(**{**known, **fields})


def made(worker="w0", user=0, index=0, cell=CLOSED, **fields):
    told = {"run_id": "run", "block": "b", "engine": "e", "model": "m", "cell": cell.id, "api": "chat"}
    return record(0, (2 * MS, 5 * MS), **{**told, "worker": worker, "user": user, "index": index, **fields})


def door(cell=CLOSED, **fields) -> Door:
    opened = Door()
    opened.begin(plan(cell, **fields))
    return opened


def test_the_plans_own_requests_are_taken():
    closed = door()
    assert all(closed.is_planned(made(w, user, index), w) for index in (0, 1, 5) for w in WORKERS for user in range(3))
    assert closed.is_planned(made(index=6, output_tokens_wanted=1), "w0"), "users' first answers are of unequal length"
    spread = door(OPEN)
    assert all(spread.is_planned(made(WORKERS[n % 2], 0, n, OPEN), WORKERS[n % 2]) for n in (4, 1, 0, 7))
    batches = door(BATCH)
    assert all(batches.is_planned(made("w0", place, n, BATCH), "w0") for n in range(3) for place in range(4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_id": "other"},
        {"run_id": "../../escaped"},
        {"run_id": "/tmp/absolute"},
        {"block": "b2"},
        {"engine": "f"},
        {"model": "n"},
        {"cell": "p0001-o0001-c001"},
        {"api": "completions"},
        {"user": 3},
        {"user": -1},
        {"index": -1},
        {"prompt_tokens_wanted": 5},
        {"output_tokens_wanted": 3},
        {"output_tokens_wanted": 0},
    ],
    ids=str,
)
def test_what_no_plan_has_is_refused(wrong):
    assert not door().is_planned(dataclasses.replace(made(), **wrong), "w0")


def test_nobody_sends_for_another_or_without_a_seat():
    assert not door().is_planned(made("w1"), "w0")
    assert not door().is_planned(made("stranger"), "stranger")


def test_no_request_counts_twice():
    for cell in (CLOSED, OPEN, BATCH):
        opened = door(cell)
        assert opened.is_planned(made(cell=cell), "w0")
        assert not opened.is_planned(made(cell=cell), "w0")


def test_arrivals_and_batches_are_those_of_the_workers_seat():
    assert not door(OPEN).is_planned(made("w0", 0, 1, OPEN), "w0"), "the other worker's"
    assert not door(OPEN).is_planned(made("w0", 1, 0, OPEN), "w0"), "an open loop has no users"
    traced = dataclasses.replace(OPEN, trace="0a0b0c0d")
    assert not door(traced, arrival="trace", trace=Trace((0, 5))).is_planned(made("w0", 0, 2, traced), "w0"), "its end"
    assert not door(BATCH).is_planned(made("w1", 0, 0, BATCH), "w1"), "one worker sends them all"
    assert not door(BATCH).is_planned(made("w0", 4, 0, BATCH), "w0")
    assert not door(BATCH).is_planned(made("w0", 0, 3, BATCH), "w0"), "one warm-up batch and two measured ones"


def test_late_records_of_the_last_blocks_are_taken_and_no_older_ones():
    opened = door()
    for number in range(KEPT_BLOCKS - 1):
        opened.begin(plan(block=f"later{number}"))
    assert opened.is_planned(made(), "w0")
    opened.begin(plan(block="one-too-many"))
    assert not opened.is_planned(made(index=1), "w0")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"t_done": -1}, "before it was sent"),
        ({"t_first": -1}, "before it was sent"),
        ({"t_last": 1}, "before its first"),
        ({"t_last": 6 * MS}, "after its end"),
        ({"t_done": 3600 * 1000 * MS}, "longer than the block has run"),
        ({"t_intended": -3600 * 1000 * MS}, "longer than the block has run"),
        ({"event_offsets_ns": [2 * MS, 2**62]}, "one of its events"),
        ({"event_offsets_ns": [-1, 5 * MS]}, "one of its events"),
        ({"output_tokens": 3, "token_source": "usage"}, "more tokens than were asked for"),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(wrong, said):
    opened = door()
    found = dataclasses.replace(made(), **wrong)
    assert opened.is_planned(found, "w0")
    problem = opened.impossible(found)
    assert problem is not None
    assert "worker w0 sent a record that cannot be: request 0.0" in problem
    assert said in problem


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"t_first": None, "t_last": None, "event_offsets_ns": [], "events": 0, "error": ErrorKind.CONNECT},
        {"t_first": -MS, "clock": "kernel"},  # the wall clock was stepped
        {"output_tokens": 3, "error": ErrorKind.OUTPUT_TOKENS},
    ],
    ids=str,
)
def test_what_can_be_passes(fine):
    opened = door()
    found = dataclasses.replace(made(), **fine)
    assert opened.is_planned(found, "w0")
    assert opened.impossible(found) is None
