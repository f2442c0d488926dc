"""All runs, in turn: repeat by repeat, so that an interrupt leaves something of everything."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.client.loads import Load
from benchmarks.client.measure import measure
from benchmarks.client.peer import Peer
from benchmarks.client.peer_environment import OwnEnvironment, versions
from benchmarks.client.results import PeerResult, Run, Store
from loadgen.errors import UserError
from loadgen.machine import ROOT as CHECKOUT

BLAST_S = 5.0
"""About what a run in blast takes beside its start."""


@dataclass
class Campaign:
    """Measures peers and keeps what it has after each run."""

    store: Store
    machine: dict[str, str]
    cores: tuple[int, int]
    """Of the server and of the peer."""
    realtime: bool
    console: Console
    failures: int = 0
    load_average: float = 0.0

    def same_machine(self, result: PeerResult) -> bool:
        """Whether a result was measured on this machine, on these cores."""
        return all(result.basis.get(key) == value for key, value in self.machine.items())

    def measure(
        self, peers: Sequence[Peer], loads: Mapping[str, Sequence[Load]], repeats: int, *, resume: bool
    ) -> bool:
        """Measure peers at their loads. Returns False when it was interrupted.

        Args:
            peers: in the order of their turns.
            loads: of each peer, by its name.
            repeats: of each load.
            resume: leave out runs that succeeded before, with the same versions on this machine.

        Raises:
            UserError: results cannot be written.
        """
        self.load_average = os.getloadavg()[0]
        try:
            ready = self._set_up(peers)
            todo = [
                (repeat, peer, python, result, load)
                for repeat in range(repeats)
                for peer, python, result in ready
                for load in loads[peer.name]
                if not (resume and result.has(load.name, repeat))
            ]
            seconds = sum(peer.start_s + (BLAST_S if load.blast else load.seconds) for _, peer, _, _, load in todo)
            self.console.print(f"{len(todo)} runs, about {max(1, seconds / 60):.0f} minutes")
            for repeat, peer, python, result, load in todo:
                self._one(peer, python, result, load, repeat, repeats)
        except KeyboardInterrupt:
            return False
        return True

    def _set_up(self, peers: Sequence[Peer]) -> list[tuple[Peer, Path, PeerResult]]:
        ready = []
        for peer in peers:
            try:
                python = peer.environment.ensure()
                basis = {**self.machine, **versions(python, peer.packages), **_commit(peer)}
            except (UserError, OSError) as error:
                self.console.print(f"{peer.title}: left out: {error}", style="yellow", markup=False)
                self.store.save(PeerResult(peer=peer.name, basis=self.machine, skipped=str(error)))
                continue
            result = self.store.load(peer.name, basis)
            result.skipped = None
            ready.append((peer, python, result))
        return ready

    def _one(self, peer: Peer, python: Path, result: PeerResult, load: Load, repeat: int, repeats: int) -> None:
        result.measured_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        where = f"{repeat + 1}/{repeats}  {peer.name}, {load.name}"
        folder = self.store.folder / "work" / f"{peer.name}-{load.name}"
        try:
            run = measure(peer, python, load, folder, repeat=repeat, cores=self.cores, realtime=self.realtime)
            self.console.print(f"{where}: {_words(run)}")
        except (UserError, OSError) as error:
            self.failures += 1
            run = Run(peer=peer.name, load=load.name, repeat=repeat, error=str(error))
            self.console.print(f"{where}: failed: {error}", style="red", markup=False)
        run.load_average = self.load_average
        result.put(run)
        self.store.save(result)


def _commit(peer: Peer) -> dict[str, str]:
    """The last commit of the load generator's code, for the peer that comes from this checkout."""
    if not isinstance(peer.environment, OwnEnvironment):
        return {}
    git = ["git", "-C", str(CHECKOUT)]
    try:
        commit = _output([*git, "log", "-1", "--format=%h", "--", "loadgen"])
        changed = _output([*git, "status", "--porcelain", "--", "loadgen"])
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit + (" with changes" if changed else "")}


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _words(run: Run) -> str:
    cpu = "-" if run.cpu_us_per_event is None else f"{run.cpu_us_per_event:.1f}"
    late = "" if run.oracle_valid else " (the server was late)"
    return (
        f"{run.requests} requests, TTFT error {run.ttft_p50_ms:.3f} / {run.ttft_p99_ms:.3f} ms, "
        f"{cpu} us/event, {run.peak_mb:.0f} MB{late}"
    )
