"""What preflight makes of samples: each difference is told once, under its own name, and blocks or does not."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.endpoints.prompts import PromptRecipe
from loadgen.errors import UserError
from loadgen.preflight.compare import accept_findings, compare, refuse_blocking, summary_line
from loadgen.preflight.finding import Needs
from loadgen.preflight.names import BLOCKING, NOTED, parse_accept
from loadgen.preflight.questions import COUNTED_TEXTS, GREEDY_TEXTS, LENGTHS
from tests.loadgen.preflight.samples import OFF, ON, SAMPLE, answer, other, probe, stream

N = len(GREEDY_TEXTS)


def differing(*samples, needs=None):
    return {fact.name: fact for fact in compare([SAMPLE, *samples], needs or Needs()) if not fact.equal}


def counts(more):
    return {kind: len(text) + more(len(text)) for kind, text in COUNTED_TEXTS.items()}


def greedy(**changed):
    """a's texts, some of them replaced by index (`t3`)."""
    return tuple(changed.get(f"t{i}", text) for i, text in enumerate(SAMPLE.greedy))


def lengths(**fields):
    return {tokens: stream(tokens, **fields) for tokens in LENGTHS}


def test_equal_engines_differ_in_nothing():
    assert differing(other()) == {}
    assert differing() == {}, "nor does one by itself"


NOTHING_KNOWN = {
    "context_length": None,
    "kv_cache_tokens": None,
    "prompt_tokens": dict.fromkeys(COUNTED_TEXTS),
    "lengths": dict.fromkeys(LENGTHS),
    "greedy": (None,) * len(SAMPLE.greedy),
    "parameters": {},
    "unknown_fields": "cannot tell",
    "prefix": None,
}


@pytest.mark.parametrize("first", [SAMPLE, dataclasses.replace(SAMPLE, **NOTHING_KNOWN)])
def test_what_an_engine_does_not_show_is_neither_equal_nor_different(first):
    found = {fact.name: fact.verdict for fact in compare([first, other(**NOTHING_KNOWN)], Needs())}
    unknown = {name for name, verdict in found.items() if verdict == "unknown"}
    assert unknown >= {"context-length", "prompt-tokens", "output-length", "greedy-text", "prefix-caching", "usage"}
    assert unknown >= {"tokens-per-event", "role-event", "temperature", "seed", "top-p", "stop", "max-tokens"}
    assert found["unknown-fields"] == found["kv-cache"] == "unknown"
    assert {name for name, verdict in found.items() if verdict == "equal"} <= {
        "model",
        "measured-prompts",
        "degenerate-text",
    }


def test_every_check_is_listed_by_name():
    assert [fact.name for fact in compare([SAMPLE, other()], Needs())] == sorted(
        (*BLOCKING, *NOTED), key=[fact.name for fact in compare([SAMPLE], Needs())].index
    )


@pytest.mark.parametrize(
    ("fields", "name", "verdict", "words"),
    [
        ({"model": "n"}, "model", "noted", ""),
        ({"context_length": 2048}, "context-length", "noted", ""),
        ({"context_length": None}, "context-length", "unknown", ""),
        ({"prompt_tokens": counts(lambda n: 1)}, "prompt-tokens", "noted", "b adds one token to every text: a BOS"),
        ({"prompt_tokens": counts(lambda n: -1)}, "prompt-tokens", "noted", "a adds one token to every text: a BOS"),
        (
            {"prompt_tokens": counts(lambda n: 9)},
            "prompt-tokens",
            "noted",
            "b adds 9 tokens to every text, short or long",
        ),
        ({"prompt_tokens": counts(lambda n: n // 5)}, "prompt-tokens", "blocking", "another tokenizer"),
        ({"prompt_tokens": {**SAMPLE.prompt_tokens, "Chinese": 7}}, "prompt-tokens", "blocking", "another tokenizer"),
        ({"prompt_tokens": {**SAMPLE.prompt_tokens, "long": None}}, "prompt-tokens", "unknown", "b did not tell"),
        ({"recipe": PromptRecipe("text", 1, ("x", "z"), (), "tokenizer")}, "measured-prompts", "noted", ""),
        ({"recipe": PromptRecipe("ids", 1, ("x", "y"), (), "tokenizer")}, "measured-prompts", "noted", ""),
        ({"lengths": {n: stream(n, output_tokens=n - 1) for n in LENGTHS}}, "output-length", "blocking", ""),
        ({"lengths": {n: stream(n, output_tokens=n + 1) for n in LENGTHS}}, "output-length", "blocking", ""),
        ({"greedy": greedy(t3=answer("text 3 goes on elsewhere", -0.5))}, "greedy-text", "noted", "19 of 20"),
        ({"prefix": ON}, "prefix-caching", "blocking", ""),
        ({"prefix": probe(60.0)}, "prefix-caching", "unknown", ""),
        ({"prefix": None}, "prefix-caching", "unknown", ""),
        ({"lengths": lengths(usage="finish event")}, "usage", "noted", ""),
        ({"lengths": lengths(usage="nowhere")}, "usage", "noted", ""),
        ({"lengths": {n: stream(n, events=-(-n // 4)) for n in LENGTHS}}, "tokens-per-event", "noted", ""),
        ({"lengths": lengths(role_lead_ms=0.1)}, "role-event", "noted", ""),
        ({"parameters": {**SAMPLE.parameters, "temperature": "ignored"}}, "temperature", "noted", ""),
        ({"parameters": {**SAMPLE.parameters, "seed": "ignored"}}, "seed", "noted", ""),
        ({"parameters": {**SAMPLE.parameters, "top-p": "refused"}}, "top-p", "noted", ""),
        ({"parameters": {**SAMPLE.parameters, "stop": "ignored"}}, "stop", "noted", ""),
        ({"parameters": {**SAMPLE.parameters, "max-tokens": "ignored"}}, "max-tokens", "noted", ""),
        ({"unknown_fields": "refused"}, "unknown-fields", "noted", ""),
        ({"problem": "HTTP 500: oh"}, "answers", "noted", ""),
    ],
)
def test_one_difference_is_the_only_one_told(fields, name, verdict, words):
    found = differing(other(**fields))
    assert list(found) == [name]
    fact = found[name]
    assert (fact.verdict, fact.check) == (verdict, name.replace("-", " "))
    assert set(fact.values) == {"a", "b"}
    assert words in fact.detail
    assert fact.advice


@pytest.mark.parametrize(("off", "verdict"), [(-1, "noted"), (1, "blocking")], ids=["shorter", "longer"])
def test_a_scenario_may_allow_shorter_answers_and_never_longer_ones(off, verdict):
    needs = Needs(allow_short_output=True)
    found = differing(other(lengths={n: stream(n, output_tokens=n + off) for n in LENGTHS}), needs=needs)
    assert found["output-length"].verdict == verdict


def test_other_weights_part_at_the_first_token():
    texts = tuple(answer(f"words {i} of another model", -0.5) for i in range(N))
    found = differing(other(greedy=texts))
    assert found["greedy-text"].verdict == "blocking"
    assert f"0 of {N} texts are the same, {N} part at the first token" in found["greedy-text"].detail


@pytest.mark.parametrize("part", [N // 2, N // 2 + 1])
def test_more_than_half_of_the_texts_block(part):
    texts = tuple(answer("other words", -0.5) if i < part else text for i, text in enumerate(SAMPLE.greedy))
    assert differing(other(greedy=texts))["greedy-text"].verdict == ("blocking" if part > N / 2 else "noted")


def test_coarser_weights_show_in_log_probabilities():
    texts = tuple(answer(text.text, -0.9) for text in SAMPLE.greedy)
    found = differing(other(greedy=texts))
    assert list(found) == ["logprobs"]
    assert "0.400 nats apart" in found["logprobs"].detail
    assert differing(other(greedy=tuple(answer(text.text, -0.55) for text in SAMPLE.greedy))) == {}


def test_token_0_for_everything_blocks_at_one_engine_and_at_both():
    garbage = (answer("!" * 16),) * N
    for samples in (
        [SAMPLE, other(greedy=garbage)],
        [dataclasses.replace(SAMPLE, greedy=garbage), other(greedy=garbage)],
    ):
        found = {fact.name: fact for fact in compare(samples, Needs())}
        assert found["degenerate-text"].verdict == "blocking"
        assert "'!' over and over (token 0 of many vocabularies)" in found["degenerate-text"].values["b"]
        assert "KsanaLLM" not in found["degenerate-text"].advice


@pytest.mark.parametrize("cause", ["ENABLE_FLASHINFER", "cub::Sum", "torch_dtype and rope_theta", "forward pass"])
def test_what_makes_a_ksana_say_nonsense_is_named(cause):
    broken = other(greedy=(answer("!" * 16),) * N, kind="ksana")
    assert cause in {fact.name: fact for fact in compare([SAMPLE, broken], Needs())}["degenerate-text"].advice
    healthy = [dataclasses.replace(SAMPLE, kind="ksana"), dataclasses.replace(broken, kind="vllm")]
    assert cause not in {fact.name: fact for fact in compare(healthy, Needs())}["degenerate-text"].advice


@pytest.mark.parametrize(
    ("tokens", "asked", "verdict"),
    [
        (65536, None, "equal"),
        (65520, 65536, "equal"),
        (65000, None, "noted"),
        (65536, 70000, "noted"),
        (None, None, "unknown"),
        (None, 65536, "unknown"),
    ],
)
def test_what_the_kv_caches_hold(tokens, asked, verdict):
    found = compare([SAMPLE, other(kv_cache_tokens=tokens)], Needs(kv_cache_tokens=asked))
    (fact,) = [fact for fact in found if fact.name == "kv-cache"]
    assert fact.verdict == verdict
    assert str(asked or "") in fact.detail and fact.values["a"] == "65536"


def test_an_engine_that_answers_nothing_blocks():
    mute = {"greedy": (None,) * N, "lengths": dict.fromkeys(LENGTHS), "prompt_tokens": dict.fromkeys(COUNTED_TEXTS)}
    found = differing(other(**mute, problem="HTTP 500: oh"))
    assert found["answers"].verdict == "blocking"
    assert "HTTP 500: oh" in found["answers"].values["b"]
    assert {name for name, fact in found.items() if fact.verdict == "blocking"} == {"answers"}
    both = compare([dataclasses.replace(SAMPLE, **mute), other(**mute)], Needs())
    assert not next(fact for fact in both if fact.name == "prompt-tokens").equal


def test_a_scenario_that_does_not_fit_blocks_even_where_engines_are_alike():
    assert differing(other(), needs=Needs(context_tokens=4096)) == {}
    found = differing(other(), needs=Needs(context_tokens=4097))
    assert found["context-length"].verdict == "blocking"
    assert "serve a and b with a longer context" in found["context-length"].advice


@pytest.mark.parametrize(
    ("a", "b", "declared", "verdict"),
    [
        (OFF, OFF, None, "equal"),
        (ON, ON, None, "equal"),
        (ON, ON, True, "equal"),
        (OFF, OFF, True, "blocking"),
        (ON, ON, False, "blocking"),
        (ON, OFF, None, "blocking"),
        (None, ON, False, "blocking"),
        (None, OFF, False, "unknown"),
        (None, None, None, "unknown"),
        (None, None, True, "unknown"),
    ],
)
def test_prefix_caching_is_held_to_each_other_and_to_the_scenario(a, b, declared, verdict):
    samples = [dataclasses.replace(SAMPLE, prefix=a), other(prefix=b)]
    found = {fact.name: fact for fact in compare(samples, Needs(prefix_caching=declared))}
    assert found["prefix-caching"].verdict == verdict


@pytest.mark.parametrize(
    ("a", "b", "verdict", "words"),
    [
        (ON, OFF, "noted", ""),
        (OFF, ON, "blocking", "it is off at a"),
        (ON, ON, "blocking", "it is on at b"),
        (None, OFF, "unknown", "could not tell"),
    ],
)
def test_prefix_caching_that_is_set_apart_is_held_to_each_engines_own_setting(a, b, verdict, words):
    samples = [dataclasses.replace(SAMPLE, prefix=a), other(prefix=b)]
    needs = Needs(prefix_caching=True, own={"b": {"prefix_caching": False}})
    found = {fact.name: fact for fact in compare(samples, needs)}["prefix-caching"]
    assert found.verdict == verdict and "on purpose" in found.detail
    assert words in found.advice


@pytest.mark.parametrize(("tokens", "verdict"), [(8192, "noted"), (4096, "noted")])
def test_a_cache_whose_size_is_set_apart_is_told(tokens, verdict):
    samples = [dataclasses.replace(SAMPLE, kv_cache_tokens=4096), other(kv_cache_tokens=tokens)]
    needs = Needs(kv_cache_tokens=4096, own={"b": {"kv_cache_tokens": 8192}})
    found = {fact.name: fact for fact in compare(samples, needs)}["kv-cache"]
    assert found.verdict == verdict and "on purpose" in found.detail


def test_a_third_engine_is_compared_with_the_first():
    third = dataclasses.replace(SAMPLE, engine="c", prompt_tokens=counts(lambda n: n))
    found = differing(other(), third)
    assert found["prompt-tokens"].verdict == "blocking"
    assert set(found["prompt-tokens"].values) == {"a", "b", "c"}


def test_blocking_findings_stop_unless_accepted_by_name():
    findings = compare([SAMPLE, other(prefix=ON, context_length=10)], Needs(context_tokens=100))
    with pytest.raises(UserError, match="cannot be compared") as caught:
        refuse_blocking(findings)
    assert caught.value.exit_code == 5
    assert "--accept context-length,prefix-caching" in str(caught.value)
    partly = accept_findings(findings, frozenset({"prefix-caching", "usage"}))
    with pytest.raises(UserError, match=r"--accept context-length$"):
        refuse_blocking(partly)
    whole = accept_findings(findings, frozenset({"prefix-caching", "context-length"}))
    refuse_blocking(whole)
    assert {fact.name for fact in whole if fact.accepted} == {"prefix-caching", "context-length"}
    assert not any(fact.equal for fact in whole if fact.accepted), "accepted is not equal"
    assert summary_line(whole).endswith("accepted: context-length, prefix-caching")


def test_accept_takes_names_in_any_number():
    assert parse_accept([]) == frozenset()
    assert parse_accept(["greedy-text, answers", "prompt-tokens"]) == {"greedy-text", "answers", "prompt-tokens"}
    with pytest.raises(UserError, match="'usage' never stops a race"):
        parse_accept(["usage"])
    with pytest.raises(UserError, match=r"'greedy_text' is no check .* greedy-text"):
        parse_accept(["greedy_text"])
