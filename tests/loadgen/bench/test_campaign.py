"""The campaign's decisions, against a Locust and engines that do as they are told. No processes, no time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from loadgen.bench import block_driver, block_watch
from loadgen.bench import campaign as module
from loadgen.bench.campaign import Campaign, Listener, make_folder
from loadgen.client.verdict import ClientVerdict
from loadgen.contention.reading import Contention
from loadgen.distributed.locust_client import LocustGone
from loadgen.distributed.status import BlockStatus
from loadgen.endpoints import seats as seats_module
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.variants import Setting, VariantHost
from loadgen.runs import manifest as manifest_module
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest, ParityFact
from loadgen.scenario.model import Scenario
from loadgen.traffic.plan import BlockRequest

RECIPE = PromptRecipe("text", 0, ("a", "b"), (), "nowhere")


class Clock:
    """Time passes only where the campaign sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    time = monotonic


class FakeLocust:
    """Answers every poll of a block with the next of its `stories`; the last one repeats."""

    def __init__(self) -> None:
        self.requests: list[BlockRequest] = []
        self.stops = 0
        self.workers = 1
        self.refuse: Callable[[BlockRequest], str | None] = lambda request: None
        self.stories: dict[str, list[dict[str, Any] | BaseException]] = {}
        self.told: list[tuple[str, str, Contention]] = []
        self._left: list[dict[str, Any] | BaseException] = []

    def wait_for_workers(self, count: int, limit_s: float) -> int:
        if self.workers < count:
            raise UserError("no workers")
        return self.workers

    def start_block(self, request: BlockRequest) -> None:
        if reason := self.refuse(request):
            raise UserError(reason)
        self.requests.append(request)
        self._left = list(self.stories.get(request.block, [{}]))

    def status(self) -> BlockStatus:
        said = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if isinstance(said, BaseException):
            raise said
        request = self.requests[-1]
        done = {"block": request.block, "run_id": request.run_id, "state": "stopped", "complete": True, "received": 5}
        done |= {"warmed_up": True, "measured": 5, "wanted": 5, "ended_workers": {"w": 5}}
        return BlockStatus.model_validate({**done, **said})

    def stop(self) -> None:
        self.stops += 1

    def pids(self) -> list[int]:
        return []

    def tell_contention(self, run_id: str, block: str, reading: Contention) -> None:
        self.told.append((run_id, block, reading))


RUNNING = {"complete": False, "state": "running"}


class FakeHost:
    restarts = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.dead: set[str] = set()
        self.up: set[str] = set()

    def start(self, name: str, on_progress: Any = None, *, alone: bool = True) -> None:
        self.calls.append(("start" if alone else "start beside", name))
        if name in self.dead:
            raise UserError(f"{name} did not start\nits log says why")
        self.up.add(name)

    def stop(self, name: str) -> None:
        if name in self.up:
            self.up.remove(name)
            self.calls.append(("stop", name))

    def is_up(self, name: str) -> bool:
        return name not in self.dead

    def stack_pids(self) -> list[int]:
        return []

    def pids(self, name: str) -> list[int]:
        return []

    def describe(self, name: str) -> dict[str, Any]:
        return {"argv": [name]}

    def how_it_ended(self, name: str) -> str:
        return "it ended with exit code 7"

    def log_tail(self, name: str, lines: int = 20) -> str:
        return "out of luck"


class Race:
    """A campaign of two engines with everything around it faked."""

    def __init__(self, tmp_path, monkeypatch, **scenario: Any) -> None:
        self.locust, self.host, self.clock = FakeLocust(), FakeHost(), Clock()
        fields = {"name": "tiny", "question": "?", "prompt_tokens": [8], "output_tokens": [2], "requests": 5}
        self.scenario = Scenario.model_validate({**fields, "load": {"concurrency": [1]}, **scenario})
        self.manifest = Manifest(run_id="r1", started_at=1.0)
        self.folder = make_folder(self.scenario, self.manifest, tmp_path)
        self.messages: list[str] = []
        self.inspected: list[str] = []
        listener = Listener()
        listener.message = self.messages.append  # type: ignore[method-assign]
        for each in (module, block_driver, block_watch, manifest_module):
            monkeypatch.setattr(each, "time", self.clock)
        monkeypatch.setattr(module, "make_recipe", lambda endpoint: RECIPE)
        seats = [Seat(name=name, base_url=f"http://{name}:8000", local_url=f"http://127.0.0.1/{name}") for name in "ab"]
        monkeypatch.setattr(seats_module, "inspect_endpoint", self.inspect)
        self.campaign = Campaign(
            self.scenario, seats, self.host, self.locust, self.folder, self.manifest, listener, self.clock.sleep
        )

    def inspect(self, url: str, name: str, **_: Any) -> Endpoint:
        self.inspected.append(url)
        return dataclasses.replace(endpoint(name), base_url=url)

    def ran(self) -> list[tuple[str, int, str]]:
        assert self.folder.parquet_path.is_file()
        facts = self.folder.load().manifest.blocks
        return [(f.id, f.attempt, f.status) for f in facts]


def endpoint(name: str) -> Endpoint:
    return Endpoint(name=name, kind="openai", base_url="http://127.0.0.1:1", model="m", api="chat")


A, B = "a.p0008-o0002-c001.r1", "b.p0008-o0002-c001.r1"


def facts_of(block_id: str, status: str) -> BlockFacts:
    engine, cell, _ = block_id.split(".")
    fields = {"users": 1, "warmup_requests": 1, "measured_requests": 5, "started_at": 1.0, "status": status}
    return BlockFacts(id=block_id, record_id=block_id, engine=engine, cell=cell, repeat=1, **fields)


@pytest.fixture
def race(tmp_path, monkeypatch):
    return Race(tmp_path, monkeypatch)


def test_engines_take_turns_and_get_the_same_prompts(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2, load={"concurrency": [1, 2]})
    assert race.campaign.run()
    assert [request.block.split(".")[0] for request in race.locust.requests] == list("aabbbbaa")
    # One engine serves at a time, and each turn begins with a fresh start, also B's second one.
    assert race.host.calls == [(what, name) for name in "abba" for what in ("start", "stop")]
    seeds: dict[str, set[str]] = {}
    for request in race.locust.requests:
        seeds.setdefault(request.block.split(".", 1)[1], set()).add(request.seed)
    assert len(seeds) == 4
    assert all(len(of_both) == 1 for of_both in seeds.values())
    assert len(set().union(*seeds.values())) == 4
    assert race.manifest.status == "complete"
    assert [engine.launch for engine in race.manifest.engines] == [{"argv": ["a"]}, {"argv": ["b"]}]


def test_engines_that_are_kept_up_take_turns_cell_by_cell(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2, load={"concurrency": [1, 2]}, between_blocks="keep")
    assert race.campaign.run()
    order = [(request.block[0], request.cell.concurrency, request.block[-1]) for request in race.locust.requests]
    first = [("a", 1, "1"), ("b", 1, "1"), ("a", 2, "1"), ("b", 2, "1")]
    assert order == [*first, ("b", 1, "2"), ("a", 1, "2"), ("b", 2, "2"), ("a", 2, "2")]
    assert race.host.calls == [("start beside", "a"), ("start beside", "b"), ("stop", "a"), ("stop", "b")]


def test_settings_of_one_engine_take_turns_under_their_own_names(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2)
    declared: list[str] = []
    settings = {name: Setting("vllm", f'{{"seed": {seed}}}') for seed, name in enumerate("ab")}
    seats = [Seat(name=name, base_url="http://vllm:8000", variant_of="vllm") for name in "ab"]
    host = VariantHost(race.host, settings, declared.append)
    campaign = Campaign(
        race.scenario, seats, host, race.locust, race.folder, race.manifest, Listener(), race.clock.sleep
    )
    assert campaign.run()
    assert [(request.engine, request.stack_name, request.block[0]) for request in race.locust.requests] == [
        (name, "vllm", name) for name in "abba"
    ]
    assert race.host.calls == [(what, "vllm") for _ in "abba" for what in ("start", "stop")]
    assert declared == [f'{{"seed": {seed}}}\n' for seed in (0, 1, 1, 0)]
    kept = race.folder.load().manifest
    assert [(facts.name, facts.seat) for facts in kept.engines] == [("a", "vllm"), ("b", "vllm")]
    assert [(facts.engine, facts.start) for facts in kept.blocks] == [("a", 1), ("b", 1), ("b", 2), ("a", 2)]


def starts(race: Race) -> list[tuple[str, int, int | None]]:
    """Of each block its engine, repeat and start."""
    return [(facts.engine, facts.repeat, facts.start) for facts in race.manifest.blocks]


def test_every_turn_of_a_restarted_engine_is_a_start_of_its_own(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2, load={"concurrency": [1, 2]})
    assert race.campaign.run()
    assert starts(race) == [("a", 1, 1)] * 2 + [("b", 1, 1)] * 2 + [("b", 2, 2)] * 2 + [("a", 2, 2)] * 2


def test_engines_that_are_kept_up_are_started_afresh_between_groups_of_repeats(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=4, starts=2, between_blocks="keep")
    assert race.campaign.run()
    up = [("start beside", "a"), ("start beside", "b")]
    down = [("stop", "a"), ("stop", "b")]
    assert race.host.calls == [*up, *down, *up[::-1], *down]
    assert starts(race) == [
        *(("a", 1, 1), ("b", 1, 1), ("b", 2, 1), ("a", 2, 1)),
        *(("b", 3, 2), ("a", 3, 2), ("a", 4, 2), ("b", 4, 2)),
    ]
    assert "All engines are started afresh: start 2 of 2." in race.manifest.messages


def test_a_resumed_group_of_repeats_runs_on_a_start_of_its_own(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=4, starts=2, between_blocks="keep")
    race.host.up |= {"a", "b"}  # left behind by a session that was killed
    former = facts_of(A, "complete").model_copy(update={"start": 1})
    race.manifest.blocks = [former]
    assert race.campaign.run()
    up = [("start beside", "a"), ("start beside", "b")]
    down = [("stop", "a"), ("stop", "b")]
    assert race.host.calls == [*down, *up[::-1], *down, *up[::-1], *down]
    assert starts(race)[1:4] == [("b", 1, 1), ("b", 2, 1), ("a", 2, 2)]
    assert starts(race)[4:] == [("b", 3, 2), ("a", 3, 3), ("a", 4, 3), ("b", 4, 2)]


def test_further_repeats_go_on_with_as_many_repeats_a_start(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2, starts=2, between_blocks="keep")
    assert race.campaign.run(lambda done: 2 if done < 4 else 0)
    assert [start for engine, _, start in starts(race) if engine == "a"] == [1, 2, 3, 4]
    assert race.folder.load().manifest.scenario["starts"] == 4


def test_endpoints_that_someone_else_starts_are_of_one_start(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2)
    race.host.restarts = False
    assert race.campaign.run()
    assert {start for _, _, start in starts(race)} == {1}


def test_an_engine_that_was_to_stay_up_is_tried_once(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2, between_blocks="keep")
    race.host.dead.add("b")
    assert not race.campaign.run()
    assert [(f.engine, f.status) for f in race.manifest.blocks] == [
        *(("a", "complete"), ("b", "failed")),
        *(("b", "failed"), ("a", "complete")),
    ]
    assert race.host.calls.count(("start beside", "b")) == 1
    assert "needs room for all engines at once" in race.messages[0]


def test_a_resumed_run_does_what_is_left(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2)
    done = facts_of(A, "complete")
    race.manifest.blocks = [done, facts_of(B, "interrupted")]
    assert race.campaign.run()
    assert [request.block for request in race.locust.requests] == [
        f"{B}.a2",
        B.replace("r1", "r2"),
        A.replace("r1", "r2"),
    ]
    assert race.manifest.blocks[0] is done
    assert race.manifest.blocks[2].attempt == 2


def test_further_repeats_are_run_while_somebody_asks_for_them(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, repeats=2)
    asked: list[int] = []

    def further(done: int) -> int:
        asked.append(done)
        return 2 if done < 4 else 0

    assert race.campaign.run(further)
    assert asked == [2, 4]
    assert [request.block[0] for request in race.locust.requests] == list("abbabaab")
    assert race.folder.load().manifest.scenario["repeats"] == 4
    assert "Undecided after 2 repeats: 2 more are run." in race.manifest.messages


def test_an_exporter_that_died_is_told_in_the_runs_messages(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch)
    race.manifest.prometheus_url = "http://prometheus"
    monkeypatch.setattr(module, "silent_exporters", lambda url, start, end: [f"silent at {url} from {start:g}"])
    assert race.campaign.run()
    assert race.folder.load().manifest.messages[-1] == race.messages[-1] == "silent at http://prometheus from 1"


def test_an_engine_that_changed_since_loses_its_blocks(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch)
    race.manifest.engines = [EngineFacts.of(dataclasses.replace(endpoint("a"), version="0.9"), RECIPE)]
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (B, 1, "complete")]
    assert "version was 0.9, and is None" in race.messages[0]


def test_engine_that_does_not_start_loses_its_blocks_only(race):
    race.host.dead.add("a")
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (B, 1, "complete")]
    assert "did not start" in race.manifest.blocks[0].reason
    assert "its log says why" in race.messages[0]


def test_engine_that_starts_but_is_not_understood_is_stopped(race, monkeypatch):
    def refuse(endpoint: Endpoint) -> PromptRecipe:
        if endpoint.name == "a":
            raise UserError("token counts cannot be predicted")
        return RECIPE

    monkeypatch.setattr(module, "make_recipe", refuse)
    assert not race.campaign.run()
    assert race.host.calls == [("start", "a"), ("stop", "a"), ("start", "b"), ("stop", "b")]


def test_lost_worker_costs_one_attempt(race):
    race.locust.stories[A] = [RUNNING, {**RUNNING, "lost_workers": ["w"]}]
    assert race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (A, 2, "complete"), (B, 1, "complete")]
    assert [request.block for request in race.locust.requests] == [A, f"{A}.a2", B]
    assert race.locust.stops == 1


def test_run_goes_on_with_the_workers_that_are_left(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, load={"concurrency": [1, 2]})
    race.locust.workers = 3
    status = race.locust.status

    def story() -> BlockStatus:
        said = status()
        if said.lost_workers:
            race.locust.workers = 2
        return said

    race.locust.status = story
    race.locust.stories[A] = [RUNNING, {**RUNNING, "lost_workers": ["w"]}]
    assert race.campaign.run()
    assert race.ran()[:2] == [(A, 1, "failed"), (A, 2, "complete")]
    told = [text for text in race.manifest.messages if "Of 3 Locust workers 2 are left" in text]
    assert len(told) == 1, "said once, not before every block"


def test_this_machine_asks_where_it_can_and_traffic_goes_inside(race):
    assert race.campaign.run()
    assert race.inspected == ["http://127.0.0.1/a", "http://127.0.0.1/b"]
    assert [engine.base_url for engine in race.manifest.engines] == ["http://a:8000", "http://b:8000"]


def test_second_loss_is_the_last(race):
    lost = [{**RUNNING, "lost_workers": ["w"]}]
    race.locust.stories = {A: lost, f"{A}.a2": lost}
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (A, 2, "failed"), (B, 1, "complete")]


def test_no_worker_comes_back(race):
    def story():
        race.locust.workers = 0
        return {"complete": False, "state": "running", "lost_workers": ["w"]}

    race.locust.stories[A] = [RUNNING]
    status = race.locust.status
    race.locust.status = lambda: status().model_copy(update=story())
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (B, 1, "failed")]
    assert race.manifest.status == "failed"


def test_dead_engine_is_started_again(race):
    race.locust.stories[A] = [RUNNING, {**RUNNING, "failures_in_row": 1}]
    start, status = race.host.start, race.locust.status

    def dying() -> BlockStatus:
        said = status()
        if said.failures_in_row:
            race.host.dead.add("a")
        return said

    race.locust.status = dying

    def revive(name: str, on_progress: Any = None, *, alone: bool = True) -> None:
        race.host.dead.discard(name)
        start(name, on_progress)

    race.host.start = revive
    assert race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (A, 2, "complete"), (B, 1, "complete")]
    assert "a died in mid-block: it ended with exit code 7. The end of its log" in race.manifest.blocks[0].reason
    assert "out of luck" in race.manifest.blocks[0].reason
    assert race.host.calls.count(("start", "a")) == 2
    assert starts(race) == [("a", 1, 1), ("a", 1, 2), ("b", 1, 1)]


@pytest.mark.parametrize(
    ("story", "reason"),
    [
        (
            {"hopeless": True, "last_error": {"kind": "http_500", "detail": "no"}},
            "every request fails; the last: http_500: no",
        ),
        ({"block": "somebody else's"}, "another test was started"),
        ({"run_id": "somebody else's"}, "another test was started"),
        ({"state": "stopped"}, "stopped in the web UI"),
        ({}, "no request ended for"),
    ],
)
def test_block_without_a_future_is_given_up(race, story, reason):
    race.locust.stories[A] = [{**RUNNING, **story}]
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (B, 1, "complete")]
    assert reason in race.manifest.blocks[0].reason


def test_refused_block_is_not_tried_again(race):
    race.locust.refuse = lambda request: "does not fit" if request.engine == "a" else None
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (B, 1, "complete")]
    assert race.manifest.blocks[0].reason == "does not fit"


def test_master_that_was_started_anew_gets_the_block_again(race):
    race.locust.stories[A] = [RUNNING, LocustGone("away"), LocustGone("away"), {"block": None}]
    assert race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (A, 2, "complete"), (B, 1, "complete")]


def test_master_that_is_gone_ends_the_run(race):
    race.locust.stories[A] = [RUNNING, LocustGone("Locust does not answer")]
    with pytest.raises(UserError, match="does not answer") as caught:
        race.campaign.run()
    assert caught.value.exit_code == 1
    assert race.ran() == [(A, 1, "failed")]
    assert race.manifest.status == "failed"
    assert race.host.calls[-1] == ("stop", "a")


def test_full_disk_ends_the_run(race):
    race.locust.stories[A] = [RUNNING, {**RUNNING, "write_error": "x cannot be written"}]
    with pytest.raises(UserError, match="x cannot be written") as caught:
        race.campaign.run()
    assert caught.value.exit_code == 1
    assert race.locust.stops == 1
    assert race.manifest.status == "failed"


def test_a_client_limited_block_is_kept(race):
    limited = ClientVerdict(True, ("TTFT may be off by up to 8.1 ms (tolerance 1.0 ms)",), 8.1, 1.0, 0.0, requests=5)
    race.locust.stories[A] = [{"client": limited}]
    assert race.campaign.run()
    told = {facts.id: facts.client for facts in race.manifest.blocks}
    assert told.pop(A) == limited
    assert set(told.values()) == {None}


def test_ctrl_c_in_mid_block_closes_the_run(race):
    race.locust.stories[A] = [RUNNING, KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        race.campaign.run()
    assert race.ran() == [(A, 1, "interrupted")]
    assert race.manifest.status == "interrupted"
    assert race.manifest.ended_at is not None
    assert race.locust.stops == 1
    assert race.host.calls == [("start", "a"), ("stop", "a")]


def test_ctrl_c_while_an_engine_starts_stops_it(race):
    def interrupt(name: str, on_progress: Any = None, *, alone: bool = True) -> None:
        race.host.up.add(name)
        raise KeyboardInterrupt

    race.host.start = interrupt
    with pytest.raises(KeyboardInterrupt):
        race.campaign.run()
    assert race.host.calls == [("stop", "a")]
    assert race.manifest.status == "interrupted"


class FakePreflight:
    """Starts what is raced first, has its findings kept, and may then refuse."""

    def __init__(self, host: FakeHost, error: BaseException | None = None) -> None:
        self.host, self.error = host, error

    def check(self, last: str, keep: Any, on_progress: Any, on_message: Any) -> None:
        self.host.start(last)
        keep([ParityFact(check="usage", equal=True, detail="", name="usage", verdict="equal")])
        on_message("Preflight: 1 checks equal")
        if self.error is not None:
            raise self.error


def test_engines_are_compared_before_the_first_block(race):
    race.campaign._preflight = FakePreflight(race.host)
    assert race.campaign.run()
    assert race.host.calls[:3] == [("start", "a"), ("start", "a"), ("stop", "a")]
    assert [fact.name for fact in race.folder.load().manifest.parity] == ["usage"]
    assert race.messages == race.manifest.messages == ["Preflight: 1 checks equal"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError("cannot be compared", exit_code=3), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_a_race_that_preflight_stops_has_no_block(race, error, status):
    race.campaign._preflight = FakePreflight(race.host, error)
    with pytest.raises(type(error)) as caught:
        race.campaign.run()
    assert caught.value is error
    assert race.ran() == [] and race.locust.requests == []
    assert race.manifest.status == status
    assert [fact.name for fact in race.folder.load().manifest.parity] == ["usage"]


def test_records_that_do_not_arrive_are_told(race):
    race.locust.stories[A] = [RUNNING, {"unconfirmed_workers": ["w"]}]
    assert race.campaign.run()
    assert [text for text in race.messages if "not every worker confirmed" in text]


def test_cells_that_an_engine_cannot_hold_are_left_out_for_all_and_told(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch, prompt_tokens=[8, 64])
    inspect = race.inspect

    def short(url: str, name: str, **_: Any) -> Endpoint:
        return dataclasses.replace(inspect(url, name), context_length=65 if name == "a" else 4096)

    monkeypatch.setattr(seats_module, "inspect_endpoint", short)
    assert race.campaign.run(), "what is left out is nothing that failed"
    assert [facts.cell for facts in race.manifest.blocks] == ["p0008-o0002-c001"] * 2
    told = [text for text in race.manifest.messages if "Left out for all engines" in text]
    assert len(told) == 1 and "a serves a context of 65 tokens: p0064-o0002-c001 (66 tokens)" in told[0]
    assert race.manifest.scenario["max_context"] == 65
    assert race.manifest.status == "complete"


def test_an_engine_that_can_hold_no_cell_loses_its_blocks(tmp_path, monkeypatch):
    race = Race(tmp_path, monkeypatch)
    inspect = race.inspect

    def tiny(url: str, name: str, **_: Any) -> Endpoint:
        return dataclasses.replace(inspect(url, name), context_length=9 if name == "a" else None)

    monkeypatch.setattr(seats_module, "inspect_endpoint", tiny)
    assert not race.campaign.run()
    assert race.ran() == [(A, 1, "failed"), (B, 1, "complete")]
    assert "needs a context of 10 tokens or more; a serves 9" in race.messages[0]
