"""What a Locust worker does for Bakeoff: reads the block's plan and sends records to the master as they are made."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from typing import Any

import gevent
import gevent.event
from locust.env import Environment
from locust.exception import RPCError
from locust.runners import WorkerRunner

from loadgen.client.probe import ClientProbe
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
from loadgen.distributed.users import StreamingUser, tell_locust
from loadgen.errors import UserError
from loadgen.record import RequestRecord
from loadgen.traffic.batch import BatchSender
from loadgen.traffic.block import WALL_OFFSET_NS, Traffic
from loadgen.traffic.open_loop import Dispatcher
from loadgen.traffic.plan import BlockPlan

logger = logging.getLogger(__name__)

PULSE_INTERVAL_S = 1.0
RETRY_INTERVAL_S = 1.0
RECORDS_A_MESSAGE = 1000
EVENTS_A_MESSAGE = 500_000


class Worker:
    """One a worker process."""

    def __init__(self, environment: Environment) -> None:
        runner = environment.runner
        if not isinstance(runner, WorkerRunner):
            raise TypeError("not a Locust worker")
        self.runner = runner
        self.environment = environment
        self._traffic: Traffic | None = None
        """Of the block that runs or ran last."""
        self._events = 0
        """Content events of the blocks before it."""
        self._plan: BlockPlan | None = None
        """Of the block that runs, which the probe watches."""
        self._dispatching: gevent.Greenlet | None = None
        self.probe = ClientProbe()
        self._outbox: list[RequestRecord] = []
        self._wake = gevent.event.Event()
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.test_stop.add_listener(self._on_test_stop)
        environment.events.quitting.add_listener(lambda **_: self._send_outbox())
        gevent.spawn(self._sender)
        gevent.spawn(self._pulse)

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        self._events += self._traffic.events if self._traffic is not None else 0
        self._traffic = StreamingUser.traffic = None
        self.probe.begin()
        try:
            plan = BlockPlan.from_json(getattr(environment.parsed_options, PLAN_OPTION, ""))
        except ValueError as error:
            logger.error("The block cannot be run: %s", error)
            return
        try:
            traffic = Traffic(plan.with_key(os.environ), self._take, self.runner.client_id)
        except UserError as error:
            logger.error("The block cannot be run: %s", error)
            if self.runner.client_id in plan.workers:
                self._tell_problem(plan, error)
            return
        self._plan, self._traffic = plan, traffic
        StreamingUser.traffic = traffic
        if (sender := traffic.sender(plan.start_wall_ns - WALL_OFFSET_NS)) is not None:
            self._dispatching = gevent.spawn(self._send_all, sender, traffic)

    def _send_all(self, sender: Dispatcher | BatchSender, traffic: Traffic) -> None:
        try:
            if traffic.plan.cell.batch:  # an open loop's schedule has its beginning in it
                traffic.wait_to_begin()
            sender.run()
        except UserError as error:
            self._tell_problem(traffic.plan, error)

    def _tell_problem(self, plan: BlockPlan, error: UserError) -> None:
        problem = BlockProblem(self.runner.client_id, plan.block, str(error))
        self.runner.send_message(PROBLEM_MESSAGE, dataclasses.asdict(problem))

    def _on_test_stop(self, environment: Environment, **_: Any) -> None:
        if self._dispatching is not None:
            self._dispatching.kill()
            self._dispatching = None
        self._send_outbox()
        traffic = self._traffic
        if traffic is not None:
            self._send_pulse()  # first: with the end the master may judge the block
            self._plan = None
            end = BlockEnd(traffic.worker, traffic.plan.block, traffic.sent_records)
            self.runner.send_message(BLOCK_END_MESSAGE, dataclasses.asdict(end))

    def _take(self, record: RequestRecord) -> None:
        """Called by a user between two requests: sending is left to another greenlet."""
        self._outbox.append(record)
        self._wake.set()
        if not record.aborted:
            tell_locust(self.environment, record)

    def _sender(self) -> None:
        while True:
            self._wake.wait()
            try:
                self._send_outbox()
            except RPCError as error:
                logger.warning("Records could not be sent to the master (%s): trying again", error)
                gevent.sleep(RETRY_INTERVAL_S)
                self._wake.set()

    def _send_outbox(self) -> None:
        self._wake.clear()
        while self._outbox:
            count = _fitting(self._outbox)
            records = self._outbox[:count]
            del self._outbox[:count]
            try:
                self.runner.send_message(RECORDS_MESSAGE, {"records": [record.to_dict() for record in records]})
            except RPCError:
                self._outbox[:0] = records
                raise

    def _pulse(self) -> None:
        while True:
            gevent.sleep(PULSE_INTERVAL_S)
            with contextlib.suppress(RPCError):  # the next pulse tells the same and more
                self._send_pulse()

    def _send_pulse(self) -> None:
        report, last, plan = self.probe.report(), self._traffic, self._plan
        pulse = Pulse(
            worker=self.runner.client_id,
            in_flight=last.in_flight if last else 0,
            events=self._events + (last.events if last else 0),
            cpu_seconds=time.process_time(),
            run_id=plan.run_id if plan else None,
            block=plan.block if plan else None,
            probe=report,
            process=self.probe.process_report(),
        )
        try:
            self.runner.send_message(PULSE_MESSAGE, pulse.to_dict())
        except RPCError:
            self.probe.give_back(report)
            raise


def _fitting(records: list[RequestRecord]) -> int:
    """How many of the first records go into one message: the master takes none that is larger than its limit."""
    events = 0
    for count, record in enumerate(records[:RECORDS_A_MESSAGE]):
        events += record.events
        if count and events > EVENTS_A_MESSAGE:
            return count
    return min(len(records), RECORDS_A_MESSAGE)
