"""Watches the machine while one block runs: the kernel's counters at both ends of it, and in between whether a process
was stopped, which no counter tells."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from loadgen.contention.kernel import STOPPED, TICKS_PER_S, Core, Kernel, Process, Quota, tree
from loadgen.contention.reading import Contention, Gpu, Side
from loadgen.contention.rule import judge

PEEK_EVERY_S = 2.0
"""Pause between looks at all counters in mid-block, for those who follow it live."""
PEEK_SHARE = 0.005
"""Share of one core that these looks may take: a machine of many processes is looked at less often."""
LONGEST_LOOK_S = 1.0
"""A look stands for the time since the last one, but not for more than this."""
PRESSURES = ("cpu", "memory", "io")
MOST_BUSIEST = 3
LEAST_PERIODS = 10
"""With fewer periods a share of them means nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Counters:
    """One side's counters at one moment."""

    members: frozenset[int]
    cores: frozenset[int]
    waits: dict[tuple[int, int], int]
    """Of each thread, by start of its process and thread id."""
    quotas: dict[str, Quota]
    """Of each control group of theirs that has one."""
    pressure: dict[str, int]
    heats: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Moment:
    """All counters at one moment."""

    at: float
    cores: dict[int, Core]
    processes: dict[int, Process]
    ours: dict[int, frozenset[int]]
    """The cores of each process that is not another's: of both sides, and of those that help."""
    sides: tuple[_Counters, _Counters]


class Watch:
    """One block. It begins when this is made; `look` a few times a second, `reading` at its end.

    Args:
        engine: pids of the engine on this machine, their descendants left out; empty where it is elsewhere.
        client: likewise of the processes that time requests.
        helpers: pids of what else is ours, whose CPU is not counted as that of others.
        kernel: reads the machine.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        engine: Sequence[int],
        client: Sequence[int],
        helpers: Sequence[int] = (),
        kernel: Kernel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roots = tuple(engine), tuple(client)
        self._all = *engine, *client, *helpers
        self._kernel, self._clock = kernel or Kernel(), clock
        self._stopped_s = [0.0, 0.0]
        self._megahertz: tuple[list[float], list[float]] = [], []
        self._begin = self._moment()
        self._looked = self._peeked = self._begin.at
        self._pause = PEEK_EVERY_S

    def look(self) -> None:
        """See whether a process is stopped now."""
        now = self._clock()
        for place, side in enumerate(self._begin.sides):
            states = (self._kernel.process(pid) for pid in side.members)
            if any(process is not None and process.state in STOPPED for process in states):
                self._stopped_s[place] += min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now

    def peek(self) -> Contention | None:
        """The reading so far, where it is time for one."""
        began = self._clock()
        if began - self._peeked < self._pause:
            return None
        found = self.reading()
        self._peeked = self._clock()
        self._pause = max(PEEK_EVERY_S, (self._peeked - began) / PEEK_SHARE)
        return found

    def reading(self, gpus: Sequence[Gpu] = ()) -> Contention:
        """What is known of the block until now."""
        begin, end = self._begin, self._moment()
        seconds = max(end.at - begin.at, 1e-9)
        sides: list[Side | None] = []
        for place, (first, last) in enumerate(zip(begin.sides, end.sides, strict=True)):
            if not first.members or not last.members:
                sides.append(None)
                continue
            clocks = self._megahertz[place]
            side = Side(
                processes=len(last.members),
                cores=tuple(sorted(last.cores)),
                **_cores_shares(begin, end, last.cores),
                waiting_share=_longest_wait(first.waits, last.waits, seconds),
                throttled_share=_throttled(first.quotas, last.quotas),
                stopped_s=self._stopped_s[place],
                pressure=_pressure(first.pressure, last.pressure, seconds),
                megahertz=sum(clocks) / len(clocks) if clocks else None,
                heats=None if first.heats is None or last.heats is None else last.heats - first.heats,
            )
            sides.append(dataclasses.replace(side, kept_share=_kept(side)))
        return Contention(
            seconds=seconds,
            engine=sides[0],
            client=sides[1],
            gpus=tuple(gpus),
            busiest=_busiest(begin, end, seconds),
            findings=judge(seconds, sides[0], sides[1], gpus),
        )

    def _moment(self) -> _Moment:
        kernel, processes = self._kernel, self._kernel.processes()
        ours = {pid: kernel.affinity(pid) or frozenset() for pid in tree(processes, self._all)}
        sides = [self._counters(processes, ours, place) for place in range(2)]
        return _Moment(self._clock(), kernel.cores() or {}, processes, ours, (sides[0], sides[1]))

    def _counters(self, processes: Mapping[int, Process], ours: Mapping[int, frozenset[int]], place: int) -> _Counters:
        kernel, roots = self._kernel, self._roots[place]
        members = tree(processes, roots)
        cores = frozenset().union(*(ours[pid] for pid in members))
        waits: dict[tuple[int, int], int] = {}
        quotas: dict[str, Quota] = {}
        for pid in members:
            waits |= {(processes[pid].started, thread): wait for thread, wait in kernel.waits(pid).items()}
            groups = kernel.groups(pid)
            if (quota := kernel.quota(groups)) is not None:
                quotas[str(groups)] = quota
        groups = next((kernel.groups(pid) for pid in roots if pid in members), {})
        pressure = {
            f"{what} {kind}": total
            for what in PRESSURES
            for kind, total in ((kernel.pressure(what, groups) or {}) if members else {}).items()
        }
        if (clock := kernel.megahertz(cores)) is not None:
            self._megahertz[place].append(clock)
        return _Counters(members, cores, waits, quotas, pressure, kernel.heats(cores))


def _cores_shares(begin: _Moment, end: _Moment, cores: frozenset[int]) -> dict[str, float | None]:
    """What became of the time of these cores.

    Where our processes may also run on other cores, all of their time is taken to be on these: so others are told less
    than they took, never more.
    """
    known = [cpu for cpu in cores if cpu in begin.cores and cpu in end.cores]
    total = sum(end.cores[cpu].total - begin.cores[cpu].total for cpu in known)
    if total <= 0:
        return {}
    busy = sum(end.cores[cpu].busy - begin.cores[cpu].busy for cpu in known)
    steal = sum(end.cores[cpu].steal - begin.cores[cpu].steal for cpu in known)
    # One that has ended is in its parent's time.
    used = sum(end.processes[pid].cpu for pid, own in end.ours.items() if own & cores)
    used -= sum(begin.processes[pid].cpu for pid, own in begin.ours.items() if own & cores)
    own = min(max(used, 0), busy)
    return {"own_share": own / total, "others_share": (busy - own) / total, "steal_share": max(steal, 0) / total}


def _longest_wait(
    before: Mapping[tuple[int, int], int], after: Mapping[tuple[int, int], int], seconds: float
) -> float | None:
    waited = [wait - before.get(thread, 0) for thread, wait in after.items()]
    return min(max(waited) / 1e9 / seconds, 1.0) if waited else None


def _kept(side: Side) -> float | None:
    """Who waits for a core waits for those that run there: ours and others, in proportion to what they used."""
    if side.waiting_share is None or side.others_share is None or side.own_share is None:
        return None
    busy = side.others_share + side.own_share
    return side.waiting_share * side.others_share / busy if busy > 0 else 0.0


def _throttled(before: Mapping[str, Quota], after: Mapping[str, Quota]) -> float | None:
    """Of the group that was held up most, the share of its periods."""
    shares = [
        (quota.throttled - before[group].throttled) / periods
        for group, quota in after.items()
        if group in before and (periods := quota.periods - before[group].periods) >= LEAST_PERIODS
    ]
    return max(shares, default=None)


def _pressure(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> dict[str, float]:
    return {
        kind: min(max(0, total - before[kind]) / 1e6 / seconds, 1.0) for kind, total in after.items() if kind in before
    }


def _busiest(begin: _Moment, end: _Moment, seconds: float) -> tuple[tuple[str, float], ...]:
    """The processes of others that used most CPU, those of one name together, in cores."""
    used: dict[str, int] = {}
    for pid, process in end.processes.items():
        if pid in end.ours:
            continue
        former = begin.processes.get(pid)
        same = former is not None and former.started == process.started
        # Of their own: a child that has ended would bring what it used before the block too.
        ticks = process.alone - (former.alone if former is not None and same else 0)
        used[process.name] = used.get(process.name, 0) + max(0, ticks)
    found: Iterable[tuple[str, int]] = sorted(used.items(), key=lambda item: -item[1])[:MOST_BUSIEST]
    return tuple((name, ticks / TICKS_PER_S / seconds) for name, ticks in found if ticks)
