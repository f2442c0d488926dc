"""The run folder of a test that was started in the web UI, so that it can be reported like any run."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from loadgen.client.floor import floor_facts
from loadgen.distributed.collector import CollectedBlock
from loadgen.distributed.planner import BY_HAND
from loadgen.errors import UserError
from loadgen.machine import clock_facts, git_facts, host_facts, package_versions
from loadgen.message import joined, mark, say
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest, save_manifest
from loadgen.traffic.plan import BlockPlan

logger = logging.getLogger(__name__)


class HandRun:
    """A run of one block."""

    def __init__(self, plan: BlockPlan, runs_dir: Path) -> None:
        """Make its folder. Raises UserError."""
        cell = plan.cell
        load = {"rate": [cell.rate], "arrival": plan.arrival} if cell.open_loop else {"concurrency": [cell.concurrency]}
        self._facts = BlockFacts.begun(
            plan.block, plan.engine, cell, warmup_requests=plan.warmup_requests, measured_requests=plan.requests
        )
        self._manifest = Manifest(
            run_id=plan.run_id,
            source="web-ui",
            started_at=time.time(),
            scenario={
                "name": BY_HAND,
                "question": mark("Started by hand in the web UI."),
                "prompt_tokens": [cell.prompt_tokens],
                "output_tokens": [cell.output_tokens],
                "load": {"batch": [cell.batch]} if cell.batch else load,
                "requests": plan.requests,
            },
            engines=[EngineFacts.of(plan.endpoint, plan.recipe)],
            blocks=[self._facts],
            host=host_facts(),
            packages=package_versions(),
            git=git_facts(),
            clock=clock_facts(),
            floor=floor_facts(),
        )
        self._folder = RunFolder.create(runs_dir, self._manifest)

    def end(self, block: CollectedBlock, failure: str | None) -> None:
        """Close it. `failure`: why the test was stopped; of no meaning where it was complete by then."""
        facts, manifest = self._facts, self._manifest
        facts.ended_at = manifest.ended_at = time.time()
        facts.client = block.judge()
        if failure is None and block.lost_workers:
            failure = say("a Locust worker was lost")
        if block.complete or (failure is None and block.plan.requests is None):
            facts.status = manifest.status = "complete"
        elif failure is not None:
            facts.status, manifest.status, facts.reason = "failed", "failed", failure
            manifest.messages.append(say("The test was stopped: {problem}.", problem=failure))
        else:
            facts.status, manifest.status = "interrupted", "interrupted"
            facts.reason = say("it was stopped before all requests were measured")
            if block.last_error:
                facts.reason = joined("{a}; {b}", [facts.reason, say("last error: {error}", error=block.last_error)])
        try:
            save_manifest(manifest, self._folder.manifest_path)
        except UserError as error:
            logger.error("%s", error)
