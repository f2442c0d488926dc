"""One block's watch, on counters that are made up and on real processes with real disturbers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from loadgen.contention.kernel import TICKS_PER_S, Core, Kernel, Process
from loadgen.contention.watch import Watch

ENGINE, CHILD, CLIENT, HELPER, STRANGER = 10, 11, 20, 30, 40
BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass\n"


class MadeUp(Kernel):
    """A machine of two cores: the engine on core 0, the load generator on core 1. Seconds of CPU are set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu = dict.fromkeys((ENGINE, CHILD, CLIENT, HELPER, STRANGER), 0.0)
        self.waited_s, self.stolen_s, self.at = 0.0, 0.0, 0.0
        self.on = {ENGINE: 0, CHILD: 0, CLIENT: 1, HELPER: 1, STRANGER: 0}

    def cores(self):
        def ticks(core):
            return round(TICKS_PER_S * sum(cpu for pid, cpu in self.cpu.items() if self.on[pid] == core))

        steal = round(TICKS_PER_S * self.stolen_s)
        return {core: Core(ticks(core), steal, round(TICKS_PER_S * self.at)) for core in (0, 1)}

    def processes(self):
        parents = {CHILD: ENGINE}
        return {
            pid: Process(f"p{pid}", "S", parents.get(pid, 1), ticks, 5, ticks)
            for pid, cpu in self.cpu.items()
            for ticks in [round(TICKS_PER_S * cpu)]
        }

    def process(self, pid):
        return self.processes().get(pid)

    def waits(self, pid):
        return {pid: round(1e9 * self.waited_s)} if pid == CHILD else {pid: 0}

    def affinity(self, pid):
        return frozenset({self.on[pid]})

    def groups(self, pid):
        return {}

    def quota(self, groups):
        return None

    def pressure(self, what, groups=None):
        return {"some": 0, "full": 0}

    def megahertz(self, cpus):
        return None

    def heats(self, cpus):
        return None


def watched(**after):
    """A block of ten seconds in which this became of the counters."""
    machine = MadeUp()
    watch = Watch([ENGINE], [CLIENT], [HELPER], machine, lambda: machine.at)
    machine.at = 10.0
    machine.cpu |= after.pop("cpu", {})
    for name, value in after.items():
        setattr(machine, name, value)
    return watch.reading()


def test_a_child_and_a_helper_are_no_strangers():
    found = watched(cpu={ENGINE: 2, CHILD: 5, CLIENT: 1, HELPER: 6})
    assert found.findings == ()
    assert (found.engine.own_share, found.engine.others_share) == (pytest.approx(0.7), 0)
    assert (found.client.own_share, found.client.others_share) == (pytest.approx(0.7), 0)


def test_what_a_stranger_takes_is_told_of_the_side_that_lost_it():
    found = watched(cpu={CHILD: 5, STRANGER: 4}, waited_s=3.6)
    assert found.engine.others_share == pytest.approx(0.4)
    assert found.engine.kept_share == pytest.approx(0.36 * 4 / 9), "the other five ninths it waited for its own"
    assert [(one.kind, one.side) for one in found.findings] == [("kept", "engine"), ("others", "engine")]
    assert found.busiest == ((f"p{STRANGER}", pytest.approx(0.4)),)


def test_a_wait_for_ones_own_is_nobodys_fault():
    assert watched(cpu={ENGINE: 4, CHILD: 6}, waited_s=4.0).findings == ()


def test_what_a_hypervisor_takes_is_told_of_both_sides():
    found = watched(cpu={CHILD: 5}, stolen_s=2.0)
    assert [(one.kind, one.side, one.value) for one in found.findings] == [
        ("steal", side, pytest.approx(0.2)) for side in ("engine", "client")
    ]


def test_an_engine_elsewhere_is_not_known():
    machine = MadeUp()
    reading = Watch([], [99], [], machine, lambda: machine.at).reading()
    assert reading.engine is reading.client is None and reading.findings == ()


@contextlib.contextmanager
def busy(core):
    with subprocess.Popen([sys.executable, "-c", BUSY, str(core)]) as process:
        try:
            until = time.monotonic() + 60
            while os.sched_getaffinity(process.pid) != {core}:
                assert time.monotonic() < until, "it never came to its core"
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux tells")
def test_a_real_neighbour_and_a_real_stop_are_found():
    core = min(os.sched_getaffinity(0))
    with busy(core) as engine:
        with busy(core):
            watch = Watch([engine], [], [])
            time.sleep(2)
            found = watch.reading()
        assert {"others", "kept"} <= {one.kind for one in found.findings if one.side == "engine"}
        assert not found.void
        watch = Watch([engine], [], [])
        os.kill(engine, signal.SIGSTOP)
        until = time.monotonic() + 60
        while not (found := watch.reading()).void:
            assert time.monotonic() < until
            time.sleep(0.1)
            watch.look()
        assert found.findings[0].kind == "stopped"
