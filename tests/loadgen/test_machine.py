"""What is known of the machine, the packages, the checkout and the clock."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.machine import (
    clock_facts,
    format_cpus,
    git_facts,
    host_facts,
    package_versions,
    parse_cpus,
    unused_ports,
)


def test_facts_of_this_machine():
    host = host_facts()
    assert host["cpus"] >= host["cpus_usable"] >= 1
    assert host["memory_bytes"] > 1 << 20
    assert host["python"] == ".".join(map(str, sys.version_info[:3]))
    assert package_versions()["locust"] == "2.47.0"
    assert 0 < clock_facts()["resolution_s"] < 1e-3


def test_git_facts(tmp_path):
    assert git_facts(tmp_path / "absent") == {}

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    assert git_facts(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "untracked").write_text("x")
    assert git_facts(tmp_path)["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_facts(tmp_path)["dirty"] is True


def test_gpus_are_listed_where_there_are_any(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, GPU-1, 143771 MiB, 570.1'\necho 'NVIDIA H200, GPU-2, 143771 MiB, 570.1'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [gpu["uuid"] for gpu in host_facts()["gpus"]] == ["GPU-1", "GPU-2"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert host_facts()["gpus"] == []


def test_unused_ports_are_none_that_an_outgoing_connection_may_get():
    ports = unused_ports(5)
    assert len(set(ports)) == 5 and all(1024 < port < 32_768 for port in ports)
    for port in ports:
        with socket.socket() as own:
            own.bind(("127.0.0.1", port))


def test_lists_of_cores():
    assert format_cpus([5, 0, 1, 2]) == "0-2,5"
    assert format_cpus([0, 7, 8]) == "0,7-8"
    assert format_cpus([]) == ""
    assert parse_cpus("0-2,5\n") == (0, 1, 2, 5)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_lists_of_cores_round_trip(cpus):
    assert set(parse_cpus(format_cpus(list(cpus)))) == cpus


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-2"])
def test_malformed_lists_of_cores_are_refused(text):
    with pytest.raises(ValueError):
        parse_cpus(text)
