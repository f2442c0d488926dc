"""KsanaLLM's scheduler against traces worked out by hand. A request of n tokens holds n // 4 + 1 blocks of 4."""

from __future__ import annotations

import pytest

from simulator.config import BatchingTiming
from simulator.policies import KsanaPolicy
from tests.simulator.policies.drive import drive, request, told


def ksana(**keys) -> BatchingTiming:
    return BatchingTiming(policy="ksana", **{"block_tokens": 4, "kv_blocks": 100, **keys})


def test_prompts_are_whole_and_the_first_that_does_not_fit_ends_the_step():
    load = [request("A", 6, 2), request("B", 9, 2), request("C", 3, 1)]
    assert drive(ksana(max_num_batched_tokens=10), load)[0] == ["A6", "A1 B9", "B1 C3"]


def test_a_cached_prefix_costs_budget_all_the_same():
    prompt = list(range(9))
    load = [request("A", prompt, 1), *(request(name, prompt, 1, arrived=1) for name in "BCDEF")]
    cfg = ksana(prefix_caching=True, max_num_batched_tokens=20)
    assert drive(cfg, load)[0] == ["A9", "B1 C1", "D1 E1", "F1"]


def test_a_step_shares_nothing_and_then_keeps_one_copy():
    prompt = list(range(9))
    cfg = ksana(prefix_caching=True)
    rows, model = drive(cfg, [request(name, prompt, 2) for name in "ABC"], most=1)
    # Three blocks each; of the two that are full, two copies are given back.
    assert (rows, model.policy.free_blocks) == (["A9 B9 C9"], 100 - 3 - 2)
    assert drive(cfg, [request("A", prompt, 1), request("B", prompt, 1, arrived=1)])[0] == ["A9", "B1"]


def test_a_prompt_known_in_full_computes_one_token():
    load = [request(name, list(range(8)), 1, arrived=at) for at, name in enumerate("AB")]
    assert drive(ksana(prefix_caching=True), load)[0] == ["A8", "B1"]


@pytest.mark.parametrize(("blocks", "first"), [(7, "A4 B4"), (8, "A4 B4 C4"), (11, "A4 B4 C4"), (12, "A4 B4 C4 D4")])
def test_two_blocks_a_request_stay_free_at_launch(blocks, first):
    # Each takes 2 blocks. The request launched just before does not count yet, so A and B need no head-room, C needs
    # that of one request (2 + 2 after 4 are taken) and D that of two (2 + 4 after 6).
    rows, _ = drive(ksana(kv_blocks=blocks), [request(name, 4, 1) for name in "ABCD"])
    assert rows[0] == first


def test_the_head_room_counts_decodes():
    # A decodes and holds 2 of 5 blocks. B needs 2, with 2 more for A: there are 3.
    for blocks, rows in ((5, ["A4", "A1", "A1", "B4"]), (6, ["A4", "A1 B4", "A1"])):
        load = [request("A", 4, 3), request("B", 4, 1, arrived=1)]
        assert drive(ksana(kv_blocks=blocks), load)[0] == rows


def tight():
    return [request("A", 7, 10), request("B", 5, 11), request("C", 5, 4), request("D", 3, 1, arrived=1)]


TILL_BOTH_ARE_OUT = ["A7 B5 C5", *["A1 B1 C1"] * 2, "-C A1 B1", *["A1 B1"] * 5, "-A B1", "B1"]
"""Eight blocks, two each at first. A takes a third at 8 tokens, B at 8 in step 3, where C finds none and goes out with
its two. A takes one of those at 12, B the other, and at 16 A, the oldest, finds none."""


def test_the_decode_that_fails_is_swapped_out_and_nothing_new_starts_till_all_are_back():
    rows, model = drive(ksana(kv_blocks=8), tight())
    # To come back A needs its 4 blocks, one for the next token, and 2 for B, so it waits for B's end. C comes with it.
    assert rows == [*TILL_BOTH_ARE_OUT, "D3", "A1 C1"]
    assert model.policy.preemptions == 2
    assert (model.policy.free_blocks, model.policy.free_swap_blocks) == (8, 4096)


@pytest.mark.parametrize("keys", [{"swap_blocks": 0}, {"preemption": "recompute"}])
def test_without_swapping_it_is_computed_again(keys):
    assert drive(ksana(kv_blocks=8, **keys), tight())[0] == [*TILL_BOTH_ARE_OUT, "A16 C8", "D3"]


def test_what_is_being_copied_is_not_free_yet():
    # Three blocks, one each, and all need a second. A goes out; B and C sit out, and, since A's block is free only
    # after the decodes of the next step, once more, each time for the 100 ms until the engine looks again.
    policy = KsanaPolicy(ksana(kv_blocks=3))
    policy.running = [request(name, 3, 3) for name in "ABC"]
    for sequence in policy.running:
        sequence.computed, sequence.generated = 3, 1
        assert policy.tree.allocate(sequence, 1, [])
    plan = policy.plan(0)
    assert (told(plan), plan.idle_ns) == ("-A -C B1", 200_000_000)


def test_swapped_requests_come_back_by_number():
    policy = KsanaPolicy(ksana(kv_blocks=40))
    load = [request(name, 6, 9) for name in "ABC"]
    for sequence in load:
        policy.add(sequence)
    plan = policy.plan(0)
    for sequence, tokens in plan.chosen:
        sequence.computed += tokens
        sequence.say()
    for sequence in (load[2], load[0]):
        policy.running.remove(sequence)
        policy._send_out(sequence, plan)
    assert told(policy.plan(1)) == "B1"
    assert [s.owner for s in policy.returning] == ["A", "C"]


def test_split_fuse_cuts_each_prompt_and_ends_for_good_when_a_decode_finds_no_block():
    load = [request("A", 7, 2), request("B", 9, 1)]
    rows, model = drive(ksana(split_fuse_tokens=4), load)
    assert rows == ["A4 B4", "A3 B4", "A1 B1"]
    policy = model.policy
    assert isinstance(policy, KsanaPolicy)
    assert policy.split_fuse == 4
    # Of five blocks B's half of a prompt holds two. At 12 tokens A needs its fourth: B's half is thrown back, and from
    # then on prompts are whole.
    load = [request("A", 3, 12), request("B", 12, 1)]
    rows, model = drive(ksana(split_fuse_tokens=4, kv_blocks=5), load)
    assert rows == ["A3 B4", *["A1"] * 8, "-B A1", "A1", "A1", "B12"]
    assert isinstance(model.policy, KsanaPolicy)
    assert model.policy.split_fuse == 0


def test_the_budget_counts_the_sequence_so_far_of_a_split_prompt():
    # Of 12 tokens a step: A's first 4 and B's first 4; then A's 8 and no more than 4 of B's 8.
    load = [request("A", 12, 1), request("B", 12, 1)]
    rows, _ = drive(ksana(split_fuse_tokens=4, max_num_batched_tokens=12), load)
    assert rows == ["A4 B4", "A4", "A4", "B4", "B4"]


def test_the_newest_is_forgotten_first_and_a_hit_moves_nothing():
    prompts = {"A": [1, 1, 1, 1, 0], "B": [2, 2, 2, 2, 0], "C": [3, 3, 3, 3, 0]}
    # Four blocks, one of each prompt stays. A and B are kept; C's is given up for whoever comes next.
    names = "ABCABCA"
    cfg = ksana(prefix_caching=True, kv_blocks=4)
    load = [request(name, prompts[name], 1, arrived=at) for at, name in enumerate(names)]
    assert drive(cfg, load)[0] == ["A5", "B5", "C5", "A1", "B1", "C1", "A1"]
    cfg = ksana(prefix_caching=True, kv_blocks=3)
    load = [request(name, prompts[name], 1, arrived=at) for at, name in enumerate(names)]
    assert drive(cfg, load)[0] == ["A5", "B5", "C5", "A1", "B5", "C5", "A1"]


def test_a_whole_subtree_goes():
    # A's block has two below it, of B and of C. When the eldest is given up they go with it.
    policy = KsanaPolicy(ksana(prefix_caching=True))
    head = [1, 1, 1, 1]
    cfg = ksana(prefix_caching=True)
    load = [request(n, [*head, *[i] * 4, 0], 1, arrived=i) for i, n in enumerate("AB")]
    _, model = drive(cfg, load)
    policy = model.policy
    assert isinstance(policy, KsanaPolicy)
    tree = policy.tree
    assert tree.usable - tree.free == 3
    tree._forget(tree.match(head)[0])
    assert tree.usable == tree.free == 100


def test_limits_are_those_of_the_engine():
    policy = KsanaPolicy(ksana(max_num_seqs=1))
    assert (policy.waiting_limit, policy.time_limit_s) == (1200, 600.0)
    for name in "AB":
        policy.add(request(name, 3, 5))
    policy.plan(0)
    policy.reap(600 * 10**9)
    assert [s.owner for s in policy.expired] == ["A", "B"], "one that runs as one that waits"
    assert policy.free_blocks == 100
