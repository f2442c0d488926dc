"""Runs a scenario: block after block through Locust, engines in turns, into a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loadgen.bench.block_driver import BlockDriver, DiskFull
from loadgen.bench.block_watch import BlockFailed, with_last_words
from loadgen.bench.cache_reset import CacheReset
from loadgen.bench.listener import Listener
from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.seats import Seat
from loadgen.endpoints.tokens import make_recipe
from loadgen.errors import Terminated, UserError
from loadgen.hosts.base import EngineHost
from loadgen.message import say
from loadgen.monitoring.engine_watch import EngineWatch
from loadgen.monitoring.exporters import silent_exporters
from loadgen.preflight.phase import Preflight
from loadgen.quality.phase import AnswerCheck, refuse_degenerate
from loadgen.quality.result import QUALITY_FILE, QualityResult, save_quality
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import BY_SIGNAL, BY_USER, BlockFacts, EngineFacts, Manifest, ParityFact, save_manifest
from loadgen.runs.parquet import write_parquet
from loadgen.runs.resume import same_engine
from loadgen.scenario.context_limit import limit_context
from loadgen.scenario.model import Block, Scenario
from loadgen.scenario.script import script_trace
from loadgen.scenario.trace import keep_trace

ATTEMPTS = 2


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
        answers: AnswerCheck | None = None,
        watch: EngineWatch | None = None,
    ) -> None:
        """`preflight` asks the engines before the blocks, and on the way what `answers` gathers; `watch` reads their
        metrics meanwhile.
        """
        self.scenario = scenario
        self.seats = {seat.name: seat for seat in seats}
        self.host = host
        self.folder = folder
        self.manifest = manifest
        self.listener = listener
        self._sleep = sleep
        self._driver = self._make_driver(locust)
        self._drivers = [self._driver]
        """All that drive a Locust."""
        self._preflight = preflight
        self._answers = answers
        self._watch = watch
        self._resets = CacheReset(self.seats, manifest) if scenario.reset_prefix_caches else None
        self._compared = False
        """Whether preflight has asked the engines."""
        self._asked: str | None = None
        """The engine that preflight has just started, and left running for its first turn."""
        self._keep = scenario.between_blocks == "keep"
        """Whether all engines stay up between their turns."""
        self._lost: dict[str, str] = {}
        """Engines that were to stay up and could not be started, and why."""
        self._starts: dict[str, int] = {}
        """Which of its starts in this run each engine is at, those counted that blocks ran on."""
        self._up: int | None = None
        """The group of repeats that the engines which stay up were started for."""
        self.blocks = list(scenario.blocks([seat.name for seat in seats]))

    def _make_driver(self, locust: LocustClient, beside: Callable[[], list[int]] = list) -> BlockDriver:
        manifest = self.manifest
        known = self.scenario, manifest.run_id, self.host, locust, self._note, self._sleep, self.seats
        return BlockDriver(*known, manifest.prometheus_url, beside)

    def run(self, further: Callable[[int], int] | None = None) -> bool:
        """Run all blocks that are not complete yet; an engine that cannot be had loses its own, and the others go on.

        Args:
            further: asked after the repeats, with their number, how many more are to be run; 0 ends the run.

        Raises:
            KeyboardInterrupt: Ctrl-C. The run is closed and marked as interrupted first.
            UserError: the run cannot go on at all (disk full, Locust gone). It is closed first.
        """
        try:
            self._compare_engines()
            self._run_blocks(further)
        except KeyboardInterrupt as why:
            self._close(
                "interrupted",
                say("Ended by SIGTERM; what was measured until then is here.")
                if isinstance(why, Terminated)
                else say("Interrupted by the user; what was measured until then is here."),
            )
            raise
        except UserError as error:
            self._close(
                "failed",
                say("The run could not go on: {problem}", problem=error),
                disk_full=isinstance(error, DiskFull),
            )
            raise
        except LocustGone as error:
            text = say(
                "The run could not go on: {problem}. Records that had reached the master are here.", problem=error
            )
            self._close("failed", text)
            raise UserError(text, exit_code=1) from None
        whole = self.manifest.complete_blocks() >= {block.id for block in self.blocks if self.scenario.fits(block.cell)}
        self._close("complete" if whole else "failed", None)
        return whole

    def _compare_engines(self) -> None:
        """Preflight, before any load. Raises UserError for engines that cannot be compared as they are."""
        left = self._left()
        if self._keep and self.manifest.blocks:
            self._stop_all()  # what a killed session left up would be taken for a start of its own
        if self._preflight is not None and (left or not self.blocks):  # a search for capacity makes its blocks later
            first = left[0][1].engine if left else next(iter(self.seats))
            if not self._keep:
                self.host.stop(first)  # it is to start afresh, as at every turn
            try:
                self._preflight.check(first, self._keep_findings, self.listener.engine, self._note)
            except BaseException:
                self._keep_answers(tell=False)  # what was found until then
                raise
            self._asked, self._compared = first, True

    def _keep_findings(self, findings: list[ParityFact]) -> None:
        self.manifest.parity = findings
        self._save()
        result = self._keep_answers(tell=True)
        if result is not None and self._preflight is not None:
            refuse_degenerate(result, self._preflight.accepted)

    def _keep_answers(self, *, tell: bool) -> QualityResult | None:
        """Judge and keep what the engines have answered; None where nobody asked them."""
        result = self._answers.result() if self._answers is not None else None
        if result is None:
            return None
        save_quality(result, self.folder.path / QUALITY_FILE)
        if tell:
            for text in (result.sentence, *result.notes):
                self.listener.message(text)
        return result

    def _run_blocks(self, further: Callable[[int], int] | None) -> None:
        try:
            self._run_left()
            while further is not None and (more := further(self.scenario.repeats)):
                self._extend(more)
                if self._preflight is not None and not self._compared:  # of a run that was complete
                    self._compare_engines()
                self._run_left()
        finally:
            if self._keep:
                self._stop_all()

    def _left(self) -> list[tuple[int, Block]]:
        """Blocks that are not complete, with their numbers."""
        complete = self.manifest.complete_blocks()
        return [item for item in enumerate(self.blocks, start=1) if item[1].id not in complete]

    def _run_left(self) -> None:
        for start, blocks in itertools.groupby(self._left(), key=lambda item: self._group(item[1].repeat)):
            group = list(blocks)
            if self._keep and start != self._up:
                self._start_all(start, list(dict.fromkeys(block.engine for _, block in group)))
            for _, turn in itertools.groupby(group, key=lambda item: _turn_of(item[1])):
                self._run_turn(list(turn))

    def _group(self, repeat: int) -> int:
        return self.scenario.start_of(repeat) if self._keep else 1

    def _start_all(self, start: int, engines: Sequence[str]) -> None:
        """Start the engines that are to stay up; those of an earlier group of repeats are stopped first."""
        if self._up is not None:
            self._note(
                say(
                    "All engines are started afresh: start {start} of {starts}.",
                    start=start,
                    starts=self.scenario.starts,
                )
            )
            self._stop_all()
        self._up = start
        for engine in engines:
            self._try_start(engine)

    def _stop_all(self) -> None:
        for engine in self.seats:
            self.host.stop(engine)

    def _extend(self, more: int) -> None:
        """Put further repeats behind those of the scenario, in the manifest too, so that they can be resumed."""
        done = self.scenario.repeats
        changed = self.scenario.with_repeats(done + more)
        self.scenario = self.scenario.model_copy(update=changed)
        self.manifest.scenario |= changed
        self.blocks += self.scenario.blocks(list(self.seats), range(done + 1, done + more + 1))
        self._note(say("Undecided after {done} repeats: {more} more are run.", done=done, more=more))

    def _run_turn(self, turn: list[tuple[int, Block]]) -> None:
        """Consecutive blocks of one engine and repeat. Unless engines are kept up, it starts afresh and stops after."""
        engine = turn[0][1].engine
        try:
            if not self._keep:
                if engine != self._asked:
                    self.host.stop(engine)
                self._asked = None
                self._try_start(engine)
            for number, block in turn:
                if not self.scenario.fits(block.cell):
                    continue
                if engine in self._lost:
                    self._skip(block, number, self._lost[engine])
                else:
                    self._run_block(block, number)
        finally:  # also one that started and then could not be understood: the next engine has the machine to itself
            if not self._keep:
                self.host.stop(engine)

    def _try_start(self, engine: str) -> None:
        """Start an engine; one that cannot be had is put down as lost."""
        self._lost.pop(engine, None)
        try:
            self._start_engine(engine)
        except DiskFull:
            raise
        except UserError as error:
            problem = str(error)
            if self.host.restarts:
                lost = say("{engine} could not be started: {problem}", engine=engine, problem=problem)
            else:
                lost = say("{engine} cannot be asked: {problem}", engine=engine, problem=problem)
            self._note(
                say(
                    "{engine} could not be started (`between_blocks: keep` needs room for all engines at once): "
                    "{problem}",
                    engine=engine,
                    problem=problem,
                )
                if self._keep and self.host.restarts
                else lost
            )
            first = problem.partition("\n")[0]
            self._lost[engine] = lost if first == problem else say(lost.code, engine=engine, problem=first)

    def _start_engine(self, engine: str) -> None:
        self._bring_up(engine)
        seat = self.seats[engine]
        endpoint = seat.inspect_here()
        recipe = make_recipe(endpoint)
        raced = dataclasses.replace(endpoint, base_url=seat.base_url)
        facts = EngineFacts.of(raced, recipe, self.host.describe(engine))
        same_engine(self.manifest, facts)
        self._leave_out(endpoint)
        known = {old.name: old for old in self.manifest.engines} | {engine: facts}
        if (together := self.scenario.name_together(engine)) != engine:
            known[together] = facts.model_copy(update={"name": together, "together_of": engine})
        # In the order of the seats, whoever was started last: the first is what the others are compared with.
        self.manifest.engines = [known.pop(name) for name in self.seats if name in known] + list(known.values())
        self._save()

    def _bring_up(self, engine: str) -> None:
        self.host.start(engine, lambda text: self.listener.engine(engine, text), alone=not self._keep)
        names = (engine, self.scenario.name_together(engine))
        former = max((facts.start or 0 for facts in self.manifest.blocks if facts.engine in names), default=0)
        self._starts[engine] = former + 1 if self.host.restarts else 1

    def _leave_out(self, endpoint: Endpoint) -> None:
        """Leave out the cells that an engine cannot hold. Raises UserError when it can hold none."""
        self.scenario, note = limit_context(self.scenario, endpoint.context_length, endpoint.name)
        if note is not None:
            self.manifest.scenario = self.scenario.model_dump(mode="json")
            self._note(note)

    def _driver_of(self, block: Block) -> BlockDriver:
        """Who drives the Locust that sends a block."""
        return self._driver

    def _total(self) -> int:
        """How many blocks the run will have had; 0 while nobody knows."""
        return len(self.blocks)

    def _run_block(self, block: Block, number: int) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            if self._resets is not None:
                self._resets.before_block(block.engine, self._note)
            facts = self._new_facts(block)
            try:
                with self._watched(block, facts):
                    self._driver_of(block).attempt(
                        block, facts, lambda status: self.listener.block(block, number, self._total(), status)
                    )
                facts.status = "complete"
            except KeyboardInterrupt as why:
                facts.status = "interrupted"
                facts.reason = BY_SIGNAL if isinstance(why, Terminated) else BY_USER
                self._driver_of(block).stop_quietly()
                raise
            except (LocustGone, DiskFull) as error:
                facts.status, facts.reason = "failed", str(error)
                raise
            except (BlockFailed, UserError) as raised:
                failure = self._cause(raised, block.engine)
                retry = isinstance(failure, BlockFailed) and failure.retry and attempt < ATTEMPTS
                facts.status, facts.reason = "failed", str(failure)
                if retry:
                    self._note(say("{block}: {problem}\nIt is run once more.", block=block.id, problem=failure))
                else:
                    self._note(say("{what}: {reason}", what=block.id, reason=failure))
                if retry and not self._recover(block.engine):
                    retry = False
                if not retry:
                    break
            finally:
                facts.ended_at = time.time()
                with contextlib.suppress(DiskFull):  # must not hide what is on its way; the next save tells it too
                    self._save()
                self.listener.block_ended(block, number, self._total(), facts)
            if facts.status == "complete":
                break

    def _watched(self, block: Block, facts: BlockFacts) -> contextlib.AbstractContextManager[None]:
        """Read the engine's own metrics while its block runs."""
        if self._watch is None:
            return contextlib.nullcontext()
        return self._watch.over(block.engine, facts.record_id, self._note)

    def _cause(self, failure: BlockFailed | UserError, engine: str) -> BlockFailed | UserError:
        """The failure, or the engine's end where that is behind it: then another attempt may do better."""
        if isinstance(failure, BlockFailed) or self.host.is_up(engine):
            return failure
        gone = say("{engine} does not answer any more", engine=engine)
        return BlockFailed(with_last_words(gone, self.host, engine), retry=True)

    def _recover(self, engine: str) -> bool:
        """Make ready for another attempt: the engine up, a worker there. Returns whether that worked."""
        try:
            if not self.host.is_up(engine):
                self._bring_up(engine)
            self._driver.wait_for_workers()
        except UserError as error:
            self._note(say("{engine} could not be brought back: {problem}", engine=engine, problem=error))
            return False
        return True

    def _new_facts(self, block: Block) -> BlockFacts:
        attempt = 1 + sum(facts.id == block.id for facts in self.manifest.blocks)
        trace = self.scenario.load.trace
        facts = BlockFacts.begun(
            *(block.id, block.name, block.cell),
            attempt=attempt,
            repeat=block.repeat,
            start=self._starts.get(block.engine),
            warmup_requests=self.scenario.warmup,
            measured_requests=block.cell.whole(block.requests or self.scenario.requests),
            arrivals=trace.requests if trace is not None else None,
        )
        self.manifest.blocks.append(facts)
        self._save()
        return facts

    def _skip(self, block: Block, number: int, reason: str) -> None:
        facts = self._new_facts(block)
        facts.status, facts.reason, facts.ended_at, facts.start = "failed", reason, time.time(), None
        self.listener.block_ended(block, number, self._total(), facts)

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
        strangers = sum((driver.refused for driver in self._drivers), Counter[str]())
        if refused := ", ".join(f"{kind} {count}" for kind, count in sorted(strangers.items())):
            self._note(say("Refused at Locust's port, and not counted: {what}.", what=refused))
        began = self.manifest.sessions[-1].started_at if self.manifest.sessions else self.manifest.started_at
        for text in silent_exporters(self.manifest.prometheus_url, began, time.time()):
            self._note(text)
        for facts in self.manifest.blocks:
            if facts.status == "running":
                facts.status, facts.reason, facts.ended_at = "interrupted", facts.reason or message, time.time()
        self.manifest.status = status  # type: ignore[assignment]
        self.manifest.ended_at = time.time()
        if self.manifest.sessions:
            self.manifest.sessions[-1].ended_at = self.manifest.ended_at
        try:
            self._save()
            write_parquet(self.folder)
        except DiskFull as error:
            if not disk_full:  # else it is told already
                self.listener.message(str(error))
        except UserError as error:
            self.listener.message(str(error))


def _turn_of(block: Block) -> tuple[str, int, str]:
    """What consecutive blocks have in common that are one turn of an engine, or run together."""
    return ("", block.repeat, block.cell.id) if block.together else (block.engine, block.repeat, "")


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
    folder = RunFolder.create(runs_dir, manifest)
    if scenario.load.trace is not None:
        script = scenario.load.script
        trace = keep_trace(scenario.load.trace, folder.path, script_trace(script) if script else None)
        if note := "" if script else trace.note:
            manifest.messages.append(say("The trace {file}: {note}.", file=scenario.load.trace.file, note=note))
    return folder
