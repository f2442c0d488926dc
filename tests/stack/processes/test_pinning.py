"""Cores and memory of an engine, as the kernel tells them of a process that is placed."""

import json
import platform
import subprocess
import sys

import pytest

from loadgen.errors import UserError
from loadgen.machine import format_cpus
from stack.cpus import available_cpus
from stack.processes import pinning
from stack.processes.pinning import bind_memory, pin

LOOK = """\
import json, os, sys
from stack.processes.pinning import pin
print(json.dumps(pin("vllm", [min(os.sched_getaffinity(0))], 0)), flush=True)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
CHILD = """\
import os
from pathlib import Path
maps = Path("/proc/self/numa_maps")
print(sorted(os.sched_getaffinity(0)), maps.exists() and maps.read_text().split()[1])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's calls")


def test_cores_and_memory_outlast_exec():
    done = subprocess.run([sys.executable, "-c", LOOK, CHILD], capture_output=True, text=True, check=True)
    told, child = done.stdout.splitlines()
    facts, cores = json.loads(told), min(available_cpus())
    assert (facts["cpus"], facts["cpus_pinned"], facts["memory_node"]) == (str(cores), True, 0)
    assert child.startswith(f"[{cores}]")
    if facts["memory_bound"] and not child.endswith("False"):
        assert child.endswith("bind:0")
    assert facts["memory_bound"] is ("memory_not_bound" not in facts)


def test_cores_that_there_are_not_are_one_message():
    here = format_cpus(available_cpus())
    with pytest.raises(UserError, match=f"vllm is to run on cores 1000-1001, and may use {here} only"):
        pin("vllm", [1000, 1001])


def test_memory_that_cannot_be_bound_is_told(monkeypatch):
    assert bind_memory(5000) == "there is no node 5000"
    assert bind_memory(999)  # in words, whatever the kernel says
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    facts = pin("vllm", available_cpus(), 0)
    assert facts["memory_bound"] is False and "no such call" in facts["memory_not_bound"]
    assert pinning.pin("vllm", available_cpus()) == {"cpus": format_cpus(available_cpus()), "cpus_pinned": True}
