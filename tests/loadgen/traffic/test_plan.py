"""Plans: what a worker is told, and the request that comes of it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.engines import ENGINES
from loadgen.engines.needs import Needs
from loadgen.errors import UserError
from loadgen.scenario.cell import Cell
from loadgen.scenario.shapes import Conversation, Step
from loadgen.scenario.trace import Trace
from loadgen.stream.timeouts import Timeouts
from loadgen.traffic.block import Traffic
from loadgen.traffic.plan import BlockPlan, BlockRequest
from tests.loadgen.records import MS, record

RECIPE = PromptRecipe("text", 5, tuple(f"w{i}" for i in range(20)), (), "test")


CHAT = Conversation(turns=3, message_tokens=7, think_s=2.0)


def plan(kind="vllm", api="completions", model="m", **fields) -> BlockPlan:
    known = {
        **{"run_id": "r", "scenario": "s", "block": "b", "engine": "e", "cell": Cell(64, 9, 2)},
        **{"requests": 10, "warmup_requests": 1, "seed": "1", "recipe": RECIPE},
        "endpoint": Endpoint("e", kind, "http://h", model, api, "0.1", 4096, None, "secret", "KEY"),
    }
    return BlockPlan(**{**known, **fields})


@pytest.mark.parametrize("kind", ENGINES)
def test_a_plan_survives_its_journey_to_the_workers(kind):
    step, trace = Step(at_s=1, for_s=2, factor=3), Trace((0, 5), (60, 70), (3, 4))
    for made in (
        plan(kind),
        plan(kind, cell=Cell(64, 9, 2, shared_percent=5, conversation=CHAT), workers=("a", "b")),
        plan(kind, cell=Cell(64, 9, 0, 2.5, step=step), arrival="constant", timeouts=Timeouts(stall_s=1)),
        plan(kind, cell=Cell(64, 9, 0, 2.5, trace="0a0b0c0d"), arrival="trace", trace=trace),
        plan(kind, requests=None, shared_prefix_tokens=3, keep_text=True),
    ):
        sent = made.model_dump_json()
        assert "secret" not in sent, "a key never travels"
        assert BlockPlan.from_json(sent).with_key({"KEY": "secret"}) == made
        request = BlockRequest(**{name: getattr(made, name) for name in BlockRequest.model_fields})
        assert BlockRequest.from_json(request.model_dump_json()) == request
    assert made.api == "completions"


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_a_worker_without_the_key_says_which_variable_holds_it(environ):
    with pytest.raises(UserError, match="KEY, which holds the API key of e, is not set"):
        BlockPlan.from_json(plan().model_dump_json()).with_key(environ)


def test_seats_are_by_place_and_only_for_those_of_the_plan():
    made = plan(workers=("host_b", "host_a"))
    assert [made.seat(worker) for worker in made.workers] == [0, 1]
    with pytest.raises(UserError, match="host_c is not among the workers of block b"):
        made.seat("host_c")


@pytest.mark.parametrize(
    ("scenario", "own", "used"),
    [(None, None, None), ("</a>", None, "</a>"), (None, "</b>", "</b>"), ("</a>", "</b>", "</b>")],
)
def test_the_end_of_reasoning_is_the_endpoints_own_or_the_scenarios(scenario, own, used):
    made = plan(reasoning_end=scenario)
    needs = Needs.of({"reasoning_end": own}, "--")
    made = made.model_copy(update={"endpoint": dataclasses.replace(made.endpoint, needs=needs)})
    made = BlockPlan.from_json(made.model_dump_json())
    assert Traffic(made, lambda record: None)._settings.reasoning_end == used


def test_workers_deal_out_the_prompts_whoever_they_are():
    def prompts(*workers: str) -> list[set[str]]:
        shares = [Traffic(plan(workers=workers), lambda record: None, worker) for worker in workers]
        return [{share.next_prompt() for _ in range(6 // len(workers))} for share in shares]

    before, after = prompts("a", "b"), prompts("c", "b")
    assert before == after and not before[0] & before[1]
    (alone,) = prompts("a")
    assert alone == before[0] | before[1], "nor how many"


def test_a_trace_that_ends_is_cut_by_its_arrivals():
    trace = Trace((0, 10 * MS, 20 * MS))
    made = plan(cell=Cell(64, 9, 0, 100.0), arrival="trace", trace=trace, requests=2, warmup_requests=1)
    records = [record(n * 10 * MS, [MS], index=n) for n in range(3)]
    assert made.cut_rule.cut(records).complete, "there is no arrival behind the last measured one to wait for"
    assert not plan(cell=made.cell, requests=2, warmup_requests=1).cut_rule.cut(records).complete


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", '{"run_id": 1}', plan().model_dump_json()[:-1] + ',"more":1}']
)
def test_what_is_no_plan_is_a_value_error_that_keeps_secrets(text):
    with pytest.raises(ValueError) as caught:
        BlockPlan.from_json(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ENGINES)
@given(model=st.text(max_size=20), number=st.integers(0, 10**6), output=st.integers(1, 10**6))
def test_bodies_are_json_with_the_engines_fields_and_the_prompt(kind, model, number, output):
    for api in ENGINES[kind].apis:
        made = plan(kind, api, model)
        prompt = PromptFactory(RECIPE, prompt_tokens=64, seed="1").prompt(number)
        body = json.loads(made.body(prompt, made.request_fields_json(output)))
        prompt_field = "input" if api == "responses" else "prompt"
        sent = body.pop("messages")[0]["content"] if api == "chat" else body.pop(prompt_field)
        assert sent == json.loads(prompt)
        fields = ENGINES[kind].request_fields(model, output)
        if api == "responses":
            fields["max_output_tokens"] = fields.pop("max_tokens")
            del fields["stream_options"]
        assert body == fields
