"""The simulator's ways to stray from what is asked: each by a request, against what it must be by hand."""

from __future__ import annotations

import pytest

from simulator.prefix_cache import PrefixCache
from tests.simulator.client import chat, completion, running

QUICK = ("--ttft-ms", "1", "--tpot-ms", "0.1")


def whole(sim, **changes):
    answer = sim.ask("POST", "/v1/completions", completion(stream=False, **changes)).json()
    return answer["choices"][0]["text"], answer["usage"], answer["choices"][0]["finish_reason"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("settings", "completions", "chats"),
    [
        ((), 4, 10),
        (("tokens.bos=0",), 3, 9),
        (("tokens.bos=2",), 5, 11),
        (("tokens.template=10",), 4, 17),
        (("tokens.word_letters=2",), 8, 14),  # on|e tw|o th|re|e
    ],
)
def test_prompts_are_counted_otherwise(settings, completions, chats):
    options = [word for setting in settings for word in ("--set", setting)]
    with running(*QUICK, *options) as sim:
        _, usage, _ = whole(sim)
        by_chat = sim.ask("POST", "/v1/chat/completions", chat(stream=False)).json()["usage"]
        tokenized = sim.ask("POST", "/tokenize", {"prompt": "one two three"}).json()
        templated = sim.ask("POST", "/tokenize", {"messages": chat()["messages"]}).json()
    assert usage["prompt_tokens"] == len(tokenized["tokens"]) == completions
    assert by_chat["prompt_tokens"] == len(templated["tokens"]) == chats


@pytest.mark.integration
def test_tokens_around_a_prompt_do_not_change_what_is_said():
    texts = set()
    for setting in ("tokens.bos=1", "tokens.bos=0", "tokens.bos=3"):
        with running(*QUICK, "--set", setting) as sim:
            texts.add(whole(sim)[0])
    assert texts == {" w004 w005 w006 w007 w008 w009"}


@pytest.mark.integration
def test_answers_stray_as_told():
    with running(*QUICK, "--set", "answers.text=bangs") as sim:
        assert whole(sim)[0] == " !!!!" * 6
        events = sim.ask("POST", "/v1/completions", completion()).content
        assert [text for _, text in events] == [" !!!!"] * 6
    with running(*QUICK, "--set", "answers.first_word=300") as sim:
        assert whole(sim)[0].startswith(" w304 w305")
    with running(*QUICK, "--set", "answers.most_tokens=2") as sim:
        text, usage, _ = whole(sim, ignore_eos=True, min_tokens=6)
        assert (len(text.split()), usage["completion_tokens"]) == (2, 2)
    with running(*QUICK, "--set", "answers.known_fields_only=true") as sim:
        assert whole(sim)[1]["completion_tokens"] == 6
        refused = sim.ask("POST", "/v1/completions", completion(unheard_of=1))
        assert refused.status == 400 and b"unheard_of" in refused.body


@pytest.mark.integration
def test_sampling_parameters_count_only_where_they_are_on():
    hot = {"temperature": 1, "seed": 7}
    with running(*QUICK) as sim:
        assert len({whole(sim, **fields)[0] for fields in ({}, hot, {**hot, "seed": 8}, {"stop": "w006"})}) == 1
    with running(*QUICK, "--set", "answers.sampling=true") as sim:
        greedy = whole(sim)[0]
        assert whole(sim, **hot)[0] == whole(sim, **hot)[0] != greedy
        assert whole(sim, **{**hot, "seed": 8})[0] not in (greedy, whole(sim, **hot)[0])
        assert whole(sim, **hot, top_p=0.01)[0] == greedy
        assert whole(sim, stop="w006") == (" w004 w005", whole(sim, max_tokens=2)[1], "stop")


@pytest.mark.integration
@pytest.mark.parametrize("timing", ["fixed", "batching"])
def test_cached_tokens_take_no_prefill(timing):
    rate = "fixed.prefill_us_per_token=400" if timing == "fixed" else "batching.prefill_us_per_token=400"
    common = ("--timing", timing, "--ttft-ms", "1", "--set", rate, "--set", "batching.max_num_batched_tokens=512")
    common += ("--set", "prefix_caching.tell=true")
    ids = list(range(2, 402))

    def times(sim):
        """When each first token was due, ms after its request; how late this machine wrote it is its own affair."""
        answers = [
            sim.ask("POST", "/v1/completions", completion(prompt=prompt, max_tokens=1))
            for prompt in (ids, ids, [7, *ids[1:]])
        ]
        for answer, truth in zip(answers, sim.truth()[1], strict=True):
            (at, _), *_ = answer.content
            due_ms = (truth["events"][0][0] - truth["t_start"]) / 1e6
            assert (at - answer.t_send) / 1e6 >= due_ms
            yield due_ms, answer.events[-2]["usage"]["prompt_tokens_details"]["cached_tokens"]

    with running(*common, "--set", "prefix_caching.enabled=true") as sim:
        (fresh_ms, first), (again_ms, second), (other_ms, third) = times(sim)
    assert (first, second, third) == (0, 399, 0)
    # A prefill of 400 tokens takes 160 ms by the configuration; both sides of the bound are far from it.
    assert fresh_ms > 160 and other_ms > 160
    assert again_ms < fresh_ms - 80
    with running(*common) as sim:
        assert all(ms > 160 and cached == 0 for ms, cached in times(sim))


@pytest.mark.integration
@pytest.mark.parametrize(("policy", "again"), [("vllm", 384), ("ksana", 400)])
def test_the_schedulers_own_index_tells_what_it_found(policy, again):
    options = ("--timing", "batching", "--set", "batching.prefix_caching=true", "--set", "prefix_caching.tell=true")
    ids = list(range(2, 402))
    told = []
    with running(*options, "--set", f"batching.policy={policy}") as sim:
        for prompt in (ids, ids, [7, *ids[1:]]):
            answer = sim.ask("POST", "/v1/completions", completion(prompt=prompt, max_tokens=2))
            told.append(answer.events[-2]["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert told == [0, again, 0]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("personality", "more", "status", "told"),
    [
        ("vllm", ("--set", "prefix_caching.enabled=true"), 200, [0, 399, 0]),
        ("vllm", ("--timing", "batching", "--set", "batching.prefix_caching=true"), 200, [0, 384, 0]),
        ("ksana", ("--set", "prefix_caching.enabled=true"), 404, [0, 399, 399]),
    ],
    ids=["vllm", "vllm-index", "ksana"],
)
def test_a_prefix_cache_is_emptied_by_vllms_route_only(personality, more, status, told):
    found = []
    with running("--personality", personality, "--set", "prefix_caching.tell=true", *more) as sim:
        chat = {"messages": [{"role": "user", "content": " ".join(["w007"] * 400)}]}
        for last in (False, True, False):
            prompt = {"prompt": list(range(2, 402))} if personality == "vllm" else chat
            path = "/v1/completions" if personality == "vllm" else "/v1/chat/completions"
            answer = sim.ask("POST", path, completion(**prompt, max_tokens=2))
            usage = next(
                event["usage"] for event in reversed(answer.events) if isinstance(event, dict) and event.get("usage")
            )
            found.append(usage["prompt_tokens_details"]["cached_tokens"])
            if last:
                assert sim.ask("POST", "/reset_prefix_cache", {}).status == status
    assert len(found) == len(told) and [bool(each) for each in found] == [bool(each) for each in told]


@pytest.mark.integration
def test_a_request_that_was_here_too_long_is_cut_off():
    options = ("--timing", "batching", "--set", "batching.base_ms=200", "--set", "batching.time_limit_s=4")
    with running(*options) as sim:
        answer = sim.ask("POST", "/v1/completions", completion(max_tokens=200))
        assert 0 < len(answer.content) < 50
        assert len(sim.ask("POST", "/v1/completions", completion(max_tokens=2)).content) == 2


def test_a_block_counts_with_all_before_it():
    cache = PrefixCache(block_tokens=4, blocks=100)
    assert cache.take(range(10)) == 0
    assert cache.take(range(10)) == 8, "whole blocks only"
    assert cache.take([*range(4), 99, *range(5, 10)]) == 4
    assert cache.take([99, *range(1, 10)]) == 0, "its second block follows another first one"
    assert cache.take(range(8)) == 7, "the last token is always computed"
    assert cache.take([1, 2]) == 0


def test_blocks_longest_unused_go_first():
    cache = PrefixCache(block_tokens=2, blocks=4)
    cache.take([1, 1, 1, 1, 0])
    cache.take([2, 2, 2, 2, 0])
    assert cache.take([1, 1, 1, 1, 0]) == 4
    cache.take([3, 3, 3, 3, 0])
    assert cache.take([2, 2, 2, 2, 0]) == 0
