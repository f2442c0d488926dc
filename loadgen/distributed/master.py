"""What the Locust master does for Bakeoff: plans blocks, takes in records, stops a block when it is complete."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, STATE_RUNNING, STATE_SPAWNING, STATE_STOPPING, MasterRunner

from loadgen.distributed.client_metrics import ClientMetrics
from loadgen.distributed.collector import Collector
from loadgen.distributed.door import Door
from loadgen.distributed.hand_run import HandRun
from loadgen.distributed.locust_process import PARENT_VARIABLE
from loadgen.distributed.messages import (
    BLOCK_END_MESSAGE,
    PLAN_OPTION,
    PROBLEM_MESSAGE,
    PULSE_MESSAGE,
    RECORDS_MESSAGE,
    BlockEnd,
    BlockProblem,
    Pulse,
)
from loadgen.distributed.planner import BY_HAND, Planner
from loadgen.distributed.sockets import MALFORMED, Server, refuse
from loadgen.distributed.status import BlockStatus
from loadgen.endpoints.seats import read_seats
from loadgen.errors import UserError
from loadgen.hosts.lock import STACK_LOCK, engines_held, held
from loadgen.message import Message, say
from loadgen.record import RequestRecord
from loadgen.runs.record_file import mistyped
from loadgen.traffic.plan import BlockRequest

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.1
UNPLANNED, IMPOSSIBLE = "unplanned", "impossible"
T = TypeVar("T")
NEVER_BEGAN_S = 30.0
"""A test that was prepared so long ago and does not run has not been started."""
GONE_S = 1.0
"""A worker that stops in order is unknown to Locust for a moment; one that is unknown for longer was lost."""


class Master:
    """One a master process."""

    def __init__(self, environment: Environment, runs_dir: Path) -> None:
        self.environment = environment
        self.runs_dir = runs_dir
        self.metrics = ClientMetrics()
        self.collector = Collector(runs_dir, self.metrics)
        self.door = Door()
        self.planner = Planner(read_seats(), runs_dir)
        self._by_hand: HandRun | None = None
        self._by_hand_since = 0.0
        self._locks = contextlib.ExitStack()
        """What the test that was started by hand holds."""
        self._in_flight: dict[str, int] = {}
        self._planning = False
        self._stop_asked = False
        self._ending = False
        self._failure: str | None = None
        """Why the by-hand test was stopped by itself."""
        self._connected: set[str] = set()
        self._absent_since: dict[str, float] = {}
        runner = self.runner
        runner.register_message(RECORDS_MESSAGE, self._on_records)
        runner.register_message(PULSE_MESSAGE, self._on_pulse)
        runner.register_message(BLOCK_END_MESSAGE, self._on_block_end)
        runner.register_message(PROBLEM_MESSAGE, self._on_problem)
        environment.events.spawning_complete.add_listener(self._on_spawning_complete)
        environment.events.test_stopping.add_listener(self._on_test_stopping)
        environment.events.test_stop.add_listener(self._on_test_stop)
        gevent.spawn(self._watch)

    @property
    def runner(self) -> MasterRunner:
        """The Locust runner of this process."""
        runner = self.environment.runner
        if not isinstance(runner, MasterRunner):
            raise TypeError("Bakeoff's locustfile must run as a Locust master (--master) or worker (--worker)")
        return runner

    def prepare(self, request: BlockRequest) -> None:
        """Plan a block, and begin it; the swarm that follows sends the plan along.

        Raises:
            UserError: it cannot be run; nothing has been started.
        """
        options = self.environment.parsed_options
        if options is None:
            raise UserError("This Locust was started without options; start it with `make up`.")
        if self._planning:
            raise UserError("Another start is being prepared: wait for it.")
        self._planning = True
        try:
            workers = self._ready_workers()
            self._hold(request)
            try:
                self._begin(request, options, workers)
            except BaseException:
                self._locks.close()
                raise
        finally:
            self._planning = False

    def _begin(self, request: BlockRequest, options: Namespace, workers: tuple[str, ...]) -> None:
        plan = self.planner.plan(request, workers)
        # Planning asks the engine and takes its time: things may have changed.
        if self._ready_workers() != workers:
            raise UserError("A Locust worker came or went while the block was prepared: try again.")
        if plan.scenario == BY_HAND:
            self._by_hand_since = time.monotonic()
            self._by_hand = HandRun(plan, self.runs_dir)
        self._failure = None
        self._forget_lost_workers()
        self.collector.begin(plan)
        self.door.begin(plan)
        setattr(options, PLAN_OPTION, plan.model_dump_json())

    def _hold(self, request: BlockRequest) -> None:
        """Keep races off while a test is started by hand. Raises UserError while one runs, or its preflight."""
        self._locks.close()
        if request.scenario != BY_HAND:
            return
        what, stop = f"A test in the web UI ({request.engine})", "Stop in the web UI"
        if PARENT_VARIABLE not in os.environ:  # else this Locust is no stack's, but one race's own
            self._locks.enter_context(held(self.runs_dir / STACK_LOCK, what, stop))
        self._locks.enter_context(engines_held(self.planner.urls(request.engine), what, stop))

    def _ready_workers(self) -> tuple[str, ...]:
        """Ids of the workers that wait for a block. Raises UserError when none could be started now."""
        runner = self.runner
        if self._stopping or runner.state == STATE_STOPPING:
            raise UserError("The last block is still being stopped: try again in a second.")
        if runner.state in (STATE_RUNNING, STATE_SPAWNING):
            raise UserError("A block is running: stop it first.")
        if not runner.worker_count:
            raise UserError(
                "No Locust worker is connected. A worker that was ended comes back by itself: try again in a few "
                "seconds, and see `make ps`."
            )
        return in_locusts_order(client.id for client in runner.clients.all if client.state != STATE_MISSING)

    @property
    def _stopping(self) -> bool:
        return self._stop_asked or self._ending

    def status(self) -> BlockStatus:
        """State of the block and of the workers."""
        runner = self.runner
        state = "stopping" if self._stopping else runner.state
        return self.collector.status(
            state=state,
            workers=runner.worker_count,
            users=runner.user_count,
            in_flight=sum(self._in_flight.values()),
            refused=dict(Server.refused),
        )

    def _on_records(self, environment: Environment, msg: Any, **_: Any) -> None:
        taken: list[RequestRecord] = []
        for item in msg.data["records"]:
            record = _read(RequestRecord.from_dict, item)
            if record is None or mistyped(record) is not None:
                refuse(MALFORMED, "What is no request record")
            elif not self.door.is_planned(record, msg.node_id):
                refuse(UNPLANNED, "A record that no block's plan has its worker send")
            elif (what := self.door.impossible(record)) is not None:
                refuse(IMPOSSIBLE, "A record that cannot be")
                self._block_problem(record.run_id, record.block, what)
            else:
                taken.append(record)
        self.collector.take(taken)

    def _on_pulse(self, environment: Environment, msg: Any, **_: Any) -> None:
        pulse = _read(Pulse.from_dict, msg.data)
        if pulse is None or pulse.worker != msg.node_id:
            refuse(MALFORMED, "What is no worker's pulse")
            return
        self.metrics.take_pulse(pulse)
        self.collector.take_probe(pulse)
        self._in_flight[pulse.worker] = pulse.in_flight

    def _on_block_end(self, environment: Environment, msg: Any, **_: Any) -> None:
        block, end = self.collector.block, _read(BlockEnd.from_dict, msg.data)
        if end is None or end.worker != msg.node_id:
            refuse(MALFORMED, "What is no end of a worker's block")
        elif block is not None and end.block == block.plan.block and end.worker in block.plan.workers:
            block.ended_workers[end.worker] = end.records

    def _on_problem(self, environment: Environment, msg: Any, **_: Any) -> None:
        problem = _read(BlockProblem.from_dict, msg.data)
        if problem is None or problem.worker != msg.node_id:
            refuse(MALFORMED, "What is no problem of a worker's")
            return
        what = say("worker {worker} cannot take part: {problem}", worker=problem.worker, problem=problem.text)
        self._block_problem(None, problem.block, what)

    def _block_problem(self, run_id: str | None, block_id: str, what: Message) -> None:
        """The block that runs has no future, if it is that one."""
        block = self.collector.block
        if block is not None and block.plan.block == block_id and run_id in (None, block.plan.run_id):
            block.problem = block.problem or what

    def _on_spawning_complete(self, **_: Any) -> None:
        # Else Locust would give some of the running users to a worker that joins in mid-block: the block would lose
        # users in the middle of their requests, and never be complete.
        self.runner._users_dispatcher = None
        block = self.collector.block
        for client in self.runner.clients.all:
            if block is not None and client.user_count and client.id not in block.plan.workers:
                logger.warning("Locust worker %s came between the block's plan and its start", client.id)
                self.collector.worker_lost(client.id)  # it has no seat, so the users it was given send nothing

    def _on_test_stopping(self, environment: Environment, **_: Any) -> None:
        self._ending = True

    def _on_test_stop(self, environment: Environment, **_: Any) -> None:
        try:
            self._watch_workers()  # when the last worker is lost, Locust stops before the watch could tell
            self.collector.flush()
            self.collector.end()
            hand_run, self._by_hand = self._by_hand, None
            if hand_run is not None:
                self._locks.close()
            if hand_run is not None and self.collector.block is not None:
                hand_run.end(self.collector.block, self._failure)
            self._forget_lost_workers()
        finally:
            self._ending = False
            self.runner.check_stopped()

    def _watch(self) -> None:
        """Keep gauges, notice lost workers, and stop a block that is complete or hopeless."""
        while True:
            gevent.sleep(WATCH_INTERVAL_S)
            try:
                self._watch_workers()
                if self.collector.write_error is not None:
                    self.collector.flush()
                self._watch_block()
                self.collector.verdict()
            except Exception:  # the watch must outlive any surprise: without it no block would ever end
                logger.exception("The watch over the block stumbled")

    def _watch_workers(self) -> None:
        """Keep the gauges, and tell of workers that were lost."""
        runner = self.runner
        connected = {client.id for client in runner.clients.all if client.state != STATE_MISSING}
        now = time.monotonic()
        self._absent_since = {w: self._absent_since.get(w, now) for w in self._connected - connected}
        for worker, since in self._absent_since.items():
            if worker not in runner.clients and now - since < GONE_S:
                connected.add(worker)
                continue
            logger.warning("Locust worker %s was lost", worker)
            self.collector.worker_lost(worker)
            self._in_flight.pop(worker, None)
        self.metrics.gauges["users"] = runner.user_count
        self.metrics.gauges["workers"] = len(connected)
        self.metrics.gauges["in_flight"] = sum(self._in_flight.values())
        self._connected = connected

    def _forget_lost_workers(self) -> None:
        """Take lost workers off Locust's list when a block has ended.

        Locust itself does so a minute after the loss: until then it stays "stopping", and if a block runs by then,
        it deals the users out anew in the middle of it.
        """
        for client in list(self.runner.clients.all):
            if client.state == STATE_MISSING:
                # It may only have been slow: its users must not run on beside the next block's.
                self.runner.send_message("quit", client_id=client.id)
                del self.runner.clients[client.id]

    def _watch_block(self) -> None:
        """Stop the block when it is complete, or when it was started by hand and has no future."""
        runner, block = self.runner, self.collector.block
        if block is None or runner.state not in (STATE_RUNNING, STATE_SPAWNING):
            if self._by_hand is not None and time.monotonic() - self._by_hand_since > NEVER_BEGAN_S:
                self._locks.close()
            return
        block.recut()
        # A stop in the middle of spawning is lost: users that are spawned after it would stay.
        if not runner.spawning_completed or self._stopping:
            return
        if block.complete and block.problem is None:
            logger.info("Block %s is complete", block.plan.block)
            self._stop()
        elif block.plan.scenario == BY_HAND:  # the campaign judges its own blocks
            if block.problem is not None:
                self._fail(block.problem)
            elif block.lost_workers:
                self._fail(say("a Locust worker was lost, and its users with it"))
            elif block.hopeless:
                self._fail(say("every request fails; the last: {error}", error=block.last_error))

    def _fail(self, reason: str) -> None:
        logger.error("The test is stopped: %s", reason)
        self._failure = reason
        self._stop()

    def _stop(self) -> None:
        """Stop the block from a greenlet of its own: Locust waits there until all users are gone."""
        self._stop_asked = True

        def stop() -> None:
            try:
                self.runner.stop()
            finally:
                self._stop_asked = False

        gevent.spawn(stop)


def _read(read: Callable[[Any], T], data: Any) -> T | None:
    """What a worker's data hold; None where they hold none of it."""
    try:
        return read(data)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def in_locusts_order(workers: Iterable[str]) -> tuple[str, ...]:
    """Order workers as Locust deals users out to them: from host to host, so that the first seats have the most users.

    An id is its host's name, `_` and a random part.
    """
    place: dict[str, int] = {}
    by_host: dict[str, int] = {}
    for worker in sorted(workers):
        host = worker.split("_")[0]
        place[worker] = by_host[host] = by_host.get(host, -1) + 1
    return tuple(sorted(place, key=lambda worker: (place[worker], worker)))
