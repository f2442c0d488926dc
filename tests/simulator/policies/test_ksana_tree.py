"""KsanaLLM's blocks: what its own tests of the prefix cache manager (`SingleRequestTest`, c451219) say, as numbers.

100 blocks of 16 tokens and as many on the host.
"""

from __future__ import annotations

from simulator.policies import Sequence
from simulator.policies.ksana_tree import PrefixTree

OLD = list(range(1000, 1082))
"""82 tokens: six blocks, five of them full."""


def test_a_request_goes_to_the_host_and_back_and_what_it_leaves_is_found_again():
    tree = PrefixTree(100, 16, 100, caching=True)
    first = Sequence(82, 2, 0, ids=list(OLD))
    assert tree.match(first.ids) == []
    assert tree.more(82, 0) == 6
    assert tree.allocate(first, 6, [])
    assert (tree.usable, len(tree.match(OLD))) == (94, 0)

    first.computed = 82
    first.say()
    tree.fill(first)
    assert len(tree.match(OLD)) == 5

    assert tree.swap_out(first) == 6
    assert tree.match(OLD) == []
    assert (tree.usable, tree.host_free) == (94, 94), "its blocks are not free before they have been copied"
    tree.swapped_out()
    assert (tree.usable, tree.host_free) == (100, 94)

    assert tree.missing(first) == 6
    assert tree.swap_in(first) == 6
    assert (tree.usable, tree.host_free, tree.match(OLD)) == (94, 100, [])
    tree.swapped_in(first)
    assert len(tree.match(OLD)) == 5

    tree.release(first)
    assert (tree.usable, tree.usable - tree.free) == (100, 5)
    assert tree._make_room(tree.free + 2, [])
    assert (tree.usable, tree.usable - tree.free) == (100, 3), "two were given up, the newest"

    later = Sequence(54, 1, 0, ids=OLD[:36] + list(range(18)))
    matched = tree.match(later.ids)
    assert (len(matched), tree.more(54, len(matched))) == (2, 2)
    assert tree.usable_beside(matched) == 98
    assert tree.allocate(later, 2, matched)
    assert tree.usable == 96


def test_what_a_running_request_shares_stays_when_another_is_swapped_out():
    tree = PrefixTree(100, 16, 100, caching=True)
    one, two = (Sequence(40, 9, 0, ids=OLD[:32] + [number] * 8) for number in (1, 2))
    for sequence in (one, two):
        assert tree.allocate(sequence, 3, [])
        sequence.computed = 40
        tree.fill(sequence)
    assert tree.free == 100 - 4, "the two full blocks are kept once"
    assert tree.swap_out(one) == 1
    tree.swapped_out()
    tree.release(two)
    assert tree.usable == 98, "a swapped request still holds the blocks that it shared"
    assert tree.swap_in(one) == 1
    tree.swapped_in(one)
    tree.release(one)
    assert (tree.usable, tree.host_free) == (100, 100)
