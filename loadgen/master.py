"""What the Locust master does for Bakeoff: plans blocks, takes in records, stops a block when it is complete."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner

from loadgen.client_metrics import ClientMetrics
from loadgen.collector import Collector
from loadgen.errors import UserError
from loadgen.form import BY_HAND, Planner
from loadgen.manifest import (
    BlockFacts,
    EngineFacts,
    Manifest,
    clock_facts,
    git_facts,
    host_facts,
    package_versions,
    save_manifest,
)
from loadgen.plan import BlockPlan
from loadgen.record import RequestRecord
from loadgen.run_folder import RunFolder
from loadgen.seats import read_seats

logger = logging.getLogger(__name__)

RECORDS_MESSAGE = "bakeoff_records"
PULSE_MESSAGE = "bakeoff_pulse"
BLOCK_END_MESSAGE = "bakeoff_block_end"
WATCH_INTERVAL_S = 0.1
HOPELESS_FAILURES = 20
"""A by-hand test that only fails is stopped after so many failures in a row for each user."""


class Master:
    """One a master process."""

    def __init__(self, environment: Environment, runs_dir: Path) -> None:
        self.environment = environment
        self.runs_dir = runs_dir
        self.metrics = ClientMetrics()
        self.collector = Collector(runs_dir, self.metrics)
        self.planner = Planner(read_seats())
        self._by_hand: Manifest | None = None
        self._in_flight: dict[str, int] = {}
        self._stopping = False
        runner = self.runner
        runner.register_message(RECORDS_MESSAGE, self._on_records)
        runner.register_message(PULSE_MESSAGE, self._on_pulse)
        runner.register_message(BLOCK_END_MESSAGE, self._on_block_end)
        environment.events.test_stop.add_listener(self._on_test_stop)
        gevent.spawn(self._watch)

    @property
    def runner(self) -> MasterRunner:
        """The Locust runner of this process."""
        runner = self.environment.runner
        if not isinstance(runner, MasterRunner):
            raise TypeError("Bakeoff's locustfile must run as a Locust master (--master) or worker (--worker)")
        return runner

    def prepare(self, values: dict[str, Any]) -> None:
        """Plan the block that a submitted form asks for, and begin it; the swarm that follows sends the plan along.

        Raises:
            UserError: it cannot be run; nothing has been started.
        """
        runner = self.runner
        if runner.state in (STATE_RUNNING, STATE_SPAWNING):
            raise UserError("A block is running: stop it first.")
        if self._stopping:
            raise UserError("The last block is still being stopped: try again in a second.")
        workers = runner.worker_count
        if not workers:
            raise UserError(
                "No Locust worker is connected. See `make ps`; a worker that was ended comes back by itself."
            )
        plan = self.planner.plan(values, workers)
        if plan.scenario == BY_HAND:
            self._begin_by_hand(plan)
        self.collector.begin(plan)
        options = self.environment.parsed_options
        if options is None:
            raise UserError("This Locust was started without options; start it with `make up`.")
        options.plan = plan.to_json()

    def status(self) -> dict[str, Any]:
        """State of the block and of the workers, as plain data."""
        runner = self.runner
        return {
            "state": "stopping" if self._stopping else runner.state,
            "workers": runner.worker_count,
            "users": runner.user_count,
            **self.collector.status(),
        }

    def _on_records(self, environment: Environment, msg: Any, **_: Any) -> None:
        self.collector.take([RequestRecord.from_dict(item) for item in msg.data["records"]])

    def _on_pulse(self, environment: Environment, msg: Any, **_: Any) -> None:
        data = msg.data
        self.metrics.worker_totals[str(data["worker"])] = (float(data["cpu_seconds"]), float(data["events"]))
        self._in_flight[str(data["worker"])] = int(data["in_flight"])

    def _on_block_end(self, environment: Environment, msg: Any, **_: Any) -> None:
        block = self.collector.block
        if block is not None and msg.data["block"] == block.plan.block:
            block.ended_workers[str(msg.data["worker"])] = int(msg.data["records"])

    def _on_test_stop(self, environment: Environment, **_: Any) -> None:
        self.collector.flush()
        self.collector.end()
        if self._by_hand is not None:
            self._end_by_hand(self._by_hand)
            self._by_hand = None

    def _watch(self) -> None:
        """Keep gauges, notice lost workers, and stop a block that is complete or hopeless."""
        connected: set[str] = set()
        while True:
            gevent.sleep(WATCH_INTERVAL_S)
            try:
                runner = self.runner
                now_connected = {c.id for c in runner.clients.all if c.state != "missing"}
                for worker in connected - now_connected:
                    logger.warning("Locust worker %s was lost", worker)
                    self.collector.worker_lost(worker)
                    self._in_flight.pop(worker, None)
                connected = now_connected
                self.metrics.gauges["users"] = runner.user_count
                self.metrics.gauges["workers"] = len(now_connected)
                self.metrics.gauges["in_flight"] = sum(self._in_flight.values())
                if self.collector.write_error is not None:
                    self.collector.flush()
                block = self.collector.block
                if block is None or runner.state not in (STATE_RUNNING, STATE_SPAWNING):
                    continue
                block.recut()
                hopeless = block.failures_in_row >= HOPELESS_FAILURES * block.plan.users
                # A stop in the middle of spawning is lost: users that are spawned after it would stay.
                if not runner.spawning_completed or self._stopping:
                    continue
                if block.complete:
                    logger.info("Block %s is complete", block.plan.block)
                    self._stop()
                elif block.plan.scenario == BY_HAND and hopeless:
                    logger.error("Stopped: every request fails (%s)", block.last_error)
                    self._stop()
            except Exception:  # the watch must outlive any surprise: without it no block would ever end
                logger.exception("The watch over the block stumbled")

    def _stop(self) -> None:
        """Stop the block from a greenlet of its own: Locust waits there until all users are gone."""
        self._stopping = True

        def stop() -> None:
            try:
                self.runner.stop()
            finally:
                self._stopping = False

        gevent.spawn(stop)

    def _begin_by_hand(self, plan: BlockPlan) -> None:
        """A test that was started in the web UI gets a run folder of its own, so that it can be reported."""
        endpoint = plan.endpoint
        manifest = Manifest(
            run_id=plan.run_id,
            source="web-ui",
            started_at=time.time(),
            scenario={
                "name": BY_HAND,
                "question": "Started by hand in the web UI.",
                "prompt_tokens": [plan.prompt_tokens],
                "output_tokens": [plan.output_tokens],
                "load": {"concurrency": [plan.users]},
                "requests": plan.requests,
            },
            engines=[
                EngineFacts(
                    name=endpoint.name,
                    kind=endpoint.kind,
                    api=endpoint.api,
                    base_url=endpoint.base_url,
                    model=endpoint.model,
                    version=endpoint.version,
                    context_length=endpoint.context_length,
                    prompts=plan.recipe.facts(),
                )
            ],
            blocks=[
                BlockFacts(
                    id=plan.block,
                    record_id=plan.block,
                    engine=endpoint.name,
                    cell=plan.cell.id,
                    repeat=1,
                    users=plan.users,
                    warmup_requests=plan.warmup_requests,
                    measured_requests=plan.requests,
                    started_at=time.time(),
                )
            ],
            host=host_facts(),
            packages=package_versions(),
            git=git_facts(Path(__file__).parent),
            clock=clock_facts(),
        )
        RunFolder.create(self.runs_dir, manifest)
        self._by_hand = manifest

    def _end_by_hand(self, manifest: Manifest) -> None:
        block = self.collector.block
        facts = manifest.blocks[0]
        facts.ended_at = manifest.ended_at = time.time()
        if block is not None and (block.complete or block.plan.requests is None):
            facts.status, manifest.status = "complete", "complete"
        else:
            facts.status, manifest.status = "interrupted", "interrupted"
            facts.reason = "it was stopped before all requests were measured"
            if block is not None and block.last_error:
                facts.reason += f"; last error: {block.last_error}"
        try:
            save_manifest(manifest, self.runs_dir / manifest.run_id / "manifest.json")
        except UserError as error:
            logger.error("%s", error)
