"""Which cores serve and which make traffic, and a small launcher that keeps a command on its cores.

Standard library only: the engines' environments import this module too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from loadgen.machine import parse_cpus

# Below this a core taken from the engine costs it more than sharing costs the measurement.
SPLIT_FROM_CORES = 4


class CpuPlan(NamedTuple):
    """The cores of every engine (all engines get the same) and those of traffic and monitoring."""

    engine: tuple[int, ...]
    traffic: tuple[int, ...]


def available_cpus() -> tuple[int, ...]:
    """The cores this process may run on, ascending (all of the machine's where the system cannot tell)."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def plan_cpus(cpus: Sequence[int], traffic: int = 1) -> CpuPlan:
    """Give the last cores to traffic, a quarter at most, where there are four or more; else let all share all.

    `traffic` is how many cores traffic and monitoring can use. Raises ValueError if `cpus` is empty.
    """
    ordered = tuple(sorted(set(cpus)))
    if not ordered:
        raise ValueError("a plan needs at least one core")
    if len(ordered) < SPLIT_FROM_CORES:
        return CpuPlan(engine=ordered, traffic=ordered)
    count = min(traffic, len(ordered) // SPLIT_FROM_CORES)
    return CpuPlan(engine=ordered[:-count], traffic=ordered[-count:])


def stay_on(cpus: Sequence[int]) -> bool:
    """Keep this process and its children on these cores; False where the system cannot (macOS)."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cpus)
    return True


def main(arguments: Sequence[str]) -> None:
    """`python -m stack.cpus 0-2 command ...`: become the command, on these cores."""
    if len(arguments) < 2:
        raise SystemExit("usage: python -m stack.cpus CPU-LIST COMMAND [ARGUMENT ...]")
    stay_on(parse_cpus(arguments[0]))
    try:
        os.execvp(arguments[1], list(arguments[1:]))  # noqa: S606 - the command is the supervisor's own
    except OSError as error:
        raise SystemExit(f"cannot start {arguments[1]}: {error.strerror}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
