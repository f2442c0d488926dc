"""Places of engines that run together: cards, their nodes' cores, and the cores of each load generator."""

from __future__ import annotations

import subprocess

import pytest

from loadgen.bench.placing import Card, cards_here, cores_here, plan
from loadgen.errors import UserError
from loadgen.hosts.placement import Place
from loadgen.machine import format_cpus, parse_cpus


def cards(*nodes: tuple[int, str]) -> list[Card]:
    return [Card(str(i), f"GPU-{i}", node, frozenset(parse_cpus(cpus))) for i, (node, cpus) in enumerate(nodes)]


TWO_NODES = {cpu: cpu // 16 for cpu in range(32)}
ONE_NODE = dict.fromkeys(range(32), 0)


def test_cards_of_two_nodes_bring_their_own_cores_and_memory():
    found = plan([1, 1], cards((0, "0-15"), (1, "16-31")), range(32), range(24, 32), node_of=TWO_NODES)
    assert [format_cpus(client) for client in found.clients] == ["24-31", "8-15"]
    assert found.slots == (Place(("0",), "0-7", 0), Place(("1",), "16-23", 1))


def test_where_there_is_one_node_cores_are_divided():
    found = plan([1, 1], cards((0, "0-31"), (0, "0-31")), range(32), (30, 31), node_of=ONE_NODE)
    assert [format_cpus(client) for client in found.clients] == ["30-31", "28-29"]
    assert found.slots == (Place(("0",), "0-13"), Place(("1",), "14-27"))


def test_where_nobody_tells_of_nodes_cores_are_divided():
    found = plan([2, 2], [Card(str(i), f"GPU-{i}") for i in range(4)], range(32), (31,), node_of={})
    assert found.slots == (Place(("0", "1"), "0-14"), Place(("2", "3"), "15-29"))
    assert found.clients == ((31,), (30,))


def test_both_cards_on_one_of_two_nodes_divide_its_cores():
    found = plan([1, 1], cards((0, "0-15"), (0, "0-15")), range(32), (31,), node_of=TWO_NODES)
    assert found.slots == (Place(("0",), "0-7", 0), Place(("1",), "8-15", 0))
    assert found.clients == ((31,), (30,))


def test_cores_are_as_many_for_each():
    found = plan([1, 1], cards((0, "0-15"), (1, "16-31")), range(32), range(28, 32), node_of=TWO_NODES)
    assert [len(parse_cpus(slot.cpus)) for slot in found.slots] == [12, 12]


def test_hyperthreads_of_one_core_are_one_engines():
    order = [cpu for core in range(8) for cpu in (core, core + 8)]
    found = plan([0, 0], [], order, (7,), node_of={}, siblings=2)
    shares = [parse_cpus(slot.cpus) for slot in found.slots]
    assert not {cpu % 8 for cpu in shares[0]} & {cpu % 8 for cpu in shares[1]}
    assert len(shares[0]) == len(shares[1]) == 6


def test_two_cores_are_an_engines_each_and_all_make_traffic():
    found = plan([0, 0], [], (0, 1), (0, 1), node_of={0: 0, 1: 0})
    assert (found.slots, found.clients) == ((Place(cpus="0"), Place(cpus="1")), ((0, 1), (0, 1)))


def test_one_core_is_everybodys():
    assert plan([0, 0], [], (0,), (0,), node_of={}).slots == (Place(cpus="0"), Place(cpus="0"))


def test_few_cores_leave_the_load_generators_one_lot():
    found = plan([0, 0], [], range(4), (3,), node_of={})
    assert found.clients == ((3,), (3,))
    assert found.slots == (Place(cpus="0"), Place(cpus="1"))


def test_too_few_cards_are_refused_with_numbers():
    with pytest.raises(UserError, match=r"2 engines together need 4 GPUs \(2 for each\), and this machine has 2"):
        plan([2, 1], cards((0, "0-3"), (0, "0-3")), range(4), (3,), node_of={})


ROWS = "0, GPU-aa, 00000000:19:00.0\n1, GPU-bb, 00000001:5D:00.0\n"


@pytest.mark.parametrize(
    ("visible", "found"), [("", ["0", "1"]), ("1", ["1"]), ("GPU-bb,GPU-aa", ["1", "0"]), (" 1 , 0 ", ["1", "0"])]
)
def test_cards_are_those_that_this_user_was_given(tmp_path, visible, found):
    assert [card.index for card in cards_here(visible, tmp_path, lambda: ROWS)] == found


def test_a_cards_node_and_cores_are_by_its_address(tmp_path):
    for address, node, cpus in (("0000:19:00.0", "1\n", "16-31\n"), ("0001:5d:00.0", "-1\n", "0-31\n")):
        device = tmp_path / "bus" / "pci" / "devices" / address
        device.mkdir(parents=True)
        (device / "numa_node").write_text(node)
        (device / "local_cpulist").write_text(cpus)
    first, second = cards_here("", tmp_path, lambda: ROWS)
    assert (first.node, first.cpus) == (1, frozenset(range(16, 32)))
    assert (second.node, second.cpus) == (None, frozenset(range(32)))


def test_no_driver_is_no_cards(tmp_path):
    def absent() -> str:
        raise FileNotFoundError("nvidia-smi")

    def silent() -> str:
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    assert cards_here("", tmp_path, absent) == cards_here("", tmp_path, silent) == []


def test_cores_are_read_with_their_siblings_and_nodes(tmp_path):
    for cpu in range(4):
        folder = tmp_path / "devices" / "system" / "cpu" / f"cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / f"node{cpu % 2}").mkdir()
        (folder / "topology" / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    assert cores_here(tmp_path, range(4)) == ([0, 2, 1, 3], {0: 0, 1: 1, 2: 0, 3: 1}, 2)
    assert cores_here(tmp_path / "nowhere", (5, 3)) == ([3, 5], {}, 1)
