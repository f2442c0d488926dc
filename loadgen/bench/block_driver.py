"""Drives Locust through one attempt at a block."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from loadgen.bench.block_watch import BlockFailed, BlockWatch
from loadgen.bench.machine_watch import MachineWatch
from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.distributed.status import BlockStatus
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.base import EngineHost
from loadgen.message import say
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.model import Block, Scenario
from loadgen.traffic.plan import BlockRequest

POLL_S = 0.25
WORKER_LIMIT_S = 30.0
SETTLE_LIMIT_S = 10.0
LOCUST_LIMIT_S = 8.0
"""How long a master may be away: long enough for supervisor to start it anew."""


class DiskFull(UserError):
    """Records or the manifest cannot be written: the whole run has to end, not just a block."""


class Halted(Exception):
    """A block was ended because of one that ran beside it."""


class Rendezvous:
    """Where blocks that run together wait for each other, and hear that one of them is over before its time."""

    def __init__(self, count: int, lead_s: float) -> None:
        """They begin `lead_s` after the last of them is ready: time for every master to make its plan."""
        self._lead_s = lead_s
        self._barrier = threading.Barrier(count, self._agree)
        self._begin_wall_ns = 0
        self.halted = threading.Event()

    def meet(self) -> int:
        """Wait for the others. Returns when all begin, ns since the Unix epoch. Raises Halted."""
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise Halted from None
        return self._begin_wall_ns

    def halt(self) -> None:
        """End all of them."""
        self.halted.set()
        self._barrier.abort()

    def _agree(self) -> None:
        self._begin_wall_ns = round((time.time() + self._lead_s) * 1e9)


class BlockDriver:
    """One run's blocks through Locust, an attempt at a time."""

    def __init__(
        self,
        scenario: Scenario,
        run_id: str,
        host: EngineHost,
        locust: LocustClient,
        note: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        seats: Mapping[str, Seat] = MappingProxyType({}),
        prometheus_url: str | None = None,
        beside: Callable[[], list[int]] = list,
    ) -> None:
        """`note` puts down what a person should know of; `seats` are those whose names Locust may not know;
        `prometheus_url` is who knows of the GPUs; `beside` tells the processes of what runs together with its blocks.
        """
        self._scenario = scenario
        self._run_id = run_id
        self._host = host
        self._locust = locust
        self._machine = MachineWatch(run_id, host, locust, prometheus_url, beside)
        self._note = note
        self._sleep = sleep
        self._seats = seats
        self.enough: Callable[[BlockFacts], str | None] = lambda facts: None
        """Why a running block need not go on, or None; asked again and again."""
        self._workers = 1
        """Locust workers that are waited for before a block."""
        self._refused: Counter[str] | None = None
        """What the master had refused when it was last asked."""
        self.refused: Counter[str] = Counter()
        """What it has refused since the run began, by kind: strangers, and messages that cannot be."""

    def attempt(
        self,
        block: Block,
        facts: BlockFacts,
        on_status: Callable[[BlockStatus], None],
        beside: Rendezvous | None = None,
    ) -> None:
        """Run a block once, and keep the verdict on the load generator in its facts.

        `beside` is where it meets the blocks that run together with it. Raises BlockFailed, UserError (it was refused),
        DiskFull, LocustGone or Halted.
        """
        cell = block.cell
        self.wait_for_workers()
        self._machine.begin(block.engine, self._stack_name(block) or block.engine)
        begin_wall_ns = beside.meet() if beside is not None else 0
        self._locust.start_block(
            BlockRequest(
                run_id=self._run_id,
                scenario=self._scenario.name,
                block=facts.record_id,
                engine=block.name,
                stack_name=self._stack_name(block),
                cell=cell,
                arrival="trace" if cell.trace else self._scenario.load.arrival,
                requests=facts.measured_requests,
                warmup_requests=self._scenario.warmup,
                shared_prefix_tokens=self._scenario.shared_tokens(cell),
                seed=f"{self._scenario.seed}/{cell.id}/{block.repeat}",
                timeouts=self._scenario.timeouts,
                allow_short_output=self._scenario.allow_short_output,
                reasoning_end=self._scenario.reasoning_end,
                slo=self._scenario.slo,
                begin_wall_ns=begin_wall_ns,
            )
        )
        watch = BlockWatch(self._scenario, block, self._host)
        while True:
            status = self._status()
            if not self._is_ours(status, facts):
                if status.block is None:
                    raise BlockFailed(say("Locust's master was started anew in mid-block"), retry=True)
                raise BlockFailed(say("another test was started in the web UI in its place"), retry=False)
            on_status(status)
            self._machine.look(facts)
            if status.write_error:
                self.stop_quietly()
                raise DiskFull(f"{status.write_error}. Free some space and run it again.", exit_code=1)
            if status.complete and status.problem is None:
                break
            if beside is not None and beside.halted.is_set():
                self.stop_quietly()
                self._settle(facts)
                raise Halted
            reason = watch.judge(status)
            if reason is not None:
                self.stop_quietly()
                self._settle(facts)
                raise reason
            if (certain := self.enough(facts)) is not None:
                facts.ended_early = certain
                self.stop_quietly()
                break
            self._sleep(POLL_S)
        self._machine.end(facts)
        self._settle(facts)
        self._keep_verdict(facts)

    def _stack_name(self, block: Block) -> str:
        """The seat that Locust knows the engine by, where it is called otherwise here."""
        seat = self._seats.get(block.engine)
        known = block.engine if seat is None else seat.stack_name
        return known if known != block.name else ""

    def _keep_verdict(self, facts: BlockFacts) -> None:
        """Ask whether the load generator was the limit."""
        status = self._status()
        if self._is_ours(status, facts):
            facts.client = status.client

    def _is_ours(self, status: BlockStatus, facts: BlockFacts) -> bool:
        """Whether what Locust tells is about this block."""
        return status.block == facts.record_id and status.run_id == self._run_id

    def _status(self) -> BlockStatus:
        """The master's status; a master that is busy for a moment is given some time."""
        deadline = time.monotonic() + LOCUST_LIMIT_S
        while True:
            try:
                status = self._locust.status()
            except LocustGone:
                if time.monotonic() >= deadline:
                    raise
                self._sleep(1.0)
            else:
                now = Counter(status.refused)
                self.refused += now - (now if self._refused is None else self._refused)
                self._refused = now
                return status

    def _settle(self, facts: BlockFacts) -> None:
        """Wait until Locust has stopped and every worker's records have arrived."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() < deadline:
            status = self._status()
            if not self._is_ours(status, facts):
                return
            arrived = status.received >= sum(status.ended_workers.values())
            if status.idle and arrived and not status.unconfirmed_workers:
                return
            self._sleep(POLL_S)
        self._note(
            say(
                "{block}: not every worker confirmed its last records within {seconds} s.",
                block=facts.record_id,
                seconds=f"{SETTLE_LIMIT_S:g}",
            )
        )

    def wait_for_workers(self) -> None:
        """Wait for as many workers as the last block had; go on with fewer, and say so, when they do not come."""
        try:
            self._workers = self._locust.wait_for_workers(self._workers, WORKER_LIMIT_S)
        except UserError:
            if self._workers == 1:
                raise
            left = self._locust.wait_for_workers(1, WORKER_LIMIT_S)
            self._note(
                say(
                    "Of {workers} Locust workers {left} are left: the run goes on with these.",
                    workers=self._workers,
                    left=left,
                )
            )
            self._workers = left

    def stop_quietly(self) -> None:
        """Stop the block that runs, if any."""
        try:
            self._locust.stop()
        except LocustGone as error:
            self._note(str(error))
