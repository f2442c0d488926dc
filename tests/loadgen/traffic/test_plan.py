"""Plans: what a worker is told, and the request that comes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.engines import ENGINES
from loadgen.scenario.model import Cell
from loadgen.traffic.plan import BlockPlan

RECIPE = PromptRecipe("text", 5, tuple(f"w{i}" for i in range(20)), (), "test")


def plan(kind="vllm", api="completions", model="m", **fields) -> BlockPlan:
    known = {
        **{"run_id": "r", "scenario": "s", "block": "b", "prompt_tokens": 64, "output_tokens": 9, "users": 2},
        **{"requests": 10, "warmup_requests": 1, "prompt_seed": "1", "recipe": RECIPE},
        "endpoint": Endpoint("e", kind, "http://h", model, api, "0.1", 4096, None, "secret"),
    }
    return BlockPlan(**{**known, **fields})


@pytest.mark.parametrize("kind", ENGINES)
def test_a_plan_survives_its_journey_to_the_workers(kind):
    for made in (plan(kind), plan(kind, requests=None, shared_prefix_tokens=3, keep_text=True)):
        assert BlockPlan.from_json(made.to_json()) == made
    assert made.cell == Cell(64, 9, 2)
    assert made.api == "completions"


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", '{"run_id": 1}', plan().to_json()[:-1] + ',"more":1}'])
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
        sent = body.pop("messages")[0]["content"] if api == "chat" else body.pop("prompt")
        assert sent == json.loads(prompt)
        assert body == ENGINES[kind].request_fields(model, output)
