"""Differences that are really there, between two simulators, asked through the openai SDK."""

from __future__ import annotations

import functools

import pytest

from loadgen.endpoints.endpoint import inspect_endpoint
from loadgen.endpoints.tokens import make_recipe
from loadgen.engines import Api
from loadgen.preflight.compare import compare
from loadgen.preflight.finding import Needs
from loadgen.preflight.sample import EngineSample
from loadgen.preflight.sampling import sample_engine
from loadgen.runs.manifest import ParityFact
from tests.simulator.client import running

pytestmark = pytest.mark.integration

QUICK = ("--ttft-ms", "2", "--tpot-ms", "0.1", "--set", "answers.sampling=true")
# A prompt of 256 tokens takes a fifth of a second: far above what a busy machine adds.
PREFILL = ("--set", "fixed.prefill_us_per_token=800")
CACHE = ("--set", "prefix_caching.enabled=true")
TELL = ("--set", "prefix_caching.tell=true")
KSANA = ("--personality", "ksana")


@functools.cache
def sample(name: str, options: tuple[str, ...] = (), api: Api | None = None, text_api: Api = "completions"):
    """What a simulator with these options answers."""
    with running(*QUICK, *options) as simulator:
        endpoint = inspect_endpoint(f"http://127.0.0.1:{simulator.port}", name=name, api=api)
        recipe = make_recipe(endpoint)
        return sample_engine(endpoint, recipe, text_api=text_api, nonce="n", tell=lambda text: None)


def findings(*samples: EngineSample) -> dict[str, ParityFact]:
    return {fact.name: fact for fact in compare(samples, Needs())}


def verdicts(found: dict[str, ParityFact], verdict: str) -> set[str]:
    return {name for name, fact in found.items() if fact.verdict == verdict}


def test_two_equal_simulators_differ_in_nothing():
    found = findings(sample("a", PREFILL), sample("b", PREFILL))
    assert verdicts(found, "unknown") == {"logprobs"}, "neither gives any"
    assert found.pop("clumps").verdict in ("equal", "noted"), "a busy machine's simulator writes two events at once"
    assert verdicts(found, "equal") == set(found) - {"logprobs"}
    assert all(value.startswith("off") for value in found["prefix-caching"].values.values())
    for name in ("temperature", "seed", "top-p", "stop", "max-tokens"):
        assert set(found[name].values.values()) == {"honoured"}, name
    assert found["output-length"].values["a"] == "1: 1, 9: 9, 40: 40"


def test_two_personalities_may_race():
    """As profile `sim` of the stack does: vLLM by completions with token ids, KsanaLLM by chat; texts by chat."""
    a = sample("a", text_api="chat")
    b = sample("b", (*KSANA, "--set", "stream.tokens_per_event=4"), text_api="chat")
    found = findings(a, b)
    assert not verdicts(found, "blocking")
    assert found["greedy-text"].verdict == found["prompt-tokens"].verdict == "equal"
    noted = {"usage": ("event of its own", "finish event"), "tokens-per-event": ("1.0", "3.6")}
    for name, (of_a, of_b) in noted.items():
        assert (found[name].verdict, found[name].values) == ("noted", {"a": of_a, "b": of_b})
    assert found["role-event"].values["a"] == "none"
    assert found["role-event"].values["b"].endswith("ms before the text")
    assert found["measured-prompts"].verdict == "noted"


@pytest.mark.parametrize(("bos", "who"), [(2, "b"), (0, "a")])
def test_a_bos_is_named(bos, who):
    found = findings(sample("a"), sample("b", ("--set", f"tokens.bos={bos}")))
    assert found["prompt-tokens"].verdict == "noted"
    assert f"{who} adds one token to every text: a BOS" in found["prompt-tokens"].detail
    assert found["greedy-text"].verdict == "equal"
    assert not verdicts(found, "blocking")


def test_a_chat_template_is_named():
    a = sample("a", api="chat", text_api="chat")
    b = sample("b", ("--set", "tokens.template=11"), api="chat", text_api="chat")
    found = findings(a, b)
    assert "b adds 8 tokens to every text, short or long" in found["prompt-tokens"].detail
    assert found["greedy-text"].verdict == "equal"
    assert not verdicts(found, "blocking")


def test_differences_of_protocol_are_noted_each_under_its_name():
    options = ("--model", "another-name")
    for setting in ("stream.tokens_per_event=2", "stream.usage=last", "max_model_len=9000"):
        options += ("--set", setting)
    options += ("--set", "answers.known_fields_only=true", "--set", "answers.sampling=false")
    found = findings(sample("a"), sample("b", options))
    assert not verdicts(found, "blocking")
    expected = {"model", "context-length", "tokens-per-event", "usage", "unknown-fields", "temperature", "stop"}
    assert verdicts(found, "noted") - {"clumps"} == expected, "a late simulator writes several events at once"
    # Without prefill nothing tells whether a cache is on; b's texts do not depend on sampling, so nothing of it shows.
    assert verdicts(found, "unknown") >= {"prefix-caching", "seed", "top-p"}
    assert found["temperature"].values == {"a": "honoured", "b": "ignored"}
    assert found["stop"].values == {"a": "honoured", "b": "ignored"}
    assert found["unknown-fields"].values == {"a": "accepted", "b": "refused"}


def test_a_role_event_with_a_lead_is_timed():
    options = ("--ttft-ms", "250", "--set", "stream.role_lead_ms=[200,200]")
    a = sample("a", ("--set", "stream.role_event=false"), api="chat", text_api="chat")
    found = findings(a, sample("b", options, api="chat", text_api="chat"))
    assert found["role-event"].verdict == "noted"
    assert found["role-event"].values["a"] == "none"
    told = found["role-event"].values["b"]
    # No machine makes it shorter than it is by much; by how much longer is its own affair.
    assert 40 < float(told.split()[0]) < 60_000, told


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        (("--set", "tokens.word_letters=4"), "prompt-tokens", "another tokenizer"),
        (("--set", "answers.most_tokens=8"), "output-length", ""),
        (("--set", "answers.text=bangs"), "degenerate-text", ""),
        (("--set", "answers.first_word=300"), "greedy-text", "part at the first token"),
        (("--fault", "http:status=500"), "answers", ""),
    ],
)
def test_blocking(options, name, words):
    found = findings(sample("a"), sample("b", options))
    assert name in verdicts(found, "blocking")
    assert words in found[name].detail
    if name in ("output-length", "greedy-text", "answers"):
        assert verdicts(found, "blocking") == {name}, "and nothing else"


def test_token_0_for_everything_is_named_at_both_engines():
    bangs = ("--set", "answers.text=bangs")
    found = findings(sample("a", bangs, text_api="chat"), sample("b", (*bangs, *KSANA), text_api="chat"))
    assert verdicts(found, "blocking") == {"degenerate-text"}
    assert all("over and over" in value for value in found["degenerate-text"].values.values())


@pytest.mark.parametrize("told", [(), TELL], ids=["by time", "by what it tells"])
def test_prefix_caching_is_found(told):
    found = findings(sample("a", (*PREFILL, *told)), sample("b", (*PREFILL, *CACHE, *told)))
    assert verdicts(found, "blocking") == {"prefix-caching"}
    values = found["prefix-caching"].values
    assert values["a"].startswith("off") and values["b"].startswith("on")
    assert ("it says" in values["b"]) == bool(told)


def test_prefix_caching_is_found_with_batching_too():
    batching = ("--timing", "batching", "--set", "batching.prefill_us_per_token=500")
    found = findings(sample("a", (*batching, *CACHE)), sample("b", (*batching, *CACHE)))
    assert all(value.startswith("on") for value in found["prefix-caching"].values.values())
    assert found["prefix-caching"].verdict == "equal"


def test_times_that_tell_nothing_block_nothing():
    """No prefill to save: whether the cache is on cannot be told, nor does it matter."""
    found = findings(sample("a"), sample("b", CACHE))
    assert found["prefix-caching"].verdict == "unknown"
