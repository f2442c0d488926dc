"""A run whose engines are measured at the same instant: each on a place of its own, by a Locust of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadgen.bench.block_driver import BlockDriver, DiskFull, Halted, Rendezvous
from loadgen.bench.block_watch import BlockFailed
from loadgen.bench.campaign import ATTEMPTS, Campaign
from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.distributed.status import BlockStatus
from loadgen.errors import Terminated, UserError
from loadgen.hosts.placement import Place
from loadgen.message import say
from loadgen.runs.manifest import BY_SIGNAL, BY_USER, BlockFacts, Placed
from loadgen.scenario.model import Block

LEAD_S, FIRST_LEAD_S = 2.0, 6.0
"""From when all blocks of a set are ready to when they begin: time for each master to plan, who first asks an engine
that it does not know how it counts tokens."""
LOOK_S = 0.1
END_LIMIT_S = 20.0
"""How long blocks may take to stop when somebody ends the run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """A load generator of its own for the blocks of one engine at a time."""

    locust: LocustClient
    cpus: str = ""
    """Its cores, as Linux lists them; empty where nobody pinned it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where the engines of a stack run, start by start: places go from hand to hand, so that no engine keeps a card."""

    slots: Sequence[Place]
    """As many as engines."""
    names: Mapping[str, str]
    """The stack's own name of each seat, in the seats' order."""
    cards: Mapping[str, int]
    """How many of a place's cards each seat needs."""
    declare: Callable[[Mapping[str, Place]], None]
    """Has engines started there from now on, by the stack's names; those that run elsewhere are stopped."""

    def at(self, start: int) -> dict[str, Place]:
        """The place of each seat in a start, counted from 1."""
        found = {}
        for number, seat in enumerate(self.names):
            place = self.slots[(number + start - 1) % len(self.slots)]
            found[seat] = dataclasses.replace(place, gpus=place.gpus[: self.cards[seat]])
        return found

    def go_to(self, start: int) -> None:
        """Have the engines started at their places of a start. Raises UserError."""
        self.declare({self.names[seat]: place for seat, place in self.at(start).items()})

    def leave(self) -> None:
        """Have them started as the stack is set up. Raises UserError."""
        self.declare({})


class TogetherCampaign(Campaign):
    """Runs the blocks of one cell and repeat at the same instant, in a thread each. One that fails ends the others: a
    block is repeated with all that run beside it, or decides nothing."""

    def __init__(self, *args: Any, lanes: Sequence[Lane], places: Places | None = None, **settings: Any) -> None:
        """As a campaign. `lanes`, as many as engines: the first has the campaign's own Locust. `places`: None for
        engines that someone else places."""
        self._lock = threading.RLock()  # of manifest and listener: blocks tell what happens from their threads
        super().__init__(*args, **settings)
        self._places = places
        self._lanes = lanes
        self._drivers = [self._make_driver(lane.locust, self._others_than(lane)) for lane in lanes]
        self._driver = self._drivers[0]
        self._known: set[tuple[str, int]] = set()
        """Which engine each lane has met."""
        self.manifest.client_cpus = [lane.cpus for lane in lanes if lane.cpus]

    def run(self, further: Callable[[int], int] | None = None) -> bool:
        """Run all blocks (see Campaign.run); at the end the stack's engines have their usual places again."""
        try:
            return super().run(further)
        finally:
            if self._places is not None:
                with contextlib.suppress(UserError):  # the next race says so
                    self._places.leave()

    def _compare_engines(self) -> None:
        if self._places is not None and (left := self._left()):
            self.host.stop_all()  # those that run are elsewhere
            self._places.go_to(self._group(left[0][1].repeat))
        super()._compare_engines()

    def _start_all(self, start: int, engines: Sequence[str]) -> None:
        if self._places is not None:
            if self._up is not None:
                self._stop_all()
            self._places.go_to(start)
        super()._start_all(start, engines)

    def _bring_up(self, engine: str) -> None:
        super()._bring_up(engine)
        if self._places is None:
            return
        start = self._starts[engine]
        place = self._places.at(self._up or 1)[engine]
        others = [one for one in self.manifest.placed if (one.engine, one.start) != (engine, start)]
        told = Placed(engine=engine, start=start, gpus=list(place.gpus), cpus=place.cpus, memory_node=place.memory_node)
        self.manifest.placed = [*others, told]

    def _run_turn(self, turn: list[tuple[int, Block]]) -> None:
        if turn[0][1].together:
            self._run_set(turn)
        else:
            super()._run_turn(turn)

    def _run_set(self, items: list[tuple[int, Block]]) -> None:
        """The blocks of one cell and repeat, at once."""
        if not self.scenario.fits(items[0][1].cell):
            return
        if lost := [block.engine for _, block in items if block.engine in self._lost]:
            alone = say("it was to run together with {engine}, which could not be had", engine=lost[0])
            for number, block in items:
                self._skip(block, number, self._lost.get(block.engine, alone))
            return
        for attempt in range(1, ATTEMPTS + 1):
            for _, block in items:
                if self._resets is not None:
                    self._resets.before_block(block.engine, self._note)
            threads = self._begin(items)
            try:
                for thread in threads:
                    thread.start()
                self._follow(threads)
                again = self._judge(threads, last=attempt == ATTEMPTS)
            except KeyboardInterrupt as why:
                self._end(threads, BY_SIGNAL if isinstance(why, Terminated) else BY_USER)
                raise
            finally:
                self._save_quietly()
                for thread in threads:
                    self.listener.block_ended(thread.block, thread.number, self._total(), thread.facts)
            if not again or not self._recover_all([block.engine for _, block in items]):
                return

    def _begin(self, items: list[tuple[int, Block]]) -> list[_Thread]:
        every = [self._new_facts(block) for _, block in items]
        for facts in every:
            facts.beside = [other.record_id for other in every if other is not facts]
        self._save()
        met = {(block.engine, self._lane_of(block)) for _, block in items}
        meeting = Rendezvous(len(items), LEAD_S if met <= self._known else FIRST_LEAD_S)
        self._known |= met
        threads = []
        for (number, block), facts in zip(items, every, strict=True):
            watched = self._watched(block, facts)
            threads.append(_Thread(self._driver_of(block), number, block, facts, meeting, watched))
        return threads

    def _follow(self, threads: Sequence[_Thread]) -> None:
        """Tell the listener how they are until all have ended."""
        while left := [thread for thread in threads if thread.is_alive()]:
            left[0].join(LOOK_S)
            if (status := left[0].status) is not None:
                with self._lock:
                    self.listener.block(left[0].block, left[0].number, self._total(), status)

    def _judge(self, threads: Sequence[_Thread], *, last: bool) -> bool:
        """Put down what became of them. Returns whether they are to be run once more. Raises what ends the run."""
        failed = [thread for thread in threads if thread.error is not None and not isinstance(thread.error, Halted)]
        if not failed:
            for thread in threads:
                thread.facts.status = "complete"
            return False
        causes = {thread: self._why(thread) for thread in failed}
        retry = not last and all(isinstance(cause, BlockFailed) and cause.retry for cause in causes.values())
        beside = say("{engine}, which it ran together with, did not complete its block", engine=failed[0].block.engine)
        for thread in threads:
            thread.facts.status = "failed"
            thread.facts.reason = str(causes.get(thread, beside))
        for thread, cause in causes.items():
            if isinstance(cause, LocustGone | DiskFull) or not isinstance(cause, BlockFailed | UserError):
                raise cause
            self._note(
                say("{block}: {problem}\nIt is run once more.", block=thread.block.id, problem=cause)
                if retry
                else say("{what}: {reason}", what=thread.block.id, reason=cause)
            )
        return retry

    def _why(self, thread: _Thread) -> BaseException:
        error = thread.error
        assert error is not None  # noqa: S101 - of one that failed
        if isinstance(error, DiskFull) or not isinstance(error, BlockFailed | UserError):
            return error
        return self._cause(error, thread.block.engine)

    def _end(self, threads: Sequence[_Thread], reason: str) -> None:
        """Stop all of them because the run ends."""
        for thread in threads:
            thread.meeting.halt()
        limit = time.monotonic() + END_LIMIT_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, limit - time.monotonic()))
            thread.facts.status, thread.facts.reason = "interrupted", reason
            thread.facts.ended_at = thread.facts.ended_at or time.time()

    def _recover_all(self, engines: Sequence[str]) -> bool:
        ready = [self._recover(engine) for engine in engines]
        try:
            for driver in self._drivers:
                driver.wait_for_workers()
        except UserError as error:
            self._note(str(error))
            return False
        return all(ready)

    def _driver_of(self, block: Block) -> BlockDriver:
        return self._drivers[self._lane_of(block)]

    def _lane_of(self, block: Block) -> int:
        """Lanes change hands from repeat to repeat, so that none is one engine's: as the blocks' order does."""
        return (list(self.seats).index(block.engine) + (block.repeat - 1).bit_count()) % len(self._drivers)

    def _others_than(self, lane: Lane) -> Callable[[], list[int]]:
        """The processes of what runs beside a lane's blocks: no strangers."""

        def pids() -> list[int]:
            found: list[int] = []
            for known in (*(other.locust.pids for other in self._lanes if other is not lane), *self._engine_pids()):
                with contextlib.suppress(UserError):
                    found += known()
            return found

        return pids

    def _engine_pids(self) -> list[Callable[[], list[int]]]:
        return [lambda engine=engine: self.host.pids(engine) for engine in self.seats]  # type: ignore[misc]

    def _note(self, text: str) -> None:
        with self._lock:
            super()._note(text)

    def _save(self) -> None:
        with self._lock:
            super()._save()

    def _save_quietly(self) -> None:
        with contextlib.suppress(DiskFull):  # must not hide what is on its way; the next save tells it too
            self._save()


class _Thread(threading.Thread):
    """One block of those that run together."""

    def __init__(
        self,
        driver: BlockDriver,
        number: int,
        block: Block,
        facts: BlockFacts,
        meeting: Rendezvous,
        watched: contextlib.AbstractContextManager[None],
    ) -> None:
        super().__init__(name=facts.record_id, daemon=True)
        self.number, self.block, self.facts, self.meeting = number, block, facts, meeting
        self.status: BlockStatus | None = None
        self.error: BaseException | None = None
        self._driver, self._watched = driver, watched

    def run(self) -> None:
        """Run it. However it ends badly, the others end too."""
        try:
            with self._watched:
                self._driver.attempt(self.block, self.facts, self._show, self.meeting)
        except BaseException as error:  # whatever it is, it is for the thread that started this one
            self.error = error
            self.meeting.halt()
        finally:
            self.facts.ended_at = time.time()

    def _show(self, status: BlockStatus) -> None:
        self.status = status
