"""What containers use, read from trees of control groups."""

import os
import shutil
from pathlib import Path

import pytest

from exporters.containers import SEARCH_EVERY_S, Cgroups, ContainerUsage
from tests.exporters.cgroup_tree import MIB, version1, version2, write

A, B = "a1" * 32, "b2" * 32
USES = {"charged": 140 * MIB, "unused": 30 * MIB, "cpu_us": 12_345_678}
KNOWN = ContainerUsage(140 * MIB, 110 * MIB, 12.345678)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    "place",
    [
        f"docker/{A}",
        f"system.slice/docker-{A}.scope",
        f"bench.slice/docker-{A}.scope",  # Compose's cgroup_parent
        f"a.slice/a-b.slice/a-b-c.slice/docker-{A}.scope",
        f"machine.slice/libpod-{A}.scope",
    ],
)
def test_both_versions_wherever_the_container_lies(tmp_path, place):
    version2(tmp_path / "2", place, **USES)
    assert Cgroups(tmp_path / "2").usage(A) == KNOWN
    for number, cpu in enumerate(("cpuacct", "cpu,cpuacct", "cpuacct,cpu")):
        root = tmp_path / f"1-{number}"
        version1(root, place, **USES, cpu=cpu)
        (root / "unified").mkdir()  # hybrid: version 2 is there too, without controllers
        assert Cgroups(root).usage(A) == KNOWN


def test_a_shortened_id(tmp_path):
    version2(tmp_path, f"docker/{A}", **USES)
    assert Cgroups(tmp_path).usage(A[:12]) == KNOWN


def test_others_are_not_taken_for_it(tmp_path):
    version2(tmp_path, f"docker/{B}", **USES)
    version2(tmp_path, f"system.slice/docker-{B}.scope/a1a1", **USES)
    version2(tmp_path, f"system.slice/{A}x.service", **USES)
    found = Cgroups(tmp_path)
    assert found.usage(B) == KNOWN
    assert found.usage(A[:12] + "0" * 52) is None
    assert found.usage("0" * 64) is None


def test_a_container_that_ends_and_comes_back(tmp_path):
    clock = Clock()
    found = Cgroups(tmp_path, clock=clock)
    for place in (f"docker/{A}", f"own.slice/docker-{A}.scope"):
        folder = version2(tmp_path, place, **USES)
        clock.now += SEARCH_EVERY_S
        assert found.usage(A) == KNOWN
        shutil.rmtree(folder)
        assert found.usage(A) is None, "absent, never its last figures"


def test_the_tree_is_searched_seldom_and_for_all_at_once(tmp_path):
    """Of two containers in unusual places one does not run: it must not use up the other's search."""
    clock = Clock()
    found = Cgroups(tmp_path, clock=clock)
    version2(tmp_path, f"own.slice/docker-{B}.scope", **USES)
    assert found.usage(A) is None
    assert found.usage(B) == KNOWN
    version2(tmp_path, f"own.slice/docker-{A}.scope", **USES)
    assert found.usage(A) is None
    clock.now += SEARCH_EVERY_S
    assert found.usage(A) == KNOWN


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("memory.current", None, ContainerUsage(None, None, 12.345678)),
        ("memory.current", "much\n", ContainerUsage(None, None, 12.345678)),
        ("memory.stat", None, ContainerUsage(140 * MIB, None, 12.345678)),
        ("memory.stat", "inactive_file\n", ContainerUsage(140 * MIB, None, 12.345678)),
        ("memory.stat", f"inactive_file {200 * MIB}\n", ContainerUsage(140 * MIB, 0, 12.345678)),
        ("cpu.stat", None, ContainerUsage(140 * MIB, 110 * MIB, None)),
        ("cpu.stat", "", ContainerUsage(140 * MIB, 110 * MIB, None)),
    ],
)
def test_what_a_group_does_not_tell_is_unknown(tmp_path, name, text, expected):
    folder = version2(tmp_path, f"docker/{A}", **USES)
    (folder / name).unlink()
    if text is not None:
        write(folder / name, text)
    assert Cgroups(tmp_path).usage(A) == expected


def test_no_tree_at_all(tmp_path):
    assert Cgroups(tmp_path / "none").usage(A) is None


@pytest.mark.skipif(not Path("/sys/fs/cgroup/memory/memory.usage_in_bytes").exists(), reason="no version 1 here")
def test_the_files_are_those_that_linux_has(tmp_path):
    """The root group of this machine, under a container's name: what is read is there, and of a plausible size."""
    for name in ("memory", "cpuacct"):
        (tmp_path / name / "docker").mkdir(parents=True)
        (tmp_path / name / "docker" / A).symlink_to(f"/sys/fs/cgroup/{name}")
    usage = Cgroups(tmp_path).usage(A)
    assert usage is not None
    assert usage.memory_bytes and usage.working_set_bytes is not None and usage.cpu_seconds
    assert 0 < usage.working_set_bytes <= usage.memory_bytes
    assert usage.cpu_seconds > sum(os.times()[:2])
