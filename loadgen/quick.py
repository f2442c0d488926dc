"""Quick mode: one cell against any endpoint, in this process, through the same users, reader and definitions."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment

from loadgen.collector import Collector
from loadgen.definitions import summarise
from loadgen.plan import BlockPlan
from loadgen.quick_result import ClientCost, QuickResult
from loadgen.record import RequestRecord
from loadgen.run_folder import RecordFile
from loadgen.users import StreamingUser, Traffic
from loadgen.window import cut_block


def run_quick(
    plan: BlockPlan,
    *,
    duration_s: float | None = None,
    records_file: Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> QuickResult:
    """Run one block in this process and return what was measured.

    Args:
        plan: the block. `plan.requests` of None runs for `duration_s` after the first user is warm.
        duration_s: stop after this many seconds, whatever has been measured by then.
        records_file: a `.jsonl` file to append every record to as it is made.
        on_progress: called a few times a second with the collector's status.

    Raises:
        OSError: `records_file` cannot be written.
    """
    environment = Environment(user_classes=[StreamingUser])
    runner = environment.create_local_runner()
    collector = Collector(None)
    file = RecordFile(records_file) if records_file is not None else None
    every: list[RequestRecord] = []

    def sink(record: RequestRecord) -> None:
        every.append(record)
        if file is not None:
            file.append([record])
        collector.take([record])

    traffic = Traffic(sink)
    traffic.begin(plan)
    StreamingUser.traffic = traffic
    collector.begin(plan)
    interrupted = gevent.event.Event()
    previous = signal.getsignal(signal.SIGINT)
    handler = gevent.signal_handler(signal.SIGINT, interrupted.set)
    cpu_before = time.process_time()
    try:
        runner.start(plan.users, spawn_rate=plan.users)
        started = time.monotonic()
        while not interrupted.wait(0.1):
            status = collector.status()
            if on_progress is not None:
                on_progress({**status, "in_flight": traffic.in_flight})
            if status["complete"] or (duration_s is not None and time.monotonic() - started >= duration_s):
                break
    finally:
        runner.quit()
        handler.cancel()
        signal.signal(signal.SIGINT, previous)
        if file is not None:
            file.close()
    cost = ClientCost(time.process_time() - cpu_before, traffic.events)
    cut = cut_block(every, users=plan.users, warmup_requests=plan.warmup_requests, measured_requests=plan.requests)
    measured = [r for r, phase in zip(every, cut.phases, strict=True) if phase == "measure"]
    summary = summarise([(every, measured, cut.window)])
    return QuickResult(plan, summary, every, cut, cost, interrupted=interrupted.is_set())
