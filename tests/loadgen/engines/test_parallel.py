"""Which sizes a model's shape allows, on each engine; the oracle deals heads out card by card."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engines.parallel import cards_asked, cards_of, in_words, refusal, sizes_of, would_do

QWEN_7B = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
LLAMA_70B = {"num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672}
DEEPSEEK = {"num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "n_routed_experts": 256}


@pytest.mark.parametrize(
    ("config", "vllm", "ksana"),
    [
        (QWEN_7B, [1, 2, 4], [1, 2, 4]),
        (LLAMA_70B, [1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 8]),
        (DEEPSEEK, [1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 8, 16, 32, 64]),
        ({"text_config": {"num_attention_heads": 6}}, [1, 2, 3, 6], [1, 2, 3, 6]),
        ({}, list(range(1, 65)), list(range(1, 65))),
    ],
)
def test_sizes_of_known_models(config, vllm, ksana):
    assert sizes_of("vllm", config) == vllm and sizes_of("ksana", config) == ksana


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 24), st.sampled_from(["vllm", "ksana"]))
def test_each_card_has_as_many_heads_as_any_other_and_whole_groups(keys, group, size, kind):
    heads = keys * group
    dealt = [[head * size // heads for head in range(heads)].count(card) for card in range(size)]
    even = len(set(dealt)) == 1
    # The KV heads that each card's own heads need: the same number on all, and on KsanaLLM no head on two cards.
    needed = [{head // group for head in range(heads) if head * size // heads == card} for card in range(size)]
    whole = even and len({len(one) for one in needed}) == 1
    if whole and kind == "ksana":
        whole = sum(map(len, needed)) == keys
    if whole and kind == "vllm":
        shared = [sum(key in one for one in needed) for key in range(keys)]
        whole = len(set(shared)) == 1
    config = {"num_attention_heads": heads, "num_key_value_heads": keys}
    assert (size in sizes_of(kind, config, size)) is whole


def test_what_is_refused_names_the_sizes_that_would_do():
    asked = {"tensor_parallel_size": 3}
    assert refusal("vllm", asked, QWEN_7B, 2) == (
        "tensor_parallel_size 3: vLLM cannot share this model out so (28 attention heads and 4 KV heads, and an MLP "
        "18944 wide); tensor_parallel_size 1, 2 would do"
    )
    assert refusal("ksana", {"tensor_parallel_size": 16}, LLAMA_70B).endswith(
        "tensor_parallel_size 1, 2, 4, 8 would do"
    )
    assert refusal("vllm", {"tensor_parallel_size": 4}, QWEN_7B) == refusal("vllm", asked, {}) == ""
    assert refusal("llamacpp", asked, QWEN_7B) == ""
    assert would_do("vllm", {"data_parallel_size": 3}, {}, 2) == "data_parallel_size up to 2 would do"


def test_cards_are_counted_as_each_engine_takes_them():
    both = {"tensor_parallel_size": 2, "data_parallel_size": 3}
    assert (cards_asked("vllm", both), cards_asked("ksana", both), cards_asked("llamacpp", both)) == (6, 2, None)
    assert (cards_asked("vllm", {}), cards_asked("ksana", {}), cards_of("ksana", {})) == (1, None, 1)
    assert in_words("vllm", both) == "tensor_parallel_size 2 x data_parallel_size 3"
    assert in_words("vllm", {"data_parallel_size": 3}) == "data_parallel_size 3"
    assert in_words("ksana", both) == "tensor_parallel_size 2"
