"""Whose process is it: real processes, and cgroup files as the container engines write them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import types

import psutil
import pytest

from exporters import process_tree
from exporters.gpu_owner import FORGET_AFTER_S, OTHER, RETRY_LAST_S, GpuOwners, containers_of
from exporters.process_tree import ProcessTree

A, B = "a1" * 32, "b2" * 32
PARENT = "import subprocess as s; p = s.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(
    ("cgroup", "found"),
    [
        (f"0::/system.slice/docker-{A}.scope\n", [A]),
        (f"0::/docker/{A}\n", [A]),
        (f"0::/../docker-{A}.scope\n", [A]),
        (f"12:memory:/docker/{A}\n3:cpu,cpuacct:/docker/{A}\n", [A, A]),
        (f"0::/kubepods.slice/kubepods-pod0f1e2d3c_4b5a.slice/cri-containerd-{A}.scope\n", [A]),
        (f"0::/machine.slice/libpod-{A}.scope/container\n", [A]),
        (f"0::/docker/{A}/docker/{B}\n", [A, B]),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", []),
        ("0::/\n", []),
        ("", []),
    ],
)
def test_containers_of_a_cgroup(cgroup, found):
    assert containers_of(cgroup) == found


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def child():
    """A process with a child of its own; pids (process, child)."""
    started = []

    def start():
        process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process.pid, int(process.stdout.readline())

    yield start
    for process in started:
        for one in psutil.Process(process.pid).children():
            one.kill()
        process.kill()
        process.communicate()


def ask(owners, *pids):
    owners.engines_of(pids)
    owners.refresh()
    return owners.engines_of(pids)


def cgroup(proc, pid, container):
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "cgroup").write_text(f"0::/system.slice/docker-{container}.scope\n")


def test_by_the_tree_of_a_pid(child):
    one, two = child(), child()
    owners = GpuOwners({"vllm": one[0], "ksana": two[1]}, {})
    assert owners.engines_of([one[1]]) == {}, "not looked up yet, so left out"
    assert ask(owners, *one, *two, os.getpid()) == {
        one[0]: "vllm", one[1]: "vllm", two[0]: OTHER, two[1]: "ksana", os.getpid(): OTHER,
    }  # fmt: skip


def test_by_its_launch_record_before_it_listens(child, tmp_path):
    (one, below), (two, _) = child(), child()
    now = psutil.Process(one).create_time()
    for name, pid, moment in (("vllm", one, now), ("ksana", two, now - 3600), ("gone", 999_999_999, now)):
        (tmp_path / f"launch-{name}.json").write_text(json.dumps({"pid": pid, "started_unix_s": moment}))
    (tmp_path / "launch-torn.json").write_text("{")
    owners = GpuOwners({}, {}, records=tmp_path)
    assert ask(owners, below, two) == {below: "vllm", two: OTHER}, "a pid that another has taken over is nobody's"


SPAWNING = """
import multiprocessing, os, time
spawn = multiprocessing.get_context("spawn")

def worker(pids):
    pids.put(os.getpid())
    time.sleep(600)

def core(pids):
    for _ in range(2):
        spawn.Process(target=worker, args=(pids,), daemon=True).start()
    time.sleep(600)

if __name__ == "__main__":
    pids = spawn.SimpleQueue()
    spawn.Process(target=core, args=(pids,)).start()
    print(pids.get(), pids.get(), flush=True)
    time.sleep(600)
"""
"""Workers as vLLM has them with several cards: spawned by a core that the server has spawned."""


@pytest.fixture
def spawning(tmp_path):
    """Start such an engine; its pid, and those of its workers."""
    path, started, pids = tmp_path / "engine.py", [], []
    path.write_text(SPAWNING)

    def start():
        process = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        workers = [int(pid) for pid in process.stdout.readline().split()]
        pids.extend(workers)
        return process.pid, workers

    yield start
    for process in started:
        pids.extend(each.pid for each in psutil.Process(process.pid).children(recursive=True))
        process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_workers_of_two_engines_that_span_several_cards(spawning, tmp_path):
    (one, workers), (two, twins) = spawning(), spawning()
    for name, pid in (("vllm", one), ("vllm-2", two)):
        started = psutil.Process(pid).create_time()
        (tmp_path / f"launch-{name}.json").write_text(json.dumps({"pid": pid, "started_unix_s": started}))
    owners = GpuOwners({}, {}, records=tmp_path)
    assert ask(owners, *workers, *twins) == dict.fromkeys(workers, "vllm") | dict.fromkeys(twins, "vllm-2")
    core = psutil.Process(workers[0]).ppid()
    assert core != one
    psutil.Process(core).kill()
    while core in {psutil.Process(pid).ppid() for pid in workers}:
        time.sleep(0.01)
    assert ask(owners, *workers) == dict.fromkeys(workers, "vllm"), "whose it is stays known without a parent"


def test_the_nearest_of_two_trees_wins(child):
    outer, inner = child()
    assert ask(GpuOwners({"outer": outer, "inner": inner}, {}), outer, inner) == {outer: "outer", inner: "inner"}


def test_by_the_url_of_the_engine(fake_engine):
    fake = fake_engine(launch=True)
    owners = GpuOwners({}, {"vllm": ProcessTree("127.0.0.1", fake.port)})
    worker = fake.control("fork")["pid"]
    assert ask(owners, worker, fake.pid, fake.process.pid) == dict.fromkeys(
        [worker, fake.pid, fake.process.pid], "vllm"
    )


def test_by_container_before_tree(child, tmp_path):
    (_, one), (_, two) = child(), child()
    cgroup(tmp_path, one, A)
    cgroup(tmp_path, two, B)
    path = tmp_path / "map.json"
    path.write_text(json.dumps({A[:12]: "vllm"}))
    owners = GpuOwners({"tree": one, "tree2": two}, {}, path, proc=tmp_path)
    assert ask(owners, one, two) == {one: "vllm", two: "tree2"}


def test_a_container_that_is_named_later_and_one_that_nobody_names(child, tmp_path, clock):
    (_, one), (_, two) = child(), child()
    cgroup(tmp_path, one, A)
    cgroup(tmp_path, two, B)
    path = tmp_path / "map.json"
    owners = GpuOwners({}, {}, path, proc=tmp_path, clock=clock)
    assert ask(owners, one, two) == {one: OTHER, two: OTHER}
    path.write_text("{ not json")
    clock.now += RETRY_LAST_S
    assert ask(owners, one, two) == {one: OTHER, two: OTHER}
    path.write_text(json.dumps({A: "vllm"}))
    clock.now += RETRY_LAST_S
    assert ask(owners, one, two) == {one: "vllm", two: OTHER}
    path.unlink()
    clock.now += RETRY_LAST_S
    assert ask(owners, one) == {one: "vllm"}, "who owns a process does not change"


def test_the_unknown_is_asked_about_ever_more_seldom(child, clock):
    pid, _ = child()
    looked = []

    class Tree:
        def find(self, *, answers):
            looked.append(clock.now)

    owners = GpuOwners({}, {"vllm": Tree()}, clock=clock)
    for second in range(600):
        clock.now = float(second)
        assert ask(owners, pid) == {pid: OTHER}
    assert 10 <= len(looked) <= 20
    assert looked[1] - looked[0] <= 5 and looked[-1] - looked[-2] <= RETRY_LAST_S + 1


def test_processes_that_are_gone_or_of_another_namespace(child, clock):
    outer, inner = child()
    owners = GpuOwners({"vllm": outer}, {}, clock=clock)
    absent = 4_000_000  # above what Linux gives by default
    assert ask(owners, inner, absent) == {inner: "vllm", absent: OTHER}
    psutil.Process(inner).kill()
    psutil.wait_procs([psutil.Process(inner)] if psutil.pid_exists(inner) else [], timeout=120)
    assert ask(owners, inner) == {inner: OTHER}
    clock.now += FORGET_AFTER_S + 1
    assert ask(owners) == {}
    assert owners._known == {}


def test_each_gpu_asks_about_its_own_processes(child):
    one, two = child(), child()
    owners = GpuOwners({"vllm": one[0], "ksana": two[0]}, {})
    for pid in (one[1], two[1], two[0]):
        owners.engines_of([pid])
    owners.refresh()
    assert [owners.engines_of([pid]) for pid in (one[1], two[1], two[0])] == [
        {one[1]: "vllm"}, {two[1]: "ksana"}, {two[0]: "ksana"},
    ]  # fmt: skip


def test_by_the_port_where_nothing_else_is_known(fake_engine, child):
    one, two = fake_engine(launch=True), fake_engine()
    workers = [fake.control("fork")["pid"] for fake in (one, two)]
    (_, silent), clock = child(), Clock()
    owners = GpuOwners({}, {}, clock=clock)
    assert ask(owners, *workers, two.pid, silent, os.getpid()) == {
        workers[0]: f"port-{one.port}", workers[1]: f"port-{two.port}", two.pid: f"port-{two.port}",
        silent: OTHER, os.getpid(): OTHER,
    }  # fmt: skip


class Service:
    """A process of a tree that listens on ports; its parent is None at the top."""

    def __init__(self, pid, ports, parent=None):
        self.pid, self.ports, self.parent = pid, ports, parent

    def parents(self):
        return [self.parent, *self.parent.parents()] if self.parent else []

    def name(self):
        return "python3"

    def net_connections(self, kind):
        address = types.SimpleNamespace
        return [
            types.SimpleNamespace(status=psutil.CONN_LISTEN, laddr=address(ip="0.0.0.0", port=port))
            for port in self.ports
        ]


@pytest.mark.parametrize(
    ("worker", "server", "launcher", "port"),
    [
        ((), (8000,), (), 8000),
        ((41234,), (8000,), (), 8000),
        ((41234, 8080), (8000,), (), 8080),
        ((41234,), (), (), 41234),
        ((41234,), (51000, 45000), (), 45000),
        ((), (8000,), (9000,), 8000),
        ((41234,), (), (9000, 8001), 8001),
        ((), (), (), None),
    ],
)
def test_which_port_of_a_service(worker, server, launcher, port, monkeypatch):
    monkeypatch.setattr(process_tree.os, "getpgid", lambda pid: 7)
    monkeypatch.setattr(process_tree, "_first_port_of_any", lambda: 32768)
    top = Service(9_000_001, launcher)
    assert process_tree.serving_port(Service(9_000_003, worker, Service(9_000_002, server, top))) == port
