"""Keep this process, and the engine that it becomes, on cores and on one NUMA node's memory; and tell what was done."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from typing import Any

from loadgen.errors import UserError
from loadgen.machine import format_cpus
from stack.cpus import available_cpus, stay_on

BIND = 2
"""MPOL_BIND of linux/mempolicy.h: memory comes from these nodes, or not at all."""
SYSTEM_CALLS = {"x86_64": 238, "aarch64": 237}
"""The number of set_mempolicy(2): no library of C has it, libnuma only."""
MOST_NODES = 1024


def pin(engine: str, cpus: Sequence[int], memory_node: int | None = None) -> dict[str, Any]:
    """Stay on cores and, if one is named, on a NUMA node's memory; what becomes of it, for the launch record.

    Both outlast `exec` and go on to children. Raises UserError for cores that this process may not use.
    """
    try:
        pinned = stay_on(cpus)
    except OSError:
        raise UserError(
            f"{engine} is to run on cores {format_cpus(cpus)}, and may use {format_cpus(available_cpus())} only"
        ) from None
    facts: dict[str, Any] = {"cpus": format_cpus(cpus), "cpus_pinned": pinned}
    if memory_node is not None:
        why_not = bind_memory(memory_node)
        facts |= {"memory_node": memory_node, "memory_bound": not why_not}
        facts |= {"memory_not_bound": why_not} if why_not else {}
    return facts


def bind_memory(node: int) -> str:
    """Have memory come from one NUMA node from now on; why that cannot be, empty where it is so."""
    number = SYSTEM_CALLS.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None:
        return "this system has no such call that is known here"
    if not 0 <= node < MOST_NODES:
        return f"there is no node {node}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = (ctypes.c_ulong * (MOST_NODES // 64))()
    words[node // 64] = 1 << (node % 64)
    # The kernel takes one bit less than it is told of.
    if libc.syscall(ctypes.c_long(number), ctypes.c_int(BIND), words, ctypes.c_ulong(MOST_NODES + 1)) != 0:
        return os.strerror(ctypes.get_errno()).lower()
    return ""
