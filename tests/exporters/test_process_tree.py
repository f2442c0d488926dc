"""The process tree, against real processes. The oracle reads /proc by itself."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters import process_tree
from exporters.process_tree import MonotonicSum, ProcessTree, find_listeners, local_addresses

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
pytestmark = linux


class Clock:
    """Every look at it is a minute later, so nothing is served from a cache."""

    def __init__(self, step=60.0):
        self.now, self.step = 1000.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def tree_of(fake, **options):
    return ProcessTree("127.0.0.1", fake.port, clock=options.pop("clock", Clock()), **options)


def proc_pss(*pids):
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def proc_cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def test_memory_of_known_size_is_seen_and_its_release_too(fake_engine):
    fake = fake_engine()
    tree = tree_of(fake)
    before = tree.sample()
    assert before.processes == 1
    fake.control("alloc?mib=64")
    after = tree.sample()
    assert after.rss_bytes - before.rss_bytes == pytest.approx(64 * MIB, abs=4 * MIB)
    assert after.pss_bytes - before.pss_bytes == pytest.approx(64 * MIB, abs=4 * MIB)
    assert after.pss_bytes == pytest.approx(proc_pss(fake.pid), abs=MIB)
    fake.control("free")
    assert tree.sample().pss_bytes == pytest.approx(before.pss_bytes, abs=4 * MIB)


def test_memory_shared_by_a_forked_child_counts_once_in_pss_and_twice_in_rss(fake_engine):
    fake = fake_engine()
    tree = tree_of(fake)
    fake.control("alloc?mib=64")
    alone = tree.sample()
    child = fake.control("fork?mib=32")["pid"]
    both = tree.sample()
    assert both.processes == 2
    assert both.pss_bytes == pytest.approx(proc_pss(fake.pid, child), abs=MIB)
    assert both.pss_bytes - alone.pss_bytes == pytest.approx(32 * MIB, abs=6 * MIB)
    assert both.rss_bytes - alone.rss_bytes > (64 + 32) * MIB


def test_a_child_killed_with_9_leaves_the_tree_and_the_cpu_counter_keeps_its_time(fake_engine):
    fake = fake_engine()
    tree = tree_of(fake)
    child = fake.control("fork?cpu=0.3")["pid"]
    with_child = tree.sample()
    assert with_child.cpu_seconds == pytest.approx(proc_cpu(fake.pid) + proc_cpu(child), abs=0.05)
    assert with_child.cpu_seconds >= 0.3
    os.kill(child, signal.SIGKILL)
    zombie = tree.sample()  # not waited for: a zombie holds no memory, and its time still counts
    assert zombie.cpu_seconds >= with_child.cpu_seconds
    fake.control(f"wait?pid={child}")
    reaped = tree.sample()
    assert reaped.processes == 1
    assert reaped.rss_bytes < with_child.rss_bytes
    assert reaped.cpu_seconds >= zombie.cpu_seconds
    assert reaped.cpu_seconds == pytest.approx(proc_cpu(fake.pid), abs=0.1), "counted twice or lost"


def test_a_child_that_lived_between_two_samples_is_counted(fake_engine):
    fake = fake_engine()
    tree = tree_of(fake)
    before = tree.sample().cpu_seconds
    child = fake.control("fork?cpu=0.3&stay=0")["pid"]
    fake.control(f"wait?pid={child}")
    assert tree.sample().cpu_seconds - before >= 0.29


def test_an_engine_killed_with_9_is_absent_and_its_successor_is_found(fake_engine):
    first = fake_engine()
    tree = tree_of(first)
    first.control("burn?cpu=0.2")
    spent = tree.sample().cpu_seconds
    first.kill()
    assert tree.sample() is None
    assert tree.root_pid is None and tree.listener_pid is None
    second = fake_engine(port=str(first.port))
    second.control("burn?cpu=0.2")
    sample = tree.sample()
    assert tree.listener_pid == second.pid
    assert sample.cpu_seconds == pytest.approx(spent + proc_cpu(second.pid), abs=0.05)


def test_nobody_listens(free_port):
    assert ProcessTree("127.0.0.1", free_port, clock=Clock()).sample() is None


def test_the_launcher_in_the_same_group_belongs_to_the_service(fake_engine):
    fake = fake_engine(launch=True)
    tree = tree_of(fake)
    assert tree.sample().processes == 2
    assert tree.listener_pid == fake.pid
    assert tree.root_pid == fake.process.pid != fake.pid


def test_this_process_and_what_is_above_it_never_belong(fake_engine):
    """A script that starts engine and exporter side by side, without job control, puts all into one group."""
    fake = fake_engine(own_group=False)
    assert os.getpgid(fake.pid) == os.getpgid(0)
    tree = tree_of(fake)
    assert tree.sample().processes == 1
    assert tree.root_pid == fake.pid


def test_a_process_manager_by_name_never_belongs(fake_engine, monkeypatch):
    fake = fake_engine(launch=True)
    monkeypatch.setattr(process_tree, "MANAGERS", frozenset({psutil.Process(fake.process.pid).name()}))
    tree = tree_of(fake)
    assert tree.sample().processes == 1


def test_a_launcher_of_two_services_belongs_to_neither(fake_engine):
    fake = fake_engine(port="0,0", launch=True)
    ports = [(fake.port, fake.pid), *fake.more]
    clock = Clock()
    trees: list[ProcessTree] = []
    for port, _ in ports:
        trees.append(ProcessTree("127.0.0.1", port, clock=clock, others=lambda: [t.listener_pid or 0 for t in trees]))
    for _ in range(2):  # the first tree learns of the second when it looks again
        samples = [tree.sample() for tree in trees]
    assert [tree.root_pid for tree in trees] == [pid for _, pid in ports]
    assert [sample.processes for sample in samples] == [1, 1]


def test_another_port_is_not_taken(fake_engine):
    one, two = fake_engine(), fake_engine()
    assert [p.pid for p in find_listeners("127.0.0.1", one.port)] == [one.pid]
    assert [p.pid for p in find_listeners("localhost", two.port)] == [two.pid]


def test_a_host_that_is_not_this_machine_has_no_tree(fake_engine):
    assert local_addresses("127.0.0.1") == {"127.0.0.1"}
    assert local_addresses("192.0.2.1") == set()
    assert local_addresses("no-such-host.invalid") == set()
    assert ProcessTree("192.0.2.1", fake_engine().port, clock=Clock()).sample() is None


def test_searches_are_rare_while_nothing_answers_and_none_while_found(fake_engine, free_port, monkeypatch):
    searches = []
    real = process_tree.find_listeners
    monkeypatch.setattr(process_tree, "find_listeners", lambda *a: searches.append(a) or real(*a))
    idle = ProcessTree("127.0.0.1", free_port, clock=Clock(step=1.0))
    for _ in range(100):
        idle.sample(answers=False)
    assert len(searches) <= 100 * 2 / process_tree.SEARCH_EVERY_S
    searches.clear()
    busy = tree_of(fake_engine())
    for _ in range(30):
        assert busy.sample() is not None
    assert len(searches) == 1


def test_reading_pss_is_bounded_and_a_changed_tree_is_read_sooner(fake_engine, monkeypatch):
    fake = fake_engine()
    cost = iter(float(i) for i in range(1000))  # each reading seems to take a second of CPU
    monkeypatch.setattr(process_tree.time, "thread_time", lambda: next(cost))
    tree = tree_of(fake, clock=Clock(step=1.0))
    first = tree.sample().pss_bytes
    fake.control("alloc?mib=32")
    assert tree.sample().pss_bytes == first
    for _ in range(40):
        last = tree.sample().pss_bytes
    assert last - first > 24 * MIB


def test_unreadable_pss_is_absent_and_not_a_part(fake_engine, monkeypatch):
    def denied(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    sample = tree_of(fake_engine()).sample()
    assert sample.pss_bytes is None
    assert sample.rss_bytes > MIB


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=60))
def test_the_counter_never_goes_back(visible):
    counter, last = MonotonicSum(), 0.0
    for value in visible:
        total = counter.update(value)
        assert total >= last
        last = total


def test_the_counter_over_a_life_with_deaths():
    counter = MonotonicSum()
    # (visible sum, what the counter must say)
    story = [
        (1.0, 1.0),
        (3.0, 3.0),
        (2.0, 3.0),  # a child seen after its death, before its parent was read again
        (3.5, 3.5),  # now its time is in the parent's account: nothing is counted twice
        (1.5, 3.5),  # a child that nobody waits for takes 2 s with it
        (1.5, 3.5),
        (2.0, 4.0),  # counting goes on
    ]
    for visible, expected in story:
        assert counter.update(visible) == pytest.approx(expected)
    counter.begin_at()
    assert counter.update(0.5) == pytest.approx(4.5)


def test_sampling_is_cheap(fake_engine):
    """Not a benchmark: a guard against searching at every sample (tens of ms where many processes run)."""
    tree = tree_of(fake_engine(), clock=time.monotonic)
    tree.sample()
    costs = []
    for _ in range(10):
        began = time.thread_time()
        tree.sample()
        costs.append(time.thread_time() - began)
    assert min(costs) < 0.05


def test_a_tree_that_was_there_before_counts_from_zero_and_the_next_one_in_full(fake_engine):
    """Whoever restarts the exporter must not see hours of CPU time within a second."""
    first = fake_engine()
    first.control("burn?cpu=0.3")
    tree = tree_of(first, since=time.time())
    assert tree.sample().cpu_seconds == 0
    first.control("burn?cpu=0.2")
    spent = tree.sample().cpu_seconds
    tick = 1 / os.sysconf("SC_CLK_TCK")  # the kernel counts in these, and each of two readings is rounded down
    assert 0.2 - tick - 1e-9 <= spent < proc_cpu(first.pid) - 0.25
    first.kill()
    assert tree.sample() is None
    second = fake_engine(port=str(first.port))
    second.control("burn?cpu=0.2")
    assert tree.sample().cpu_seconds == pytest.approx(spent + proc_cpu(second.pid), abs=0.05)
