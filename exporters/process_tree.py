"""The process tree behind a local host:port: who listens there, and what the whole tree uses.

The tree is found without being told a pid: the process that listens on the address, its ancestors as long as they
are plainly the same service, and all their descendants.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psutil

# A process of one of these names looks after services; it is never part of one.
MANAGERS = frozenset(
    (
        *("supervisord", "systemd", "init", "launchd", "runsvdir", "s6-svscan", "containerd-shim"),
        *("tini", "dumb-init", "docker-init", "sshd", "tmux", "screen"),
    )
)
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  (compared with, never bound)
SEARCH_EVERY_S = 5.0
"""Pause between searches that found nothing: a search reads every process's open files."""
CONFIRM_EVERY_S = 15.0
"""How often a found listener is checked to be listening still."""
PSS_SHARE = 0.005
"""Share of one core that reading PSS may take. The kernel walks every page table for it: tens of ms per few GB."""
PSS_OLDEST_S = 30.0
"""A PSS reading is never older than this."""


@dataclasses.dataclass(frozen=True, slots=True)
class TreeSample:
    """What one process tree uses at one moment."""

    processes: int
    rss_bytes: int
    """Sum of the resident sets: memory shared within the tree counts once per process."""
    pss_bytes: int | None
    """Sum of the proportional sets, in which shared memory counts once; None where it cannot be read."""
    cpu_seconds: float
    """User and system time, of ended children too. Never decreases."""


class MonotonicSum:
    """Turns the CPU time that is visible in a tree into a counter that never goes back.

    A child that was waited for moves its time into its parent's account, so the visible sum does not fall. A child
    that was not waited for takes its time with it; then counting goes on from the lower sum. As a child can end
    between the reading of its parent and of itself, a fall must be seen twice to be believed.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._visible = 0.0
        self._fell = False

    def update(self, visible: float) -> float:
        """Take in the sum visible now; returns the counter."""
        if visible >= self._visible:
            self.total += visible - self._visible
            self._visible, self._fell = visible, False
        elif self._fell:
            self._visible, self._fell = visible, False
        else:
            self._fell = True
        return self.total

    def begin_at(self, visible: float = 0.0) -> None:
        """Count from the sum visible now on; a new tree starts from zero."""
        self._visible, self._fell = visible, False


class ProcessTree:
    """Follows the process tree of the service that listens on a local host:port. For one thread at a time.

    Args:
        host: name or address from the service's URL. A host that is not this machine has no tree.
        port: its TCP port.
        others: gives the pids of other services' listeners, which the tree must not swallow.
        since: seconds since the Unix epoch; CPU time is counted from zero on, and a tree that was there before it has
            used some already. To a reader of the counter that is a restart, not a burst.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        others: Callable[[], Collection[int]] = tuple,
        since: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.port = host, port
        self._others, self._since, self._clock = others, since, clock
        self._counting = False
        self._listener: psutil.Process | None = None
        self._root: psutil.Process | None = None
        self._next_search = self._next_confirm = float("-inf")
        self._pss: int | None = None
        self._pss_pids: frozenset[int] = frozenset()
        self._next_pss = float("-inf")
        self._pss_due = float("-inf")
        self.cpu = MonotonicSum()

    @property
    def listener_pid(self) -> int | None:
        """Pid of the listening process, if one was found."""
        return self._listener.pid if self._listener else None

    @property
    def root_pid(self) -> int | None:
        """Pid of the top of the tree, if one was found."""
        return self._root.pid if self._listener and self._root else None

    def sample(self, *, answers: bool = True) -> TreeSample | None:
        """Measure the tree; None when there is none to be found.

        Args:
            answers: whether something is known to listen. If so, a lost listener is searched for at once.
        """
        root = self.find(answers=answers)
        if root is None:
            return None
        try:
            members = list(_members(root))
        except psutil.AccessDenied:
            return None  # another user's, and this system hides it: a sum over some of them would mislead
        living = [member for member in members if not member.zombie]
        if not living:
            self._listener = None
            return None
        visible = sum(member.cpu for member in members)
        if not self._counting and members[0].process.create_time() < self._since:
            self.cpu.begin_at(visible)
        self._counting = True
        return TreeSample(
            processes=len(living),
            rss_bytes=sum(member.rss for member in living),
            pss_bytes=self._read_pss([member.process for member in living]),
            cpu_seconds=self.cpu.update(visible),
        )

    def find(self, *, answers: bool = True) -> psutil.Process | None:
        """Return the top of the tree; None when there is none to be found. `answers` is as in `sample`."""
        now = self._clock()
        if self._listener is not None and self._root is not None and _alive(self._listener) and _alive(self._root):
            if now < self._next_confirm:
                return self._root
            if self._listens(self._listener):
                self._settle(self._listener, now)
                return self._root
            answers = True  # it stopped listening: perhaps another process took over
        self._listener = None
        if now < self._next_search and not answers:
            return None
        if answers and now < self._next_search - SEARCH_EVERY_S + 1:
            return None  # even so not more than once a second
        self._next_search = now + SEARCH_EVERY_S
        found = find_listeners(self.host, self.port)
        if not found:
            return None
        self._settle(found[0], now)
        return self._root

    def _settle(self, listener: psutil.Process, now: float) -> None:
        previous, self._listener = self._root, listener
        self._root = service_root(listener, self._others())
        self._next_confirm = now + CONFIRM_EVERY_S
        if previous is not None and previous != self._root and not _alive(previous):
            self.cpu.begin_at()

    def _listens(self, process: psutil.Process) -> bool:
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            return False
        return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == self.port for c in connections)

    def _read_pss(self, processes: list[psutil.Process]) -> int | None:
        """Sum of the proportional set sizes; read anew only as often as `PSS_SHARE` affords."""
        now = self._clock()
        pids = frozenset(process.pid for process in processes)
        if now < self._next_pss or (now < self._pss_due and pids == self._pss_pids):
            return self._pss
        began = time.thread_time()
        total: int | None = 0
        for process in processes:
            try:
                pss = getattr(process.memory_full_info(), "pss", None)
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                pss = None
            if pss is None:
                total = None  # a sum over some of the processes would look like the whole
                break
            total = (total or 0) + pss
        pause = min((time.thread_time() - began) / PSS_SHARE, PSS_OLDEST_S)
        self._pss, self._pss_pids = total, pids
        self._pss_due = now + pause
        self._next_pss = now + pause / 10  # a changed tree is read sooner, yet not at every change
        return self._pss


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    process: psutil.Process
    rss: int
    cpu: float
    zombie: bool


def _members(root: psutil.Process) -> Iterator[_Member]:
    """Yield the tree's processes, parents before their children, zombies too: their CPU time still counts.

    Raises:
        psutil.AccessDenied: one of them cannot be read.
    """
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            with process.oneshot():
                times, zombie = process.cpu_times(), process.status() == psutil.STATUS_ZOMBIE
                rss = 0 if zombie else process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        # On Linux the times of children that were waited for stand beside a process's own.
        reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        yield _Member(process, rss, times.user + times.system + reaped, zombie)


def _alive(process: psutil.Process) -> bool:
    """Whether this very process (not a later one with its pid) runs and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def local_addresses(host: str) -> set[str]:
    """Addresses of `host` if they belong to this machine, else nothing."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
    own = {entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}
    return {address for address in found if ipaddress.ip_address(address).is_loopback or address in own}


def find_listeners(host: str, port: int) -> list[psutil.Process]:
    """Return the local processes that listen on host:port, oldest first (a worker shares its parent's socket)."""
    addresses = local_addresses(host)
    if not addresses:
        return []
    wanted = addresses | WILDCARDS | {f"::ffff:{address}" for address in addresses}
    processes = []
    for pid in {pid for pid, ip, listening in _listening() if listening == port and ip in wanted}:
        try:
            process = psutil.Process(pid)
            processes.append((process.create_time(), pid, process))
        except psutil.Error:
            continue
    return [process for _, _, process in sorted(processes, key=lambda item: item[:2])]


def _listening() -> Iterator[tuple[int, str, int]]:
    """Yield (pid, address, port) of every listening TCP socket that this user may see."""
    try:
        for c in psutil.net_connections(kind="tcp"):
            if c.status == psutil.CONN_LISTEN and c.pid and c.laddr:
                yield c.pid, c.laddr.ip, c.laddr.port
    except psutil.AccessDenied:  # macOS shows an ordinary user only its own processes, one at a time
        for process in psutil.process_iter():
            try:
                connections = process.net_connections(kind="tcp")
            except psutil.Error:
                continue
            for own in connections:
                if own.status == psutil.CONN_LISTEN and own.laddr:
                    yield process.pid, own.laddr.ip, own.laddr.port


def service_root(listener: psutil.Process, others: Collection[int] = ()) -> psutil.Process:
    """Return the top of the listener's service: the highest ancestor that plainly belongs to it.

    Engines start their servers in helpers of their own, and those stay in their launcher's process group; a process
    manager (and a shell with job control) gives each service its own group. So an ancestor belongs when it is in the
    listener's group, is no known manager, and is above neither this exporter nor another service.
    """
    strangers = set(_ancestors(os.getpid()))
    for pid in others:
        if pid != listener.pid:
            strangers.update(_ancestors(pid))
    root = listener
    try:
        group = os.getpgid(listener.pid)
        while True:
            parent = root.parent()
            if parent is None or parent.pid <= 1 or parent.pid in strangers or parent.name() in MANAGERS:
                return root
            if os.getpgid(parent.pid) != group:
                return root
            root = parent
    except (psutil.Error, OSError):
        return root


def serving_port(process: psutil.Process) -> int | None:
    """Return the port that a process' service listens on: its own, or that of the nearest ancestor in its group.

    Engines' parts talk to each other over ports that the kernel hands out for the asking. So those count only where
    there is no other, and then the lowest of the topmost process that has any.
    """
    strangers = set(_ancestors(os.getpid()))
    first_of_any = _first_port_of_any()
    found = None
    try:
        group = os.getpgid(process.pid)
        for one in (process, *process.parents()):
            if one.pid <= 1 or one.pid in strangers or one.name() in MANAGERS or os.getpgid(one.pid) != group:
                break
            listening = (c for c in one.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN and c.laddr)
            port = min((c.laddr.port for c in listening), default=None)
            if port is not None:
                found = port
                if port < first_of_any:
                    break
    except (psutil.Error, OSError):
        pass
    return found


def _first_port_of_any() -> int:
    """Lowest port that is given to who binds none in particular (ip(7)); IANA's where the kernel does not say."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 49152


def _ancestors(pid: int) -> Iterator[int]:
    """Yield the pid itself and its ancestors, as far as they can be seen."""
    try:
        process = psutil.Process(pid)
        yield pid
        yield from (parent.pid for parent in process.parents())
    except psutil.Error:
        return
