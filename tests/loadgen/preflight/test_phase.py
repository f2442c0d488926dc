"""The order in which engines are started, asked and stopped before a race. No processes, no sockets."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.endpoints import seats as seats_module
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.seats import Seat
from loadgen.engines import get_engine
from loadgen.errors import UserError
from loadgen.preflight import phase
from loadgen.preflight.finding import Needs
from loadgen.preflight.phase import Preflight, accepted_before, needs_of
from loadgen.scenario.model import Scenario
from tests.loadgen.preflight.samples import ON, SAMPLE

KINDS = {"a": "vllm", "b": "vllm"}


class FakeHost:
    def __init__(self):
        self.calls = []
        self.dead = set()

    def start(self, name, on_progress=None, *, alone=True):
        self.calls.append(f"start {name}" if alone else f"start beside {name}")
        if name in self.dead:
            raise UserError(f"{name} did not start")

    def stop(self, name):
        self.calls.append(f"stop {name}")


class Stage:
    """A preflight of engines whose samples are those of `samples`, where not given, `SAMPLE`."""

    def __init__(self, monkeypatch, needs=None, accepted=(), kinds=None, keep_up=False, **samples):
        self.host, self.samples = FakeHost(), samples
        self.messages, self.kept, self.asked, self.nonces, self.progress = [], [], {}, set(), []
        kinds = kinds or KINDS
        monkeypatch.setattr(
            seats_module,
            "inspect_endpoint",
            lambda url, name, kind, api, **_: Endpoint(name, kind, url, "m", api or get_engine(kind).default_api),
        )
        monkeypatch.setattr(phase, "make_recipe", lambda endpoint: SAMPLE.recipe)
        monkeypatch.setattr(phase, "sample_engine", self.sample)
        seats = [
            Seat(name=name, base_url=f"http://{name}", local_url=f"http://here/{name}", kind=kind)
            for name, kind in kinds.items()
        ]
        self.preflight = Preflight(seats, self.host, needs or Needs(), frozenset(accepted), keep_up=keep_up)

    def sample(self, endpoint, recipe, *, text_api, nonce, tell):
        assert endpoint.base_url == f"http://here/{endpoint.name}", "asked where this machine reaches it"
        tell("something")
        self.asked[endpoint.name] = text_api
        self.nonces.add(nonce)
        sample = self.samples.get(endpoint.name, SAMPLE)
        if isinstance(sample, BaseException):
            raise sample
        return dataclasses.replace(sample, engine=endpoint.name)

    def check(self, last="a"):
        self.preflight.check(
            last, self.kept.extend, lambda name, text: self.progress.append(f"{name}: {text}"), self.messages.append
        )


def test_what_is_raced_first_is_asked_last_and_left_running(monkeypatch):
    stage = Stage(monkeypatch)
    stage.check("a")
    assert stage.host.calls == ["start b", "stop b", "start a"]
    assert next(list(fact.values) for fact in stage.kept) == ["a", "b"], "told in the order of the seats"
    assert all(fact.equal for fact in stage.kept)
    assert len(stage.nonces) == 1, "all engines get the same prompts"
    assert stage.messages == ["Preflight: 21 checks equal"]


def test_each_step_is_told_with_the_longest_that_it_may_take(monkeypatch):
    stage = Stage(monkeypatch, kinds={"a": "vllm"})
    stage.check("a")
    assert stage.progress == [
        "a: preflight: asking what it serves (10 s at most)",
        "a: preflight: asking how it counts tokens (120 s at most for an answer)",
        "a: preflight: something (120 s at most for an answer)",
    ]


def test_blocking_difference_stops_the_race_and_the_engine_and_is_kept(monkeypatch):
    stage = Stage(monkeypatch, b=dataclasses.replace(SAMPLE, prefix=ON))
    with pytest.raises(UserError, match="prefix-caching") as caught:
        stage.check("a")
    assert caught.value.exit_code == 5
    assert stage.host.calls[-1] == "stop a"
    assert [fact.name for fact in stage.kept if not fact.equal] == ["prefix-caching"]


def test_accepted_difference_does_not(monkeypatch):
    stage = Stage(monkeypatch, accepted=["prefix-caching"], b=dataclasses.replace(SAMPLE, prefix=ON))
    stage.check("a")
    assert stage.host.calls[-1] == "start a"
    assert [fact.accepted for fact in stage.kept if fact.name == "prefix-caching"] == [True]
    assert accepted_before(stage.kept) == {"prefix-caching"}, "so that a resumed run accepts it too"


@pytest.mark.parametrize("how", ["does not start", "is not understood"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_an_engine_that_cannot_be_asked_stops_the_race_and_nothing_is_called_equal(monkeypatch, how, which):
    error = UserError("token counts cannot be predicted")
    stage = Stage(monkeypatch, **({which: error} if how == "is not understood" else {}))
    if how == "does not start":
        stage.host.dead.add(which)
    with pytest.raises(UserError, match=f"^{which} could not be asked") as refused:
        stage.check("a")
    assert refused.value.exit_code == 1
    assert f"stop {which}" in stage.host.calls and stage.host.calls[-1] == "stop a"
    assert stage.messages[0].startswith(f"Preflight could not ask {which}: ") and len(stage.messages) == 1
    assert {fact.verdict for fact in stage.kept} == {"unknown"} and not any(fact.equal for fact in stage.kept)
    assert {fact.values[which] for fact in stage.kept} == {"not answered"}


def test_engines_that_are_to_stay_up_are_left_running_unless_the_race_is_refused(monkeypatch):
    stage = Stage(monkeypatch, keep_up=True)
    stage.check("a")
    assert stage.host.calls == ["start beside b", "start beside a"]
    refused = Stage(monkeypatch, keep_up=True, b=dataclasses.replace(SAMPLE, prefix=ON))
    with pytest.raises(UserError):
        refused.check("a")
    assert sorted(refused.host.calls[-2:]) == ["stop a", "stop b"]


def test_no_engine_at_all(monkeypatch):
    stage = Stage(monkeypatch)
    stage.host.dead |= {"a", "b"}
    with pytest.raises(UserError, match="a and b could not be asked"):
        stage.check("a")
    assert stage.kept == []


@pytest.mark.parametrize("keep_up", [False, True])
@pytest.mark.parametrize("which", ["a", "b"])
def test_interrupt_leaves_nothing_running(monkeypatch, which, keep_up):
    stage = Stage(monkeypatch, keep_up=keep_up, **{which: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        stage.check("a")
    started = {call.split()[-1] for call in stage.host.calls if call.startswith("start")}
    stopped = {call.split()[1] for call in stage.host.calls if call.startswith("stop")}
    assert started == stopped


@pytest.mark.parametrize(
    ("kinds", "api"),
    [
        ({"a": "vllm", "b": "llamacpp"}, "completions"),
        ({"a": "vllm", "b": "ksana"}, "chat"),  # which is all that KsanaLLM serves
        ({"a": "ksana"}, "chat"),
    ],
)
def test_texts_are_asked_by_an_api_that_all_engines_serve(monkeypatch, kinds, api):
    stage = Stage(monkeypatch, kinds=kinds)
    stage.check("a")
    assert set(stage.asked.values()) == {api}


def test_needs_are_the_scenarios():
    fields = {"name": "s", "question": "?", "prompt_tokens": [8, 64], "output_tokens": [2, 32], "requests": 5}
    fields |= {"load": {"concurrency": [1]}}
    assert needs_of(Scenario.model_validate(fields)) == Needs(10, None), "longer cells are left out of the race"
    with_cache = Scenario.model_validate({**fields, "serving": {"prefix_caching": False}})
    assert needs_of(with_cache) == Needs(10, False)
    variant = {"name": "b", "engine": "vllm", "serving": {"prefix_caching": True}}
    apart = Scenario.model_validate({**fields, "serving": {"prefix_caching": False}, "engines": ["vllm", variant]})
    assert needs_of(apart) == Needs(10, False, own={"b": {"prefix_caching": True}})
