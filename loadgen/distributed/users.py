"""Locust's side of the traffic: a user that Locust spawns and stops, and Locust's own tables."""

from __future__ import annotations

from typing import Any, ClassVar

import gevent
from locust import User, constant, task

from loadgen.metrics.definitions import e2e_ms
from loadgen.record import RequestRecord
from loadgen.traffic.block import Traffic
from loadgen.traffic.chat_user import closed_loop_user


class StreamingUser(User):
    """A user of the endpoint that the block's plan names."""

    wait_time = constant(0)
    host = "(set by Engine, in Custom parameters)"
    traffic: ClassVar[Traffic | None] = None
    """Of the block that runs; set before any user is spawned."""

    def on_start(self) -> None:
        """Take part in the current block."""
        if self.traffic is None:  # the worker has said why
            raise RuntimeError("this worker has no part in the block")
        self.user = closed_loop_user(self.traffic)
        if self.traffic.plan.cell.concurrency:  # the others' senders wait themselves
            self.traffic.wait_to_begin()

    def on_stop(self) -> None:
        """Leave no connection behind."""
        self.user.close()

    @task
    def send(self) -> None:
        """Send one request of a closed loop."""
        if not self.user.plan.cell.concurrency:
            # Open loops and batches are sent by the worker itself; Locust's users only show that it runs.
            gevent.sleep(3600)
            return
        self.user.send()


def tell_locust(environment: Any, record: RequestRecord) -> None:
    """Fill Locust's own tables; all of Bakeoff's figures come from the record."""
    environment.events.request.fire(
        request_type=record.api,
        name=f"{record.engine} {record.cell}",
        response_time=e2e_ms(record) or (record.t_done - record.t_send) / 1e6,
        response_length=record.output_tokens or 0,
        exception=None if record.ok else RuntimeError(f"{record.error}: {record.error_detail}"),
        context={},
    )
