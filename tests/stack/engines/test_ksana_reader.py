"""KsanaLLM's rendered files against its reader's own rules: each would start, and each difference is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.engines import ksana
from loadgen.scenario.serving import Serving
from tests.loadgen.scenario.test_serving import FIELDS
from tests.stack.engines.ksana_reader import Refused, Server, read
from tests.stack.engines.test_launchers import EVERYTHING, SEED_MATRIX

QWEN = {"model_type": "qwen2", "torch_dtype": "bfloat16", "max_position_embeddings": 32768, "num_key_value_heads": 4}
SHORT = QWEN | {"max_position_embeddings": 4096}
VISUAL = QWEN | {"visual": {}}
MLA = QWEN | {"model_type": "deepseek_v3", "kv_lora_rank": 512, "num_key_value_heads": 128}
URL = "http://127.0.0.1:9103/v1/metrics"
BLOCKS = {
    "nothing": {},
    "seed matrix": SEED_MATRIX.asked(),
    "everything": EVERYTHING,
    "a step below the length, cut": {"max_model_length": 4096, "max_tokens_per_step": 2048, "chunked_prefill": True},
    "cut prompts of a long model": {"chunked_prefill": True, "prefix_caching": False},
    "async, cut, and a small cache": {
        "async_scheduling": True, "chunked_prefill": True, "kv_cache_tokens": 1024, "max_model_length": 512,
        "gpu_memory_fraction": 0.99999999, "prefix_caching": True,
    },
}  # fmt: skip


def server(block, model) -> Server:
    text = ksana.to_yaml(ksana.configuration(ksana.translate(block, model), "/models/qwen", URL))
    return read(text, ksana.environment(block, model), model, devices=block.get("tensor_parallel_size", 1))


def untold(block, model) -> list[str]:
    """Settings that KsanaLLM would not run as asked, and of which nothing is said."""
    runs = server(block, model)
    differing = {
        name for name in ("tensor_parallel_size", "max_model_length", "max_batch_size", "max_tokens_per_step",
                          "kv_block_size", "kv_cache_tokens", "prefix_caching", "async_scheduling")
        if name in block and getattr(runs, name) != block[name]
    }  # fmt: skip
    differing |= {"seed", "gpu_memory_fraction"} & block.keys()
    differing |= {"dtype"} & block.keys() if block.get("dtype") not in (None, "auto", runs.dtype) else set()
    differing |= {"kv_dtype"} & block.keys() if block.get("kv_dtype") not in (None, "auto", runs.kv_dtype) else set()
    differing |= {"cuda_graphs"} if block.get("cuda_graphs") else set()
    differing |= {"chunked_prefill"} if block.get("chunked_prefill") else set()
    differing |= {"prefix_caching"} if block.get("prefix_caching") is False and runs.runs_prefix_code else set()
    told = {one.setting for one in ksana.translate(block, model) if one.remark()}
    return sorted(differing - told)


@pytest.mark.parametrize("model", [QWEN, SHORT, VISUAL, MLA], ids=["qwen", "short", "visual", "mla"])
@pytest.mark.parametrize("name", BLOCKS)
def test_ksana_would_start_and_each_difference_is_told(name, model):
    assert untold(BLOCKS[name], model) == []
    runs = server(BLOCKS[name], model)
    assert not runs.swaps and runs.queue_hours >= 12 and runs.queue_places >= 10_000
    assert runs.max_tokens_per_step >= runs.max_model_length
    assert runs.part_tokens <= 512


def asked(block):
    try:
        return Serving.model_validate(block).asked()
    except ValueError:
        return None


SIZES = {"tensor_parallel_size": st.sampled_from([1, 2, 4]), "kv_block_size": st.sampled_from([16, 32, 64])}
BLOCK = st.fixed_dictionaries({}, optional=FIELDS | SIZES).map(asked)


@settings(max_examples=60, deadline=None)
@given(BLOCK.filter(lambda block: block is not None), st.sampled_from([QWEN, SHORT, VISUAL, MLA]))
def test_no_block_that_a_scenario_takes_stops_ksana_or_differs_in_silence(block, model):
    assert untold(block, model) == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("max_token_len: 4096\n    max_step_tokens: 2048\n    split_fuse_token_num: 256", "2048 vs 4096"),
        ("split_fuse_token_num: 4096", "4096 vs 32768"),
        ("enable_async: true\n    split_fuse_token_num: 256", "Async"),
        ("max_waiting_queue_len: 1000000000", "reserved at once"),
        ("max_batch_size: 4.5", "max_batch_size"),
        ("enable_auto_prefix_cache: 'yes'", "enable_auto_prefix_cache"),
        ("max_batch: 4", "nothing reads"),
    ],
)
def test_the_reader_refuses_what_ksana_refuses(lines, message):
    with pytest.raises(Refused, match=message):
        read(f"setting:\n  batch_scheduler:\n    {lines}\n  global: {{tensor_para_size: 1}}\n", {}, QWEN)


@pytest.mark.parametrize(
    ("environment", "size", "message"),
    [
        ({"KLLM_MAX_DEVICE_BLOCKS": "2"}, 16, "insufficient"),
        ({"KLLM_MAX_DEVICE_BLOCKS": "7"}, 256, "waits for ever"),
        ({"MAX_WARMUP_INPUT_LENGTH": "2048"}, 16, "too long"),
    ],
)
def test_the_reader_refuses_a_cache_without_room(environment, size, message):
    text = f"setting: {{batch_scheduler: {{max_token_len: 1500}}, block_manager: {{block_token_num: {size}}}}}"
    with pytest.raises(Refused, match=message):
        read(text, environment, QWEN)


def test_a_cache_of_so_many_tokens_is_the_same_on_each_engine():
    from loadgen.engines import vllm

    block = {"kv_cache_tokens": 65536, "kv_block_size": 32, "max_model_length": 4096}
    assert server(block, QWEN).kv_cache_tokens == 65536
    (theirs,) = [one for one in vllm.translate(block) if one.setting == "kv_cache_tokens"]
    assert theirs.told() == {"--num-gpu-blocks-override": 2048} and theirs.outcome == "honoured"
    assert "MAX_WARMUP_INPUT_LENGTH" not in ksana.environment(block, QWEN)
