"""Was a block disturbed, and does it decide something all the same? The rule, in one place; docs/methodology.md says it
in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from loadgen.contention.reading import Contention, Finding, Gpu, Kind, Side, SideName
from loadgen.message import Message, counted, joined, mark, say

MARKS: Mapping[Kind, float] = {
    "others": 0.10,
    "kept": 0.05,
    "steal": 0.05,
    "throttled": 0.05,
    "stopped": 0.0,
    "memory": 0.05,
    "io": 0.20,
    "heat": 0,
    "gpu_clocks": 0.05,
    "gpu_shared": 0,
}
"""A block is marked where a figure is beyond this."""
STOPPED_VOIDS = 0.02
"""A block decides nothing where a process was stopped for more than this share of its time. Nothing else voids a block:
what others take makes blocks scatter, which the intervals hold, and is told."""
USUAL_CLOCKS = ("idle", "application_clocks", "display_clocks", "power_cap")
"""Reasons for lower clocks that are the card's usual way to work: with a full load, its power limit too."""
MOST_NAMES = 2
LEAST_CORES = 0.05
"""A process that used less is not worth its name."""


def judge(seconds: float, engine: Side | None, client: Side | None, gpus: Sequence[Gpu] = ()) -> tuple[Finding, ...]:
    """What was found in a block of so many seconds, the gravest first."""
    found = [*_of_side("engine", engine, seconds), *_of_side("client", client, seconds)]
    for gpu in gpus:
        low = max((share for reason, share in gpu.held_down.items() if reason not in USUAL_CLOCKS), default=None)
        found += _beyond("gpu_clocks", "engine", low)
        found += _beyond("gpu_shared", "engine", gpu.other_processes)
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: not finding.voids))


def _of_side(name: SideName, side: Side | None, seconds: float) -> list[Finding]:
    if side is None:
        return []
    found = [
        *_beyond("stopped", name, side.stopped_s, voids=side.stopped_s > STOPPED_VOIDS * seconds),
        *_beyond("kept", name, side.kept_share),
        *_beyond("others", name, side.others_share),
        *_beyond("steal", name, side.steal_share),
        *_beyond("throttled", name, side.throttled_share),
        *_beyond("memory", name, side.pressure.get("memory some")),
        *_beyond("io", name, side.pressure.get("io full")),
        *_beyond("heat", name, side.heats),
    ]
    return found


def _beyond(kind: Kind, side: SideName, value: float | None, *, voids: bool = False) -> list[Finding]:
    if value is None or not value > MARKS[kind]:
        return []
    return [Finding(kind, side, value, voids)]


WORDS: Mapping[tuple[Kind, SideName], str] = {
    ("others", "engine"): mark("others took {most}{size} of the engine's cores"),
    ("others", "client"): mark("others took {most}{size} of the load generator's cores"),
    ("kept", "engine"): mark("others kept the engine from its cores for {most}{size} of the time"),
    ("kept", "client"): mark("others kept the load generator from its cores for {most}{size} of the time"),
    ("steal", "engine"): mark("the hypervisor took {most}{size} of the engine's cores"),
    ("steal", "client"): mark("the hypervisor took {most}{size} of the load generator's cores"),
    ("throttled", "engine"): mark("the engine's CPU quota held it up in {most}{size} of its periods"),
    ("throttled", "client"): mark("the load generator's CPU quota held it up in {most}{size} of its periods"),
    ("stopped", "engine"): mark("the engine was stopped for {most}{size}"),
    ("stopped", "client"): mark("the load generator was stopped for {most}{size}"),
    ("memory", "engine"): mark("the engine was short of memory for {most}{size} of the time"),
    ("memory", "client"): mark("the load generator was short of memory for {most}{size} of the time"),
    ("io", "engine"): mark("the engine's machine waited for its disk for {most}{size} of the time"),
    ("io", "client"): mark("the load generator's machine waited for its disk for {most}{size} of the time"),
    ("heat", "engine"): mark("heat held down the clocks of the engine's cores {most}{size}"),
    ("heat", "client"): mark("heat held down the clocks of the load generator's cores {most}{size}"),
    ("gpu_clocks", "engine"): mark("the GPU's clocks were held down for {most}{size} of the time"),
    ("gpu_shared", "engine"): mark("{most}{size} of others ran on the engine's GPU"),
}


def words(finding: Finding, *, upto: bool = False) -> Message:
    """A finding as a sentence without its end; `upto`: the value is the greatest of several."""
    return say(WORDS[finding.kind, finding.side], most=say("up to ") if upto else "", size=_size(finding))


def _size(finding: Finding) -> str:
    if finding.kind == "stopped":
        return f"{finding.value:.2g} s"
    if finding.kind == "heat":
        return counted(int(finding.value), "{count} time", "{count} times")
    if finding.kind == "gpu_shared":
        return counted(int(finding.value), "{count} process", "{count} processes")
    return f"{finding.value:.0%}"


def reasons(contention: Contention) -> list[Message]:
    """All that was found in a block, in words, and who it was as far as that is known."""
    found = [words(finding) for finding in contention.findings]
    named = [f"{name} {cores:.2g}" for name, cores in contention.busiest[:MOST_NAMES] if cores >= LEAST_CORES]
    if named and any(finding.kind in ("others", "kept") for finding in contention.findings):
        found.append(say("busiest, in cores: {names}", names=joined("{a}, {b}", named)))
    return found


def over_blocks(contentions: Iterable[Contention]) -> list[tuple[Finding, int]]:
    """Each kind of finding once, the greatest, and in how many blocks it was: what voids first, then by blocks."""
    greatest: dict[tuple[Kind, SideName], Finding] = {}
    counts: dict[tuple[Kind, SideName], int] = {}
    for contention in contentions:
        mine = {(finding.kind, finding.side): finding for finding in reversed(contention.findings)}
        for key, finding in mine.items():
            counts[key] = counts.get(key, 0) + 1
            former = greatest.get(key, finding)
            greatest[key] = max(former, finding, key=lambda one: (one.voids, one.value))
    keys = sorted(greatest, key=lambda key: (not greatest[key].voids, -counts[key]))
    return [(greatest[key], counts[key]) for key in keys]
