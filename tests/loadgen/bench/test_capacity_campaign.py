"""A campaign that searches for capacity, against a Locust that leaves the records of engines with a known limit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadgen.bench import capacity_campaign as module
from loadgen.bench.capacity_campaign import CapacityCampaign
from loadgen.bench.listener import Listener
from loadgen.capacity.search import Found
from loadgen.endpoints.endpoint import RejectedError
from loadgen.report.capacity import CapacityRow, capacity_rows, compared
from loadgen.runs.manifest import BlockFacts
from loadgen.runs.record_file import RecordFile
from loadgen.scenario.cell import Cell
from loadgen.traffic.plan import BlockRequest
from tests.loadgen.bench.test_campaign import RUNNING, Race
from tests.loadgen.records import MS, record

SEARCH = {"of": "rate", "from": 4.0, "precision": 0.1, "step_s": 1.0}
SLO = {"ttft_ms": 100.0, "percentile": 90.0}


class Capacity(Race):
    """A race whose engines meet the SLO up to a load each."""

    def __init__(self, tmp_path, monkeypatch, truth: dict[str, float], **scenario: Any) -> None:
        known = {"load": {}, "requests": 40, "slo": SLO, "find_capacity": SEARCH, "warmup_requests": 0}
        super().__init__(tmp_path, monkeypatch, **{**known, **scenario})
        monkeypatch.setattr(module, "time", self.clock)
        self.truth = truth
        self.probes: list[str] = []
        self.probe_s = 0.01
        self.begin_session()
        self.start_block = self.locust.start_block
        self.locust.start_block = self.serve  # type: ignore[method-assign]
        self.left = 10**6
        self.records_of: dict[str, int] = {}
        """Records that a block leaves, where that is not all."""
        self.rejects = 0
        """The HTTP status of engines that turn away what they cannot take, in place of being slow."""

    def begin_session(self) -> None:
        seats = list(self.campaign.seats.values())
        self.said: list[str] = []
        listener = Listener()
        listener.message = self.said.append  # type: ignore[method-assign]
        self.campaign = CapacityCampaign(
            *(self.scenario, seats, self.host, self.locust, self.folder, self.manifest, listener, self.clock.sleep),
            probe=self.probe,
        )

    def probe(self, endpoint: Any) -> None:
        self.probes.append(endpoint.name)
        self.clock.now += self.probe_s

    def serve(self, request: BlockRequest) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.start_block(request)
        cell = request.cell
        took = 50 * MS if cell.load <= self.truth[request.engine] else 150 * MS
        fields = {"block": request.block, "output_tokens": 2}
        if self.rejects:
            self.turn_away(request, cell)
            return
        many = self.records_of.get(request.block, request.requests + 1)
        file = RecordFile(self.folder.records_path)
        if cell.open_loop:
            gap = round(1e9 / cell.rate)
            file.append(record(n * gap, [took], index=n, **fields) for n in range(many))
        else:
            users = cell.concurrency
            file.append(record(n * took, [took], index=n // users, user=n % users, **fields) for n in range(many))
        file.close()

    def turn_away(self, request: BlockRequest, cell: Cell) -> None:
        """An engine that serves one request in 1 / truth seconds, and turns away all that come meanwhile.

        Of users as many are served as the truth says, and the others pause a while after each rejection.
        """
        truth, fields = self.truth[request.engine], {"block": request.block, "output_tokens": 2}
        no = {"error": f"http_{self.rejects}", "error_detail": "full", "http_status": self.rejects}
        made, free = [], 0
        if cell.open_loop:
            for n in range(request.requests + 1):
                at = round(n * 1e9 / cell.rate)
                served = at >= free
                made.append(record(at, [50 * MS] if served else [], index=n, **fields, **({} if served else no)))
                free = at + round(1e9 / truth) if served else free
        else:
            for user in range(cell.concurrency):
                served = user < truth
                gap = (50 if served else 400) * MS
                made += [
                    record(n * gap, [50 * MS] if served else [], index=n, user=user, **fields, **({} if served else no))
                    for n in range(request.requests if served else 3)
                ]
        file = RecordFile(self.folder.records_path)
        file.append(made)
        file.close()
        seen = [
            {"hopeless": True, "failures_in_row": 30, "last_error": {"kind": f"http_{self.rejects}", "detail": "full"}}
        ]
        self.locust._left = [{**RUNNING, **status} for status in seen * 3] + [{}]

    def rows(self) -> dict[str, CapacityRow]:
        run = self.folder.load()
        return {row.engine: row for row in capacity_rows(self.scenario, ["a", "b"], run.blocks)}

    def blocks(self) -> list[BlockFacts]:
        return self.folder.load().manifest.blocks


def test_each_engine_gets_a_search_of_its_own(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 11.0, "b": 3.0})
    assert race.campaign.run()
    rows = race.rows()
    for engine, truth in race.truth.items():
        found = rows[engine].found
        assert found.complete
        assert found.low <= truth < found.high <= found.low * 1.11
    facts = race.blocks()
    assert {f.status for f in facts} == {"complete"}
    assert len({f.record_id for f in facts}) == len(facts)
    assert [f.engine for f in facts] == sorted(f.engine for f in facts), "one engine at a time"
    assert race.host.calls == [("start", "a"), ("stop", "a"), ("start", "b"), ("stop", "b")]
    # 40 requests, or as many as a step of a second has.
    assert {f.measured_requests for f in facts} == {40}


def test_engines_that_are_kept_search_in_turns(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 11.0, "b": 11.0}, between_blocks="keep")
    assert race.campaign.run()
    engines = [f.engine for f in race.blocks()]
    assert engines == ["a", "b"] * (len(engines) // 2)
    assert race.host.calls == [("start beside", "a"), ("start beside", "b"), ("stop", "a"), ("stop", "b")]


def test_users_are_searched_in_whole_numbers(tmp_path, monkeypatch):
    settings = {"of": "concurrency", "from": 2.0, "precision": 0.01}
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 1.0}, find_capacity=settings)
    assert race.campaign.run()
    assert {engine: row.found.load for engine, row in race.rows().items()} == {"a": 5.0, "b": 1.0}


@pytest.mark.parametrize("steps", [0, 1, 4, 9])
@pytest.mark.parametrize("between_blocks", ["restart", "keep"])
def test_a_search_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch, steps, between_blocks):
    truth = {"a": 11.0, "b": 3.0}
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = Capacity(tmp_path / "whole", monkeypatch, truth, between_blocks=between_blocks)
    assert whole.campaign.run()
    broken = Capacity(tmp_path / "broken", monkeypatch, truth, between_blocks=between_blocks)
    broken.left = steps
    with pytest.raises(KeyboardInterrupt):
        broken.campaign.run()
    broken.left = 10**6
    broken.begin_session()
    assert broken.campaign.run()
    done = [f.id for f in broken.blocks() if f.status == "complete"]
    assert sorted(done) == sorted(f.id for f in whole.blocks()), "the same steps, none twice"
    assert broken.rows()["a"].found == whole.rows()["a"].found
    # Of an engine whose search was over nothing is started anew.
    broken.begin_session()
    broken.host.calls.clear()
    assert broken.campaign.run()
    assert broken.host.calls == []


def test_a_step_that_must_fail_is_ended_early(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    failing = "a.p0008-o0002-r8.r1"
    # At 8 req/s all miss. 24 of 40 requests that missed leave 16 at best: certain; 4 do not.
    race.records_of[failing] = 24
    race.locust.stories[failing] = [RUNNING] * 20
    assert race.campaign.run()
    facts = next(f for f in race.blocks() if f.id == failing)
    assert (facts.status, facts.measured_requests) == ("complete", 40)
    assert "cannot hold" in (facts.ended_early or "")
    assert race.locust.stops == 1
    found = race.rows()["a"].found
    assert found.high is not None and found.low <= 5.0 < found.high


def test_a_step_that_may_hold_is_not(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    slow = "a.p0008-o0002-r8.r1"
    race.records_of[slow] = 4
    race.locust.stories[slow] = [RUNNING] * 40 + [{"complete": True}]
    race.campaign.run()
    assert next(f for f in race.blocks() if f.id == slow).ended_early is None


def test_a_step_without_an_end_is_ended(tmp_path, monkeypatch):
    settings = {**SEARCH, "max_step_s": 20.0}
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0}, find_capacity=settings)
    endless = "a.p0008-o0002-r4.r1"
    race.records_of[endless] = 30
    race.locust.stories[endless] = [RUNNING]
    assert race.campaign.run()
    facts = next(f for f in race.blocks() if f.id == endless)
    assert facts.ended_early == "it took longer than 40 s"
    assert race.rows()["a"].found.low >= 4, "what had ended counts"


def test_a_search_breaks_off_at_a_block_that_fails_and_the_other_goes_on(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    race.locust.stories["a.p0008-o0002-r8.r1"] = [{**RUNNING, "block": "somebody else's"}]
    assert not race.campaign.run()
    assert any("search for the capacity of a broke off at 8 req/s" in text for text in race.manifest.messages)
    rows = race.rows()
    assert (rows["a"].found.complete, rows["b"].found.complete) == (False, True)
    assert (rows["a"].note, rows["b"].note) == ("the search broke off", "")


def test_an_engine_that_does_not_start_loses_its_search(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    race.host.dead.add("a")
    assert not race.campaign.run()
    assert [f.status for f in race.blocks() if f.engine == "a"] == ["failed"]
    assert race.rows()["b"].found.complete


def test_the_next_step_waits_until_the_engine_is_at_rest(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    race.probe_s = 0.1
    probe, slow = race.probe, [3.0, 1.0, 0.19]

    def after_a_while(endpoint: Any) -> None:
        probe(endpoint)
        if len(race.probes) > 3 and slow:
            race.clock.now += slow.pop(0) - race.probe_s

    race.campaign._probe = after_a_while
    assert race.campaign.run()
    assert not slow
    # Three at the beginning of each engine; then until one is quick, which is once but for the first wait.
    assert race.probes.count("a") == 3 + 2 + len([f for f in race.blocks() if f.engine == "a"]) - 1


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_turns_requests_away_does_not_hold_that_load(tmp_path, monkeypatch, status):
    race = Capacity(tmp_path, monkeypatch, {"a": 11.0, "b": 3.0})
    race.rejects = status
    assert race.campaign.run()
    rows = race.rows()
    for engine, truth in race.truth.items():
        found = rows[engine].found
        assert found.complete
        assert found.low <= truth < found.high <= found.low * 1.11
    # Constant arrivals a little faster than the engine: each second one is turned away.
    assert rows["a"].note == f"at {rows['a'].found.high:.3g} req/s it rejected 50% of the requests with {status}"
    told = f"a at 16 req/s: 20 of 40 requests met the SLO, it rejected 50% of them with {status}: fails"
    assert told in race.said


def test_users_who_are_turned_away_are_users_who_are_not_served(tmp_path, monkeypatch):
    """They pause, so that of the requests only few are rejected: the load was never there all the same."""
    settings = {"of": "concurrency", "from": 2.0}
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 1.0}, find_capacity=settings, requests=100)
    race.rejects = 429
    assert race.campaign.run()
    rows = race.rows()
    assert {engine: row.found.load for engine, row in rows.items()} == {"a": 5.0, "b": 1.0}
    assert rows["a"].note == "at 6 users it rejected 3% of the requests with 429"
    assert (rows["a"].text, rows["a"].interval_text) == ("5 users", "[5, 6]")


def test_an_engine_that_is_gone_is_no_engine_that_is_full(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    # Its requests would have decided the step, all of them having missed.
    race.locust.stories["a.p0008-o0002-r8.r1"] = [
        {**RUNNING, "hopeless": True, "failures_in_row": 30, "last_error": {"kind": "connect", "detail": "refused"}}
        for _ in range(40)
    ]
    assert not race.campaign.run()
    row = race.rows()["a"]
    assert (row.found.complete, row.found.high) == (False, None)
    assert any("every request fails; the last: connect: refused" in text for text in race.manifest.messages)


def test_a_request_that_is_turned_away_is_no_engine_at_rest(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    busy = [True] * 4

    def full_for_a_while(endpoint: Any) -> None:
        race.probe(endpoint)
        if len(race.probes) > 3 and busy:
            busy.pop()
            raise RejectedError("HTTP 429")

    race.campaign._probe = full_for_a_while
    assert race.campaign.run()
    assert not busy
    assert race.probes.count("a") == 3 + 4 + len([f for f in race.blocks() if f.engine == "a"]) - 1


def test_requests_that_had_not_ended_are_not_told_as_measured(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 5.0, "b": 5.0})
    failing = "a.p0008-o0002-r8.r1"
    race.records_of[failing] = 24
    race.locust.stories[failing] = [RUNNING] * 20
    assert race.campaign.run()
    assert "a at 8 req/s: at most 16 of 40 requests met the SLO: fails" in race.said
    steps = [f for f in race.blocks() if f.engine == "a"]
    assert race.rows()["a"].found.requests == 40 * (len(steps) - 1) + 24


def test_steps_that_the_search_would_not_have_taken_count_all_the_same(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 11.0, "b": 3.0})
    race.campaign.run()
    # From another first load none of the steps is one that the search asks for.
    assert race.scenario.find_capacity is not None
    other = race.scenario.find_capacity.model_copy(update={"from_": 5.0})
    race.scenario = race.scenario.model_copy(update={"find_capacity": other})
    found = race.rows()["a"].found
    assert found.load is not None and found.low is not None and found.high is not None
    assert found.low <= 11 < found.high


def test_what_two_searches_say_of_each_other():
    def row(engine: str, low: float | None, high: float | None, **fields: Any) -> CapacityRow:
        load = math.sqrt(low * high) if low and high else None
        found = Found(load=load, low=low, high=high, loads=5, requests=200, complete=fields.pop("complete", True))
        return CapacityRow(engine, 8, 2, 0.0, "rate", found, **{"limited": False, **fields})

    assert compared(row("a", 4, 9), row("b", 16, 25)) == "b takes more load: b ÷ a is 3.33× [1.78, 6.25]."
    assert compared(row("a", 16, 25), row("b", 4, 9)) == "a takes more load: b ÷ a is 0.30× [0.160, 0.562]."
    assert compared(row("a", 9, 16), row("b", 10, 14.4)) == "No difference is shown: b ÷ a is 1.00× [0.625, 1.60]."
    for other in (row("b", None, 9), row("b", 4, None), row("b", 4, 9, complete=False), row("b", 4, 9, limited=True)):
        assert compared(row("a", 4, 9), other) is None
        assert compared(other, row("a", 4, 9)) is None
