"""Parity: what is said to be equal between two engines, and what a broken one looks like."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.endpoint import Endpoint
from loadgen.parity import TEXTS, EngineSample, common_words, compare, sample_engine
from loadgen.prompts import PromptRecipe
from tests.fault_server import FaultServer

SAMPLE = EngineSample(
    engine="a",
    model="m",
    context_length=2048,
    prompt_tokens=[5] * len(TEXTS),
    completions=["one two three"] * len(TEXTS),
    recipe=PromptRecipe("text", 1, ("x", "y"), (), "tokenizer"),
)


def differing(**fields):
    facts = compare(SAMPLE, dataclasses.replace(SAMPLE, engine="b", **fields))
    return {fact.check: fact for fact in facts if not fact.equal}


def test_same_engines_differ_in_nothing():
    assert differing() == {}


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ({"model": "n"}, "model name"),
        ({"context_length": None}, "context length"),
        ({"prompt_tokens": [6] * len(TEXTS)}, "prompt tokens"),
        ({"recipe": PromptRecipe("text", 1, ("x", "z"), (), "tokenizer")}, "measured prompts"),
        ({"completions": ["one two four"] * len(TEXTS)}, "greedy text"),
        ({"completions": [None] * len(TEXTS)}, "greedy text"),
    ],
)
def test_one_difference_is_the_only_one_told(fields, check):
    found = differing(**fields)
    assert list(found) == [check]
    assert set(found[check].values) == {"a", "b"}


def test_two_engines_that_do_not_answer_are_not_called_equal():
    nothing = {"prompt_tokens": [None] * len(TEXTS), "completions": [None] * len(TEXTS)}
    a = dataclasses.replace(SAMPLE, **nothing)
    facts = {fact.check: fact for fact in compare(a, dataclasses.replace(a, engine="b"))}
    assert not facts["prompt tokens"].equal
    assert not facts["greedy text"].equal


def test_greedy_text_tells_how_far_texts_agree():
    texts = ["one two three", "one x", "x", "one two three", "one two three"]
    detail = differing(completions=texts)["greedy text"].detail
    assert "3 of 5" in detail
    assert "[3, 1, 0, 3, 3]" in detail


@pytest.mark.parametrize(
    ("one", "other", "count"), [("", "", 0), ("a b", "a b", 2), ("a b", "a  b c", 2), ("a", "b a", 0)]
)
def test_common_words(one, other, count):
    assert common_words(one, other) == count


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_sample_of_a_real_endpoint(api):
    with FaultServer(in_process=False) as server:
        endpoint = Endpoint(name="a", kind="openai", base_url=server.url, model="fault-model", api=api)
        sample = sample_engine(endpoint, SAMPLE.recipe)
    extra = 5 if api == "chat" else 1  # a BOS, and the chat template
    assert sample.prompt_tokens == [len(text.split()) + extra for text in TEXTS]
    assert all(text is not None and len(text.split()) == 16 for text in sample.completions)


def test_engine_that_refuses_is_sampled_as_nothing():
    with FaultServer(in_process=False, fault="http?status=500") as server:
        endpoint = Endpoint(name="a", kind="openai", base_url=server.url, model="fault-model", api="chat")
        sample = sample_engine(endpoint, SAMPLE.recipe)
    assert sample.prompt_tokens == [None] * len(TEXTS)
    assert sample.completions == [None] * len(TEXTS)
