"""Runs a scenario: block after block through Locust, one engine at a time, into a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loadgen.block_watch import BlockFailed, BlockWatch, last_words
from loadgen.client_verdict import ClientVerdict
from loadgen.errors import UserError
from loadgen.hosts.base import EngineHost
from loadgen.locust_client import LocustClient, LocustGone
from loadgen.manifest import BlockFacts, EngineFacts, Manifest, ParityFact, save_manifest
from loadgen.parquet import write_parquet
from loadgen.preflight.phase import Preflight
from loadgen.run_folder import RunFolder
from loadgen.scenario import Block, Scenario
from loadgen.seats import Seat
from loadgen.tokens import make_recipe

POLL_S = 0.25
ATTEMPTS = 2
WORKER_LIMIT_S = 30.0
SETTLE_LIMIT_S = 10.0
LOCUST_LIMIT_S = 8.0
"""How long a master may be away: long enough for supervisor to start it anew."""


class DiskFull(UserError):
    """Records or the manifest cannot be written: the whole run has to end, not just a block."""


class Listener:
    """What the campaign tells whoever watches it. Every method may be overridden; the defaults say nothing."""

    def message(self, text: str) -> None:
        """Something happened that a person should know."""

    def engine(self, name: str, text: str) -> None:
        """Progress of an engine's start."""

    def block(self, block: Block, number: int, total: int, status: dict[str, Any]) -> None:
        """Progress of a block."""

    def block_ended(self, block: Block, number: int, total: int, facts: BlockFacts) -> None:
        """A block ended."""


class Campaign:
    """One run. `run` returns whether every block was completed; the manifest tells the rest."""

    def __init__(
        self,
        scenario: Scenario,
        seats: Sequence[Seat],
        host: EngineHost,
        locust: LocustClient,
        folder: RunFolder,
        manifest: Manifest,
        listener: Listener,
        sleep: Callable[[float], None] = time.sleep,
        preflight: Preflight | None = None,
    ) -> None:
        self.scenario = scenario
        self.seats = {seat.name: seat for seat in seats}
        self.host = host
        self.locust = locust
        self.folder = folder
        self.manifest = manifest
        self.listener = listener
        self._sleep = sleep
        self._workers = 1
        """Locust workers that are waited for before a block."""
        self._preflight = preflight
        self.blocks = list(scenario.blocks([seat.name for seat in seats]))

    def run(self) -> bool:
        """Run all blocks; an engine that cannot be had loses its blocks, and the others go on.

        Raises:
            KeyboardInterrupt: Ctrl-C. The run is closed and marked as interrupted first.
            UserError: the run cannot go on at all (disk full, Locust gone). It is closed first.
        """
        try:
            self._compare_engines()
            numbered = list(enumerate(self.blocks, start=1))
            for engine, session in itertools.groupby(numbered, key=lambda item: item[1].engine):
                self._run_session(engine, list(session))
        except KeyboardInterrupt:
            self._close("interrupted", "Interrupted by the user; what was measured until then is here.")
            raise
        except UserError as error:
            self._close("failed", f"The run could not go on: {error}", disk_full=isinstance(error, DiskFull))
            raise
        except LocustGone as error:
            text = f"The run could not go on: {error}. Records that had reached the master are here."
            self._close("failed", text)
            raise UserError(text, exit_code=1) from None
        complete = {facts.id for facts in self.manifest.blocks if facts.status == "complete"}
        whole = complete == {block.id for block in self.blocks}
        self._close("complete" if whole else "failed", None)
        return whole

    def _compare_engines(self) -> None:
        """Preflight, before any load. Raises UserError for engines that cannot be compared as they are."""
        if self._preflight is not None and self.blocks:
            first = self.blocks[0].engine
            self._preflight.check(first, self._keep_findings, self.listener.engine, self._note)

    def _keep_findings(self, findings: list[ParityFact]) -> None:
        self.manifest.parity = findings
        self._save()

    def _run_session(self, engine: str, session: list[tuple[int, Block]]) -> None:
        """All consecutive blocks of one engine: start it, run them, stop it."""
        try:
            try:
                self._start_engine(engine)
            except DiskFull:
                raise
            except UserError as error:
                self._note(f"{engine} could not be started: {error}")
                for number, block in session:
                    self._skip(block, number, f"{engine} could not be started: {str(error).splitlines()[0]}")
                return
            for number, block in session:
                self._run_block(block, number)
        finally:  # also one that started and then could not be understood: the next engine has the machine to itself
            self.host.stop(engine)

    def _start_engine(self, engine: str) -> None:
        self.host.start(engine, lambda text: self.listener.engine(engine, text))
        seat = self.seats[engine]
        endpoint = seat.inspect_here()
        recipe = make_recipe(endpoint)
        raced = dataclasses.replace(endpoint, base_url=seat.base_url)
        facts = EngineFacts.of(raced, recipe, self.host.describe(engine))
        self.manifest.engines = [old for old in self.manifest.engines if old.name != engine] + [facts]
        self._save()

    def _run_block(self, block: Block, number: int) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            facts = self._new_facts(block, attempt)
            try:
                self._attempt(block, number, facts)
                facts.status = "complete"
            except KeyboardInterrupt:
                facts.status, facts.reason = "interrupted", "interrupted by the user"
                self._stop_quietly()
                raise
            except (LocustGone, DiskFull) as error:
                facts.status, facts.reason = "failed", str(error)
                raise
            except (BlockFailed, UserError) as raised:
                failure = self._cause(raised, block.engine)
                retry = isinstance(failure, BlockFailed) and failure.retry and attempt < ATTEMPTS
                facts.status, facts.reason = "failed", str(failure)
                self._note(f"{block.id}: {failure}" + ("\nIt is run once more." if retry else ""))
                if retry and not self._recover(block.engine):
                    retry = False
                if not retry:
                    break
            finally:
                facts.ended_at = time.time()
                with contextlib.suppress(DiskFull):  # must not hide what is on its way; the next save tells it too
                    self._save()
                self.listener.block_ended(block, number, len(self.blocks), facts)
            if facts.status == "complete":
                break

    def _attempt(self, block: Block, number: int, facts: BlockFacts) -> None:
        """Run a block once. Raises BlockFailed, UserError (it was refused), DiskFull or LocustGone."""
        cell = block.cell
        self._wait_for_workers()
        self.locust.start_block(
            {
                "engine": block.engine,
                "user_count": max(cell.concurrency, 1),
                "spawn_rate": max(cell.concurrency, 1),
                "rate": cell.rate,
                "arrival": self.scenario.load.arrival,
                "prompt_tokens": cell.prompt_tokens,
                "output_tokens": cell.output_tokens,
                "requests": self.scenario.requests,
                "warmup_requests": self.scenario.warmup,
                "shared_prefix_tokens": self.scenario.shared_prefix_tokens,
                # The same for both engines, so that both get the very same prompts.
                "seed": f"{self.scenario.seed}/{cell.id}/{block.repeat}",
                "scenario": self.scenario.name,
                "run_id": self.manifest.run_id,
                "block": facts.record_id,
                "timeouts": self.scenario.timeouts.model_dump_json(),
            }
        )
        watch = BlockWatch(self.scenario, block, self.host)
        while True:
            status = self._status()
            if not self._is_ours(status, facts):
                if status["block"] is None:
                    raise BlockFailed("Locust's master was started anew in mid-block", retry=True)
                raise BlockFailed("another test was started in the web UI in its place", retry=False)
            self.listener.block(block, number, len(self.blocks), status)
            if status["write_error"]:
                self._stop_quietly()
                raise DiskFull(f"{status['write_error']}. Free some space and run it again.", exit_code=1)
            if status["complete"]:
                break
            reason = watch.judge(status)
            if reason is not None:
                self._stop_quietly()
                self._settle(facts)
                raise reason
            self._sleep(POLL_S)
        self._settle(facts)
        self._keep_verdict(facts)

    def _keep_verdict(self, facts: BlockFacts) -> None:
        """Ask whether the load generator was the limit, and say so if it was."""
        status = self._status()
        if self._is_ours(status, facts):
            facts.client = status.get("client")
            if facts.client is not None and facts.client["limited"]:
                self.listener.message(f"{facts.record_id}: {ClientVerdict.from_dict(facts.client).sentence()}")

    def _is_ours(self, status: dict[str, Any], facts: BlockFacts) -> bool:
        """Whether what Locust tells is about this block."""
        return bool(status["block"] == facts.record_id and status["run_id"] == self.manifest.run_id)

    def _status(self) -> dict[str, Any]:
        """The master's status; a master that is busy for a moment is given some time."""
        deadline = time.monotonic() + LOCUST_LIMIT_S
        while True:
            try:
                return self.locust.status()
            except LocustGone:
                if time.monotonic() >= deadline:
                    raise
                self._sleep(1.0)

    def _settle(self, facts: BlockFacts) -> None:
        """Wait until Locust has stopped and every worker's records have arrived."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() < deadline:
            status = self._status()
            if not self._is_ours(status, facts):
                return
            stopped = status["state"] in ("ready", "stopped")
            arrived = status["received"] >= sum(status["ended_workers"].values())
            if stopped and arrived and not status["unconfirmed_workers"]:
                return
            self._sleep(POLL_S)
        self._note(f"{facts.record_id}: not every worker confirmed its last records within {SETTLE_LIMIT_S:g} s.")

    def _cause(self, failure: BlockFailed | UserError, engine: str) -> BlockFailed | UserError:
        """The failure, or the engine's end where that is behind it: then another attempt may do better."""
        if isinstance(failure, BlockFailed) or self.host.is_up(engine):
            return failure
        return BlockFailed(f"{engine} does not answer any more{last_words(self.host, engine)}", retry=True)

    def _recover(self, engine: str) -> bool:
        """Make ready for another attempt: the engine up, a worker there. Returns whether that worked."""
        try:
            if not self.host.is_up(engine):
                self.host.start(engine, lambda text: self.listener.engine(engine, text))
            self._wait_for_workers()
        except UserError as error:
            self._note(f"{engine} could not be brought back: {error}")
            return False
        return True

    def _wait_for_workers(self) -> None:
        """Wait for as many workers as the last block had; go on with fewer, and say so, when they do not come."""
        try:
            self._workers = self.locust.wait_for_workers(self._workers, WORKER_LIMIT_S)
        except UserError:
            if self._workers == 1:
                raise
            left = self.locust.wait_for_workers(1, WORKER_LIMIT_S)
            self._note(f"Of {self._workers} Locust workers {left} are left: the run goes on with these.")
            self._workers = left

    def _new_facts(self, block: Block, attempt: int) -> BlockFacts:
        facts = BlockFacts(
            id=block.id,
            record_id=block.id if attempt == 1 else f"{block.id}.a{attempt}",
            engine=block.engine,
            cell=block.cell.id,
            repeat=block.repeat,
            attempt=attempt,
            users=block.cell.concurrency,
            rate=block.cell.rate,
            warmup_requests=self.scenario.warmup,
            measured_requests=self.scenario.requests,
            started_at=time.time(),
        )
        self.manifest.blocks.append(facts)
        self._save()
        return facts

    def _skip(self, block: Block, number: int, reason: str) -> None:
        facts = self._new_facts(block, 1)
        facts.status, facts.reason, facts.ended_at = "failed", reason, time.time()
        self.listener.block_ended(block, number, len(self.blocks), facts)

    def _stop_quietly(self) -> None:
        try:
            self.locust.stop()
        except LocustGone as error:
            self._note(str(error))

    def _note(self, text: str) -> None:
        self.manifest.messages.append(text)
        self.listener.message(text)

    def _save(self) -> None:
        try:
            save_manifest(self.manifest, self.folder.manifest_path)
        except UserError as error:
            raise DiskFull(str(error), exit_code=1) from None

    def _close(self, status: str, message: str | None, *, disk_full: bool = False) -> None:
        with _undisturbed():
            self._close_now(status, message, disk_full)

    def _close_now(self, status: str, message: str | None, disk_full: bool) -> None:
        if message is not None:
            self.manifest.messages.append(message)
        for facts in self.manifest.blocks:
            if facts.status == "running":
                facts.status, facts.reason, facts.ended_at = "interrupted", facts.reason or message, time.time()
        self.manifest.status = status  # type: ignore[assignment]
        self.manifest.ended_at = time.time()
        try:
            self._save()
            write_parquet(self.folder)
        except DiskFull as error:
            if not disk_full:  # else it is told already
                self.listener.message(str(error))
        except UserError as error:
            self.listener.message(str(error))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM: a run is closed in a moment, and somebody who presses twice wants it closed too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def make_folder(scenario: Scenario, manifest: Manifest, runs_dir: Path) -> RunFolder:
    """Create the run's folder. Raises UserError."""
    manifest.scenario = scenario.model_dump(mode="json")
    return RunFolder.create(runs_dir, manifest)
