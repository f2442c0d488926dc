"""Prompts that come again: prefixes in a circle, in a row and adrift; scripts; against oracles of their own."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.errors import UserError
from loadgen.scenario.cell import Cell
from loadgen.scenario.file import load_scenario
from loadgen.scenario.model import Scenario
from loadgen.scenario.script import Part, script_trace
from loadgen.scenario.shapes import Prefixes
from loadgen.scenario.trace import TRACE_FILE, keep_trace, read_trace
from loadgen.traffic.block import Traffic
from loadgen.traffic.open_loop import Dispatcher
from tests.loadgen.records import record
from tests.loadgen.traffic.test_plan import plan

TEXT = PromptRecipe("text", 5, tuple(f"w{i}" for i in range(40)), (), "test")
IDS = PromptRecipe("ids", 1, tuple(str(i) for i in range(100, 140)), (1,), "test")


def tokens(prompt: str) -> list[Any]:
    """A prompt's pieces, without what opens every prompt."""
    text = json.loads(prompt)
    return text[1:] if isinstance(text, list) else text.split()


@given(
    *(st.integers(1, 30), st.integers(1, 6), st.sampled_from(["circle", "row", "drift"]), st.integers(0, 9)),
    st.integers(0, 3),
)
def test_each_prefix_is_visited_as_often_as_asked_and_then_come_new_ones(count, visits, order, fill, done):
    shape = Prefixes(count=count, tokens=8, visits=visits, order=order, fill=fill)
    begin = done * shape.round
    which = [shape.which(begin + at) for at in range(shape.round)]
    assert which[:fill] == [None] * fill
    assert Counter(which[fill:]) == dict.fromkeys(range(done * count, (done + 1) * count), visits)
    if order == "circle":
        assert which[fill:] == [*range(done * count, (done + 1) * count)] * visits
    if order == "row":
        assert [len([*same]) for _, same in itertools.groupby(which[fill:])] == [visits] * count


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 9))
def test_a_prefix_that_drifts_comes_again_so_many_steps_later(count, visits, apart):
    """A step begins with what is new, as long as there is such: visits between are of those that are due."""
    shape = Prefixes(count=count, tokens=8, visits=visits, order="drift", apart=apart)
    expected = [
        prefix
        for step in range(count + apart * visits)
        for prefix in range(step, -1, -1)
        if prefix < count and (step - prefix) % apart == 0 and (step - prefix) // apart < visits
    ]
    assert [shape.which(number) for number in range(shape.round)] == expected


@pytest.mark.parametrize("recipe", [TEXT, IDS])
@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 500), st.integers(0, 500), st.integers(1, 90))
def test_prompts_of_one_prefix_have_just_that_in_common(recipe, a, b, this, that, prefix):
    factory = PromptFactory(recipe, prompt_tokens=64, seed="1", prefix_tokens=prefix)
    first, again, other = factory.prompt(a, None, this), factory.prompt(b, None, this), factory.prompt(a, None, that)
    around = recipe.overhead if recipe.mode == "text" else 1
    kept = min(prefix, 64 - around)
    assert {len(tokens(prompt)) for prompt in (first, again, other)} == {64 - around}
    assert tokens(first)[:kept] == tokens(again)[:kept]
    if kept < 63 - around and a // 37 % 37 != b // 37 % 37:
        assert tokens(first)[kept : kept + 2] != tokens(again)[kept : kept + 2], "then their own, at once"
    if kept > 1 and this // 37 != that // 37:
        assert tokens(first)[:2] != tokens(other)[:2]
    if prefix >= 64:
        assert first == again


def prefixed(**keys: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "question": "q?",
        "prompt_tokens": [64],
        "output_tokens": [1],
        "load": {"concurrency": [1]},
        "requests": 9,
        "prefixes": {"count": 3, "tokens": 40, **keys},
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"shared_prefix": [0.5]}, "with no `conversation`, `trace`"),
        ({"load": {"script": [{"requests": 2, "prompt_tokens": 3, "output_tokens": 1}]}}, "`prefixes` goes with"),
        ({"prefixes": {"count": 3, "tokens": 4, "apart": 2}}, "`apart` goes with `order: drift`"),
        ({"prefixes": {"count": 100_000, "tokens": 4, "visits": 11}}, "more than a million"),
    ],
)
def test_prefixes_that_cannot_be(keys, message):
    with pytest.raises(ValueError, match=message):
        Scenario.model_validate({**prefixed(), **keys})


class Sent:
    """Traffic that ends as soon as it is sent, and the prompts that it sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
        self.prompts: list[str] = []
        self.traffic = Traffic(plan(**fields), lambda record: None)
        monkeypatch.setattr(self.traffic, "send_one", self.send_one)

    def send_one(self, connection: object, prompt: str, *, lengths: tuple[int, int], **_: Any) -> object:
        assert len(tokens(prompt)) + TEXT.overhead == lengths[0]
        self.prompts.append(prompt)
        return record(0, [1])


def test_users_and_batches_send_the_prefixes_in_their_order(monkeypatch):
    shape = Prefixes(count=3, tokens=40, visits=2)
    users = Sent(monkeypatch, cell=Cell(64, 9, 1, prefixes=shape))
    for _ in range(6):
        users.prompts.append(users.traffic.next_prompt())
    opening = [tuple(tokens(prompt)[:40]) for prompt in users.prompts]
    assert opening[:3] == opening[3:] and len(set(opening)) == 3
    copies = Prefixes(count=5, tokens=64, visits=4, order="row")
    batches = Sent(monkeypatch, cell=Cell(64, 9, 0, batch=4, prefixes=copies), requests=8, warmup_requests=0)
    sender = batches.traffic.batch_sender()
    assert sender is not None
    monkeypatch.setattr("loadgen.traffic.batch.gc.collect", lambda _: 0)
    sender.run()
    assert [len([*same]) for _, same in itertools.groupby(batches.prompts)] == [4, 4], "four copies at an instant"


# Scripts

parts = st.builds(
    Part,
    requests=st.integers(1, 9),
    prompt_tokens=st.integers(1, 99),
    output_tokens=st.integers(1, 99),
    at_s=st.integers(0, 50).map(lambda tenths: tenths / 10),
    every_s=st.integers(0, 5).map(lambda tenths: tenths / 10),
    same=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(parts, min_size=2, max_size=6))
def test_a_script_is_what_its_parts_say(given_parts):
    trace = script_trace(given_parts)
    expected = []
    for number, part in enumerate(given_parts):
        for at in range(part.requests):
            tenths = round(part.at_s * 10) + at * round(part.every_s * 10)
            expected.append((tenths * 10**8, number, at, part))
    expected.sort(key=lambda arrival: arrival[:3])
    assert trace.arrivals_ns == tuple(at for at, *_ in expected)
    assert trace.prompt_tokens == tuple(part.prompt_tokens for *_, part in expected)
    assert trace.output_tokens == tuple(part.output_tokens for *_, part in expected)
    of: dict[int, set[tuple[int, int]]] = {}
    for prompt, (_, number, at, part) in zip(trace.prompts, expected, strict=True):
        of.setdefault(prompt, set()).add((number, 0 if part.same else at))
    assert all(len(sources) == 1 for sources in of.values()), "one prompt is of one part"
    assert len(of) == sum(1 if part.same else part.requests for part in given_parts)


SCRIPT = """
name: x
question: q?
load:
  script:
    - {requests: 2, prompt_tokens: 80, output_tokens: 1}
    - {at_s: 0.004, requests: 3, prompt_tokens: 20, output_tokens: 2, same: true}
"""


def test_a_script_in_a_file(tmp_path, monkeypatch):
    file = tmp_path / "s.yaml"
    file.write_text(SCRIPT)
    scenario = load_scenario(str(file))
    assert (scenario.requests, scenario.warmup, scenario.load.kinds) == (5, 0, 1)
    assert (scenario.prompt_tokens, scenario.output_tokens) == ([44], [2])
    assert scenario.tokens_needed(scenario.cells()[0]) == 81
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario, "as a run keeps it"
    facts = scenario.load.trace
    assert facts is not None
    kept = keep_trace(facts, tmp_path, script_trace(scenario.load.script))
    assert read_trace(tmp_path / TRACE_FILE) == kept
    sent = Sent(monkeypatch, cell=scenario.cells()[0], arrival="trace", trace=kept, requests=5, warmup_requests=0)
    dispatcher = sent.traffic.dispatcher(0)
    assert isinstance(dispatcher, Dispatcher)
    monkeypatch.setattr("loadgen.traffic.open_loop.wait_until", lambda due: gevent.sleep(0))
    dispatcher.run()
    assert [len(tokens(prompt)) + 5 for prompt in sent.prompts] == [80, 80, 20, 20, 20]
    assert len(set(sent.prompts)) == 3 and len(set(sent.prompts[2:])) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("requests: 2", "requests: 0"), r"s.yaml:6: `load.script.0.requests`: must be 1 or more, not '0'"),
        (("same: true", "sane: true"), r"s.yaml:7: `load.script.1.sane`: unknown key; did you mean `same`\?"),
        (("name: x", "name: x\nprompt_tokens: [9]"), "`prompt_tokens`: the script gives the lengths itself"),
        (("  script:", "  rate: [3]\n  script:"), "or replay a `trace` or `script` instead"),
        (("requests: 3", "requests: 50000"), r"`load.script`: it has 50002 requests in all: give 2 to 50,000"),
    ],
)
def test_a_script_that_is_wrong_is_told_in_one_line(tmp_path, change, message):
    file = tmp_path / "s.yaml"
    file.write_text(SCRIPT.replace(*change))
    with pytest.raises(UserError, match=message) as told:
        load_scenario(str(file))
    assert len(str(told.value).splitlines()) == 1


def test_prompts_of_a_trace_are_all_numbered_or_none(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"t": 0, "prompt": 4}\n{"t": 1}\n')
    with pytest.raises(UserError, match=r":2: all lines give `prompt`, or none"):
        read_trace(file)
    file.write_text('{"t": 0, "prompt": 4}\n{"t": 1, "prompt": -4}\n')
    with pytest.raises(UserError, match=r":2: `prompt` must be a whole number from 0 on"):
        read_trace(file)
    file.write_text('{"t": 0, "prompt": 4}\n{"t": 1, "prompt": 4}\n')
    assert read_trace(file).prompts == (4, 4)
