"""What a run is made on: facts of the host, the packages, the checkout and the clock. Light: every command loads it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import ipaddress
import os
import platform
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""What holds our packages: the checkout, or wherever they are installed. Processes of ours start there."""
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file()
"""Whether there is a Makefile to speak of."""
HOME = ROOT if IN_CHECKOUT else Path.cwd()
"""Where `.env`, `.bakeoff/` and `runs/` lie: the checkout; without one, the working directory."""
MAKES_OWN_MARK = "MAKELEVEL"
"""Set in the environment of what a Makefile starts."""
PACKAGES = ("bakeoff", "locust", "gevent", "httptools", "numpy", "polars", "prometheus-client", "pydantic")


def by_make() -> bool:
    """Whether the user called `make`: advice names its targets then, and commands of `bakeoff` else."""
    return IN_CHECKOUT and MAKES_OWN_MARK in os.environ


def host_facts() -> dict[str, Any]:
    """Describe this machine: operating system, processor, memory, and NVIDIA GPUs and driver if any."""
    import psutil

    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": psutil.cpu_count(logical=True),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _nvidia_gpus(),
    }


def parse_cpus(text: str) -> tuple[int, ...]:
    """Cores in Linux's list format: `0-2,5` is (0, 1, 2, 5). Raises ValueError if it is malformed."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if high < low:
            raise ValueError(f"{part!r} runs backwards")
        cpus.update(range(low, high + 1))
    return tuple(sorted(cpus))


def format_cpus(cpus: Collection[int]) -> str:
    """Cores as Linux lists them: 0, 1, 2, 5 becomes `0-2,5`."""
    parts: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if parts and parts[-1][-1] == cpu - 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def unused_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has now, below those that the kernel gives to outgoing connections (from 32768).

    So only somebody who asks for just such a port can take one before its user does. Raises OSError: there are none.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_768), 2000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
            if len(found) == count:
                return found
    raise OSError("no port between 20000 and 32768 is free")


def listeners(port: int) -> list[int]:
    """Ids of the processes that listen on a TCP port of this machine, as far as this user may see them."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return sorted(
            {
                each.pid
                for each in psutil.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid
            }
        )
    return []


def package_versions() -> dict[str, str]:
    """Versions of the packages that take part in a measurement."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_facts(folder: Path = ROOT) -> dict[str, Any]:
    """Commit of the checkout, and whether it had uncommitted changes; empty where `folder` is not the top of one."""
    if shutil.which("git") is None:
        return {}
    try:
        if _output(["git", "-C", str(folder), "rev-parse", "--show-prefix"]):
            return {}  # somebody else's repository, which our packages are installed in
        commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
        changed = _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "dirty": bool(changed)}


def clock_facts() -> dict[str, Any]:
    """Describe the clock that all times come from."""
    info = time.get_clock_info("monotonic")
    return {"name": "monotonic", "implementation": info.implementation, "resolution_s": info.resolution}


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _nvidia_gpus() -> list[dict[str, str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        rows = _output(["nvidia-smi", "--query-gpu=name,uuid,memory.total,driver_version", "--format=csv,noheader"])
    except (OSError, subprocess.SubprocessError):
        return []
    keys = ("name", "uuid", "memory", "driver")
    return [dict(zip(keys, (cell.strip() for cell in row.split(",")), strict=False)) for row in rows.splitlines()]
