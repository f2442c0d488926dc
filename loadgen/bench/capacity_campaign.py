"""A run that searches for capacity: its blocks are the steps of a search, each chosen by what the last ones gave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from loadgen.bench.campaign import Campaign
from loadgen.capacity.search import Outcome
from loadgen.capacity.steps import EngineSearch
from loadgen.endpoints.endpoint import Endpoint, RejectedError
from loadgen.endpoints.tokens import count_tokens
from loadgen.errors import UserError
from loadgen.message import say
from loadgen.record import RequestRecord, int64s
from loadgen.runs.manifest import BlockFacts
from loadgen.runs.record_file import RecordTail
from loadgen.scenario.model import Block

DRAIN_LIMIT_S = 120.0
DRAIN_PAUSE_S = 0.5
CHECK_INTERVAL_S = 1.0
IDLE_PROBES = 3


def ask_once(endpoint: Endpoint) -> None:
    """Have an engine answer one small request. Raises UserError when it does not."""
    count_tokens(endpoint, "a")


class CapacityCampaign(Campaign):
    """Searches each shape's capacity on each engine. Steps are ordinary blocks; a run that is resumed replays them."""

    def __init__(self, *args: Any, probe: Callable[[Endpoint], None] = ask_once, **settings: Any) -> None:
        """As a campaign; `probe` has an engine answer a request, which tells whether it still works off a queue."""
        super().__init__(*args, **settings)
        self._probe = probe
        self._idle_s: dict[str, float] = {}
        self._tail = RecordTail(self.folder.records_path)
        self._records: dict[str, list[RequestRecord]] = {}
        """Of each block, without their events."""
        self._driver.enough = self._enough
        self._running: tuple[EngineSearch, Block] | None = None
        self._checked = 0.0
        self.blocks = []

    def _run_blocks(self, further: Callable[[int], int] | None) -> None:
        searches = [
            EngineSearch(engine, shape, self.scenario) for shape in self.scenario.cells() for engine in self.seats
        ]
        for search in searches:
            self._replay(search)
        left = [search for search in searches if search.next_block() is not None]
        engines = [engine for engine in self.seats if any(search.engine == engine for search in left)]
        if self._keep:
            try:
                for engine in engines:
                    self._try_start(engine)
                # Of each shape all engines at once, step by step in turns: they then search in the same minutes.
                for shape in self.scenario.cells():
                    self._search([search for search in left if search.shape == shape])
            finally:
                for engine in self.seats:
                    self.host.stop(engine)
            return
        for engine in engines:
            try:
                self.host.stop(engine)
                self._try_start(engine)
                for search in left:
                    if search.engine == engine:
                        self._search([search])
            finally:
                self.host.stop(engine)

    def _replay(self, search: EngineSearch) -> None:
        """Take in the steps that an earlier session of this run has completed."""
        self._read_records()
        complete = {facts.id: facts for facts in self.manifest.blocks if facts.status == "complete"}
        while (block := search.next_block()) is not None and block.id in complete:
            self.blocks.append(block)
            facts = complete[block.id]
            search.tell(block, facts, self._records.get(facts.record_id, []))

    def _search(self, searches: list[EngineSearch]) -> None:
        """Step by step in turns, until each search is over or has broken off."""
        while searches:
            searches = [search for search in searches if self._step(search)]

    def _step(self, search: EngineSearch) -> bool:
        """Run the next step. Returns whether there may be another."""
        block = search.next_block()
        if block is None or not self.scenario.fits(search.shape):
            return False
        self.blocks.append(block)
        if block.engine in self._lost:
            self._skip(block, len(self.blocks), self._lost[block.engine])
            return False
        self._wait_until_idle(block.engine)
        self._running = (search, block)
        try:
            self._run_block(block, len(self.blocks))
        finally:
            self._running = None
        facts = self.manifest.blocks[-1]
        if facts.status != "complete":
            self._note(
                say(
                    "The search for the capacity of {engine} broke off at {load}.",
                    engine=block.engine,
                    load=block.cell.load_text,
                )
            )
            return False
        self._read_records()
        known = search.tell(block, facts, self._records.get(facts.record_id, []))
        self.listener.message(f"{block.engine} at {block.cell.load_text}: {self._words(known)}")
        return True

    def _total(self) -> int:
        return 0

    def _words(self, known: Outcome) -> str:
        slo = self.scenario.slo
        decision = known.decide(slo.share) if slo is not None else ""
        most, those = ("at most ", "those that had ended") if known.open else ("", "them")
        away = f", it rejected {known.rejected_percent} of {those} with {known.rejected_with}" if known.rejected else ""
        if known.refused:
            away += ", so it never had this load (`max_error_share`)"
        return f"{most}{known.met} of {known.total} requests met the SLO{away}: {decision}"

    def _enough(self, facts: BlockFacts) -> str | None:
        """Why the running step need not go on; None while it must."""
        settings, now = self.scenario.find_capacity, time.monotonic()
        if self._running is None or settings is None or now - self._checked < CHECK_INTERVAL_S:
            return None
        self._checked = now
        self._read_records()
        search, block = self._running
        if search.fails(block, facts, self._records.get(facts.record_id, [])):
            return say("the SLO cannot hold any more, whatever the requests give that have not ended")
        if time.time() - facts.started_at > 2 * settings.max_step_s:
            return say("it took longer than {seconds} s", seconds=f"{2 * settings.max_step_s:g}")
        return None

    def _read_records(self) -> None:
        for record in self._tail.read():
            # A search needs no single events, and there may be millions.
            record.event_offsets_ns, record.read_lags_ns = int64s(), int64s()
            self._records.setdefault(record.block, []).append(record)

    def _wait_until_idle(self, engine: str) -> None:
        """Wait until an engine answers as quickly as one that has nothing else to do: a step may leave it a queue."""
        endpoint = self.seats[engine].inspect_here()
        if engine not in self._idle_s:
            self._idle_s[engine] = min(self._probe_s(endpoint) for _ in range(IDLE_PROBES))
            return
        quick = self._idle_s[engine]
        deadline = time.monotonic() + DRAIN_LIMIT_S
        while self._probe_s(endpoint) > max(2 * quick, quick + 0.05):
            if time.monotonic() > deadline:
                self._note(
                    say(
                        "{engine} was not at rest {seconds} s after a step; the next may suffer.",
                        engine=engine,
                        seconds=f"{DRAIN_LIMIT_S:g}",
                    )
                )
                return
            self._sleep(DRAIN_PAUSE_S)

    def _probe_s(self, endpoint: Endpoint) -> float:
        """Seconds that a small request takes; one that is turned away takes for ever, another failure what it took."""
        began = time.monotonic()
        try:
            self._probe(endpoint)
        except RejectedError:
            return math.inf
        except UserError as error:
            self._note(say("{what}: {reason}", what=endpoint.name, reason=error))
        return time.monotonic() - began
