"""One engine with several settings: the form in `engines:`, the merge with the common block, and what mistakes say."""

from __future__ import annotations

import json

import pytest

from loadgen.scenario.file import load_scenario
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import asked_of, settings_apart
from tests.loadgen.scenario.test_model import GOOD, explain, write  # noqa: F401 - a fixture

COMMON = "serving: {cuda_graphs: true, max_batch_size: 4}\n"


def of(*engines: str, serving: str = COMMON) -> str:
    return GOOD.replace("engines: [a, b]\n", "engines:\n" + "".join(f"  - {each}\n" for each in engines)) + serving


EAGER = "{name: eager, engine: vllm, serving: {cuda_graphs: false, max_batch_size: null}}"


def test_own_settings_go_over_the_common_block_key_by_key(write):  # noqa: F811
    scenario = load_scenario(write(of("vllm", EAGER, "{name: plain, engine: llamacpp}")))
    asked = {name: scenario.serving_of(name).asked() for name in scenario.engines}
    assert asked == {
        "vllm": {"max_batch_size": 4, "cuda_graphs": True},
        "eager": {"cuda_graphs": False},
        "plain": {"max_batch_size": 4, "cuda_graphs": True},
    }
    assert scenario.engines == ["vllm", "eager", "plain"] and scenario.stack_engines == ["vllm", "llamacpp"]
    assert scenario.settings_apart() == settings_apart(asked.values()) == ["max_batch_size", "cuda_graphs"]
    assert scenario.endpoints == {}


def test_a_runs_copy_says_the_same(write):  # noqa: F811
    scenario = load_scenario(write(of("vllm", EAGER)))
    kept = json.loads(scenario.model_dump_json())
    assert Scenario.model_validate(kept) == scenario == Scenario.model_validate(scenario.model_dump())
    for name in scenario.engines:
        assert asked_of(kept, name) == scenario.serving_of(name).asked()


def test_equal_settings_under_two_names_are_a_scenario(write):  # noqa: F811
    scenario = load_scenario(write(of("{name: a, engine: vllm}", "{name: b, engine: vllm}", serving="")))
    assert scenario.settings_apart() == [] and scenario.stack_engines == ["vllm"]
    assert [block.asked() for block in map(scenario.serving_of, "ab")] == [{}, {}]


def test_cells_have_to_fit_the_shortest_context(write):  # noqa: F811
    short = "{name: short, engine: vllm, serving: {max_model_length: 7}}"
    scenario = load_scenario(write(of("vllm", short, serving="serving: {max_model_length: 90}\n")))
    assert {cell.prompt_tokens for cell in scenario.cells()} == {4} != {c.prompt_tokens for c in scenario.matrix()}


def test_strangers_in_a_runs_copy_ask_for_nothing():
    assert asked_of({"serving": 3, "variants": {"a": {"serving": []}, "b": 1}}, "a") == {}
    assert settings_apart([]) == []


@pytest.mark.parametrize(
    ("entry", "line", "words"),
    [
        ("{name: x, engine: vllm, serving: {cuda_graph: 1}}", 5, ["`engines.x.serving.cuda_graph`", "`cuda_graphs`"]),
        ("{name: x, engine: vllm, servin: {}}", 5, ["`engines.x.servin`: unknown key", "`serving`"]),
        ("{name: x, engine: vllm, url: 'http://h:1'}", 5, ["`engines.x.url`: unknown key", "engine, serving"]),
        ("{name: x, engine: 3}", 5, ["`engines.x.engine`: must be text"]),
        ("{name: x, engine: vllm, serving: {max_batch_size: y}}", 5, ["`engines.x.serving.max_batch_size`", "'y'"]),
        ("{name: x, engine: vllm, serving: {max_tokens_per_step: 2}}", 3, ["`engines`: x: ", "`max_batch_size` (4)"]),
        ("{name: x}", 3, ["a `name`, and a `url` (an endpoint) or an `engine`"]),
        ("{engine: vllm}", 3, ["a `name`, and a `url` (an endpoint) or an `engine`"]),
        ("{name: vllm, engine: vllm}", 3, ["`engines` lists a value twice"]),
    ],
)
def test_mistakes_are_explained_where_they_are_written(write, entry, line, words):  # noqa: F811
    said = explain(write(of("vllm", entry)))
    assert f"mine.yaml:{line}: " in said and "\n" not in said
    for word in words:
        assert word in said


def test_a_variant_that_does_not_race_is_refused(write):  # noqa: F811
    assert "x is not among `engines`" in explain(write(GOOD + "variants: {x: {engine: vllm}}\n"))
