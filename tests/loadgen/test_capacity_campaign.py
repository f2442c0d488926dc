"""A campaign that searches for capacity, against a Locust that leaves the records of engines with a known limit."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen import capacity_campaign as module
from loadgen.capacity_campaign import CapacityCampaign
from loadgen.cell import Cell
from loadgen.listener import Listener
from loadgen.manifest import BlockFacts
from loadgen.record_file import RecordFile
from loadgen.report.capacity import CapacityRow, capacity_rows
from tests.loadgen.records import MS, record
from tests.loadgen.test_campaign import RUNNING, Race

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

    def serve(self, form: dict[str, Any]) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.start_block(form)
        cell = Cell.parse(form["cell"])
        took = 50 * MS if cell.load <= self.truth[form["engine"]] else 150 * MS
        fields = {"block": form["block"], "output_tokens": 2}
        many = self.records_of.get(form["block"], form["requests"] + 1)
        file = RecordFile(self.folder.records_path)
        if cell.open_loop:
            gap = round(1e9 / cell.rate)
            file.append(record(n * gap, [took], index=n, **fields) for n in range(many))
        else:
            users = cell.concurrency
            file.append(record(n * took, [took], index=n // users, user=n % users, **fields) for n in range(many))
        file.close()

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
    # At 8 req/s all miss. 12 of 40 requests that missed leave 28 at best: certain; 4 do not.
    race.records_of[failing] = 12
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
