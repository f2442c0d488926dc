"""Decisions of a campaign whose engines run together, against Locusts and engines that do as they are told."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from loadgen.bench import machine_watch
from loadgen.bench import race as race_module
from loadgen.bench.block_driver import Halted, Rendezvous
from loadgen.bench.campaign import Listener
from loadgen.bench.progress import BenchProgress
from loadgen.bench.together_campaign import Lane, Places, TogetherCampaign
from loadgen.distributed.locust_client import LocustGone
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.placement import Place
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.model import Block, Cell
from tests.loadgen.bench.test_campaign import RUNNING, FakeHost, FakeLocust, Race

A, B = "a.p0008-o0002-c001.r1", "b.p0008-o0002-c001.r1"


class Host(FakeHost):
    def stop_all(self) -> None:
        for name in sorted(self.up):
            self.stop(name)


class Pair:
    """Two engines on two places, by two Locusts."""

    def __init__(self, tmp_path, monkeypatch, *, placed: bool = True, **scenario: Any) -> None:
        self.race = Race(tmp_path, monkeypatch, **{"placement": "together", **scenario})
        self.locusts, self.host = [FakeLocust(), FakeLocust()], Host()
        self.declared: list[dict[str, Place]] = []
        race, names = self.race, ("a", "b")
        places = None
        if placed:
            slots = [Place(("0",), "0-3", 0), Place(("1",), "4-7", 1)]
            places = Places(slots, {name: f"stack-{name}" for name in names}, dict.fromkeys(names, 1), self.declare)
        seats = [Seat(name=name, base_url=f"http://{name}:8000") for name in names]
        self.campaign = TogetherCampaign(
            *(race.scenario, seats, self.host, self.locusts[0], race.folder, race.manifest, Listener()),
            race.clock.sleep,
            lanes=[Lane(locust, cpus) for locust, cpus in zip(self.locusts, ("8-9", "10-11"), strict=True)],
            places=places,
        )

    def declare(self, places: Mapping[str, Place]) -> None:
        self.declared.append(dict(places))

    def tell(self, block: str, *story: Any) -> None:
        for locust in self.locusts:
            locust.stories[block] = list(story)

    def ran(self) -> list[tuple[str, int, str]]:
        return [(facts.id, facts.attempt, facts.status) for facts in self.blocks]

    @property
    def blocks(self) -> list[BlockFacts]:
        return self.race.folder.load().manifest.blocks

    def cards(self) -> list[list[str]]:
        """Each start's cards, a's and b's."""
        return [["".join(place.gpus) for _, place in sorted(places.items())] for places in self.declared]


def test_blocks_of_a_pair_begin_at_one_instant_and_know_each_other(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch, repeats=2)
    assert pair.campaign.run()
    sent = {request.block: request for locust in pair.locusts for request in locust.requests}
    assert sent[A].begin_wall_ns == sent[B].begin_wall_ns > 0
    assert sent[A].seed == sent[B].seed
    told = {facts.id: facts.beside for facts in pair.blocks}
    assert (told[A], told[B]) == ([B], [A])
    # Both send at once, each by a Locust of its own, and these change hands.
    assert [locust.requests[number].engine for locust in pair.locusts for number in (0, 1)] == ["a", "b", "b", "a"]
    assert pair.host.calls[:2] == [("start beside", "a"), ("start beside", "b")]
    assert pair.race.manifest.client_cpus == ["8-9", "10-11"]


def test_places_change_hands_between_starts_and_are_put_down(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch, repeats=2, starts=2)
    assert pair.campaign.run()
    assert [cards for cards in pair.cards() if cards] == [["0", "1"]] * 2 + [["1", "0"]]
    assert pair.declared[-1] == {}, "the next race starts them where the stack has them"
    assert [(one.engine, one.start, one.gpus, one.cpus, one.memory_node) for one in pair.race.manifest.placed] == [
        *(("a", 1, ["0"], "0-3", 0), ("b", 1, ["1"], "4-7", 1)),
        *(("b", 2, ["0"], "0-3", 0), ("a", 2, ["1"], "4-7", 1)),
    ]
    assert [facts.start for facts in pair.blocks] == [1, 1, 2, 2]


def test_an_engine_that_runs_elsewhere_is_started_at_its_place(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    pair.host.up.add("a")
    assert pair.campaign.run()
    assert pair.host.calls[:2] == [("stop", "a"), ("start beside", "a")]


def test_nobody_places_endpoints(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch, placed=False)
    assert pair.campaign.run()
    assert (pair.declared, pair.race.manifest.placed) == ([], [])


def test_a_block_is_repeated_with_the_one_beside_it(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    pair.tell(A, RUNNING, {**RUNNING, "lost_workers": ["w"]})
    pair.tell(B, RUNNING)
    assert pair.campaign.run()
    assert pair.ran() == [(A, 1, "failed"), (B, 1, "failed"), (A, 2, "complete"), (B, 2, "complete")]
    reasons = {facts.id: facts.reason for facts in pair.blocks if facts.attempt == 1}
    assert "was lost in mid-block" in reasons[A]
    assert reasons[B] == "a, which it ran together with, did not complete its block"
    assert pair.blocks[-1].beside == [f"{A}.a2"]


def test_a_block_that_was_done_first_decides_nothing_without_the_other(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    hopeless = {**RUNNING, "hopeless": True, "last_error": {"kind": "http_500", "detail": "no"}}
    pair.tell(A, hopeless)
    assert not pair.campaign.run()
    assert pair.ran() == [(A, 1, "failed"), (B, 1, "failed")]


def test_nobody_runs_alone_where_an_engine_cannot_be_had(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    pair.host.dead.add("b")
    assert not pair.campaign.run()
    assert pair.ran() == [(A, 1, "failed"), (B, 1, "failed")]
    assert pair.blocks[0].reason == "it was to run together with b, which could not be had"
    assert not any(locust.requests for locust in pair.locusts)


def test_a_block_that_is_refused_ends_the_other_at_once(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    for locust in pair.locusts:
        locust.refuse = lambda request: "does not fit" if request.engine == "a" else None
    pair.tell(B, RUNNING)
    assert not pair.campaign.run()
    assert pair.ran() == [(A, 1, "failed"), (B, 1, "failed")]
    assert pair.blocks[0].reason == "does not fit"


def test_a_master_that_is_gone_ends_the_run_and_both_blocks(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    pair.tell(A, RUNNING, LocustGone("Locust does not answer"))
    pair.tell(B, RUNNING)
    with pytest.raises(UserError, match="does not answer"):
        pair.campaign.run()
    assert pair.ran() == [(A, 1, "failed"), (B, 1, "failed")]
    assert pair.declared[-1] == {}


def test_ctrl_c_ends_both_and_loses_nothing(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    pair.tell(A, RUNNING)
    pair.tell(B, RUNNING)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    pair.campaign.listener.block = interrupt
    with pytest.raises(KeyboardInterrupt):
        pair.campaign.run()
    assert pair.ran() == [(A, 1, "interrupted"), (B, 1, "interrupted")]
    assert pair.race.manifest.status == "interrupted"
    assert not [thread for thread in threading.enumerate() if thread.name in (A, B)]


def test_a_race_of_both_placements_measures_each_engine_alone_too(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch, placement="both", repeats=2)
    assert pair.campaign.run()
    order = [(facts.engine, facts.repeat, len(facts.beside)) for facts in pair.blocks]
    first = [("a", 1, 0), ("b", 1, 0), ("a-together", 1, 1), ("b-together", 1, 1)]
    assert order == [*first, ("b-together", 2, 1), ("a-together", 2, 1), ("b", 2, 0), ("a", 2, 0)]
    engines = pair.race.manifest.engines
    assert [(one.name, one.together_of) for one in engines] == [
        *(("a", None), ("b", None)),
        *(("a-together", "a"), ("b-together", "b")),
    ]
    # The same Locust sends an engine's blocks of one repeat, alone and together.
    lanes = [{(request.engine[0], request.block[-1]) for request in locust.requests} for locust in pair.locusts]
    assert lanes == [{("a", "1"), ("b", "2")}, {("b", "1"), ("a", "2")}]
    together = [request for locust in pair.locusts for request in locust.requests if "together" in request.engine]
    assert {(request.engine, request.stack_name) for request in together} == {("a-together", "a"), ("b-together", "b")}


def test_a_resumed_pair_is_run_whole(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    known = {"users": 1, "warmup_requests": 1, "measured_requests": 5, "started_at": 1.0, "cell": "p0008-o0002-c001"}
    pair.race.manifest.blocks = [
        BlockFacts(id=name, record_id=name, engine=name[0], repeat=1, status="interrupted", start=1, **known)
        for name in (A, B)
    ]
    assert pair.campaign.run()
    assert pair.ran()[2:] == [(A, 2, "complete"), (B, 2, "complete")]


def test_who_waits_for_one_that_failed_hears_of_it():
    meeting = Rendezvous(2, 0.0)
    heard: list[BaseException] = []

    def wait() -> None:
        try:
            meeting.meet()
        except Halted as error:
            heard.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    meeting.halt()
    thread.join()
    assert len(heard) == 1 and meeting.halted.is_set()


def test_what_runs_beside_a_block_is_no_stranger(tmp_path, monkeypatch):
    pair = Pair(tmp_path, monkeypatch)
    for number, locust in enumerate(pair.locusts):
        locust.pids = lambda number=number: [100 + number]  # type: ignore[misc]
    pair.host.pids = lambda name: [ord(name)]  # type: ignore[method-assign]
    watched: list[tuple[list[int], list[int]]] = []

    class Seen(machine_watch.Watch):
        def __init__(self, engine: Any, client: Any, helpers: Any) -> None:
            watched.append((list(engine) + list(client), list(helpers)))
            super().__init__((), ())

    monkeypatch.setattr(machine_watch, "Watch", Seen)
    assert pair.campaign.run()
    assert sorted(own for own, _ in watched) == [[ord("a"), 100], [ord("b"), 101]]
    for own, helpers in watched:
        assert {ord("a"), ord("b"), 100, 101} <= {*own, *helpers}


def test_a_locust_of_ones_own_knows_engines_by_both_names(tmp_path, monkeypatch):
    known: list[list[str]] = []

    class Started:
        def __init__(self, seats: Any, *_: Any) -> None:
            known.append([seat.name for seat in seats])

        def __enter__(self) -> None:
            return None

        def __exit__(self, *_: Any) -> None:
            return None

    monkeypatch.setattr(race_module, "OwnLocust", Started)
    seats = [
        Seat(name="one", base_url="http://127.0.0.1:1", variant_of="vllm"),
        Seat(name="other", base_url="http://127.0.0.1:2", variant_of="vllm-2"),
        Seat(name="ksana", base_url="http://127.0.0.1:3"),
    ]
    with race_module._own_locust(seats, tmp_path, "r1", 1, (), 2):
        pass
    # A block of one-together is asked for by the stack's name, and one of one by its own.
    assert known == [["one", "other", "ksana", "vllm", "vllm-2"]]


def test_the_terminal_tells_blocks_of_both_placements_apart(tmp_path):
    told = io.StringIO()
    cell = Cell(8, 2, 1)
    with BenchProgress(Console(file=told, width=200)) as progress:
        for called in ("", "a-together"):
            block = Block("a", cell, 1, together=bool(called), called=called)
            facts = BlockFacts.begun(block.id, block.name, cell, warmup_requests=1, measured_requests=5)
            facts.status = "complete"
            progress.block_ended(block, 1, 2, facts)
    assert [line.split()[1] for line in told.getvalue().splitlines()] == ["a", "a-together"]
