"""vLLM's scheduler against traces worked out by hand."""

from __future__ import annotations

from simulator.config import BatchingTiming
from simulator.policies import VllmPolicy
from simulator.policies.sequence import SAID
from tests.simulator.policies.drive import drive, request


def vllm(**keys) -> BatchingTiming:
    return BatchingTiming(policy="vllm", **{"block_tokens": 4, "kv_blocks": 100, **keys})


def test_the_budget_is_of_computed_tokens_and_the_last_prompt_gets_what_is_left():
    rows, _ = drive(vllm(max_num_batched_tokens=10), [request("A", 6, 2), request("B", 9, 2), request("C", 3, 1)])
    assert rows == ["A6 B4", "A1 B5 C3", "B1"]


def test_running_requests_come_first_and_may_leave_nothing():
    rows, _ = drive(vllm(max_num_batched_tokens=3), [request("A", 7, 2), request("B", 2, 1)])
    assert rows == ["A3", "A3", "A1 B2", "A1"]


def test_no_more_run_than_may():
    rows, _ = drive(vllm(max_num_seqs=2), [request(name, 3, 2) for name in "ABC"])
    assert rows == ["A3 B3", "A1 B1", "C3", "C1"]


def test_the_last_admitted_loses_all_and_waits_at_the_head():
    # Four blocks of 4: both prompts take two. The 9th token of A needs a third, and takes it from B, which has to
    # compute its 6 + 3 tokens again once A has gone; nobody is admitted in the step of a preemption.
    rows, model = drive(vllm(kv_blocks=4), [request("A", 6, 5), request("B", 6, 5), request("C", 2, 1, arrived=1)])
    assert rows == ["A6 B6", "A1 B1", "A1 B1", "-B A1", "A1", "B9 C2", "B1"]
    assert model.policy.preemptions == 1


def test_one_that_fails_last_preempts_itself():
    rows, _ = drive(vllm(kv_blocks=4), [request("A", 4, 4), request("B", 8, 4)])
    assert rows == ["A4 B8", "-B A1", "A1", "A1", "B9", "B1", "B1"]


def test_a_prompt_is_admitted_only_if_all_of_it_fits():
    # Of B's 12 tokens the budget would take 2, which fit; but the three blocks that it needs in all are not there.
    rows, _ = drive(vllm(kv_blocks=4, max_num_batched_tokens=8), [request("A", 6, 2), request("B", 12, 1)])
    assert rows == ["A6", "A1", "B8", "B4"]


def test_whole_prompts_wait_for_a_step_of_their_own():
    cfg = vllm(chunked_prefill=False, max_num_batched_tokens=10)
    rows, _ = drive(cfg, [request("A", 6, 2), request("B", 9, 1)])
    assert rows == ["A6", "A1 B9"]


def test_a_block_is_shared_by_the_step_that_fills_it():
    prompt = list(range(10))
    rows, model = drive(vllm(prefix_caching=True), [request(name, prompt, 1) for name in "ABC"])
    assert rows == ["A10 B2 C2"]
    assert model.policy.free_blocks == 100


def test_cached_tokens_cost_no_budget():
    prompt = list(range(17))
    cfg = vllm(prefix_caching=True, max_num_batched_tokens=20)
    rows, _ = drive(cfg, [request(name, prompt, 1) for name in "ABCDE"])
    assert rows == ["A17 B1 C1 D1", "E1"]


def test_a_prompt_known_in_full_computes_its_last_block():
    rows, _ = drive(vllm(prefix_caching=True), [request(n, list(range(8)), 1, arrived=i) for i, n in enumerate("AB")])
    assert rows == ["A8", "B4"]


def test_answers_are_found_again():
    first = request("A", [1, 2, 3], 6, answer=[4, 5, 6, 7, 8, 9])
    again = request("B", [1, 2, 3, 4, 5, 6, 7, 8, 9], 1, arrived=6)
    assert drive(vllm(prefix_caching=True), [first, again])[0] == ["A3", "A1", "A1", "A1", "A1", "A1", "B1"]
    assert first.ids == [*range(1, 10)]
    unknown = request("A", [1, 2, 3], 2)
    drive(vllm(prefix_caching=True), [unknown])
    assert unknown.ids[3:] == [SAID, SAID + 1]


def test_the_longest_unused_is_forgotten_first_and_of_a_chain_its_tail():
    # Four blocks. A's two go to the end of the queue, tail first, B's after them; C takes the one that was never used
    # and then A's tail. So A's head is still known, and of B all.
    a, b, c = list(range(8)), list(range(50, 54)), list(range(90, 98))
    cfg = vllm(prefix_caching=True, kv_blocks=4)
    load = [request("A", a, 1), request("B", b, 1, arrived=1), request("C", c, 1, arrived=2)]
    rows, model = drive(cfg, load)
    policy = model.policy
    assert isinstance(policy, VllmPolicy)
    assert [len(policy.pool.hits(request("", [*prompt, 0], 1))) for prompt in (a, b, c)] == [1, 1, 2]
    assert rows == ["A8", "B4", "C8"]


def test_a_hit_is_used_last():
    # Three blocks; A is hit again after B was there, so B goes first.
    a, b = [1, 1, 1, 1, 0], [2, 2, 2, 2, 0]
    cfg = vllm(prefix_caching=True, kv_blocks=3)
    names = ["A", "B", "A", "C", "A"]
    prompts = {"A": a, "B": b, "C": [3, 3, 3, 3, 0]}
    rows, _ = drive(cfg, [request(n, prompts[n], 1, arrived=i) for i, n in enumerate(names)])
    assert rows == ["A5", "B5", "A1", "C5", "A1"]


def test_a_limit_of_time_or_of_the_queue_holds_where_it_is_set():
    policy = VllmPolicy(vllm(max_num_seqs=1, waiting_limit=2, time_limit_s=1.0))
    for at in range(3):
        assert not policy.full or at == 2
        policy.add(request("ABC"[at], 3, 5))
    assert policy.full
    policy.plan(0)
    policy.reap(999_999_999)
    assert not policy.expired
    policy.reap(1_000_000_000)
    assert [s.owner for s in policy.expired] == ["A", "B", "C"]
    assert policy.free_blocks == 100
    assert VllmPolicy(vllm()).waiting_limit is None
