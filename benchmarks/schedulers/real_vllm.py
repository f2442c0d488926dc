"""Runs vLLM's own scheduler on loads of `benchmarks.schedulers`. By vLLM's interpreter, which has nothing of ours.

Reads cases as JSON from standard input and writes, for each, what each step did: see `benchmarks/schedulers/load.py`.
No model is loaded; the tokens that one would give are those of the load.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
import vllm
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

TINY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64,
    "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": 1000,
    "max_position_embeddings": 4096, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def scheduler(settings: dict, folder: str) -> Scheduler:
    """vLLM's scheduler for a model of one layer with full attention."""
    Path(folder, "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    model = ModelConfig(
        model=folder, max_model_len=settings["longest"], skip_tokenizer_init=True, dtype="float32", seed=0
    )
    size = settings["block_tokens"]
    cache = CacheConfig(block_size=size, enable_prefix_caching=settings["prefix_caching"])
    # One block is never handed out.
    cache.num_gpu_blocks = settings["kv_blocks"] + 1
    config = VllmConfig(
        model_config=model,
        cache_config=cache,
        device_config=DeviceConfig("cpu"),
        parallel_config=ParallelConfig(),
        scheduler_config=SchedulerConfig(
            max_num_seqs=settings["max_num_seqs"],
            max_num_batched_tokens=settings["max_num_batched_tokens"],
            max_model_len=settings["longest"],
            enable_chunked_prefill=settings["chunked_prefill"],
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
    )
    cache.num_gpu_blocks = settings["kv_blocks"] + 1
    spec = FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=64, dtype=torch.float32)
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(cache.num_gpu_blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=size,
        log_stats=True,
    )


def play(case: dict) -> list:
    """Each step: tokens by request in the order scheduled, who was admitted, who was sent back, blocks in use."""
    with tempfile.TemporaryDirectory() as folder:
        engine = scheduler(case["settings"], folder)
    hasher = get_request_block_hasher(case["settings"]["block_tokens"], sha256)
    todo = list(enumerate(case["requests"]))
    answers: dict[str, list[int]] = {}
    steps: list = []
    number = 0
    while todo or engine.requests:
        while todo and todo[0][1]["step"] <= number:
            index, asked = todo.pop(0)
            answers[str(index)] = list(asked["answer"])
            params = SamplingParams(max_tokens=len(asked["answer"]), ignore_eos=True, temperature=0)
            engine.add_request(
                Request(str(index), asked["prompt"], params, None, arrival_time=index, block_hasher=hasher)
            )
        number += 1
        before = {request.request_id: request.num_preemptions for request in engine.requests.values()}
        running = {request.request_id for request in engine.running}
        output = engine.schedule()
        tokens = [[int(name), count] for name, count in output.num_scheduled_tokens.items()]
        again = [name for name in before if engine.requests[name].num_preemptions > before[name]]
        admitted = [int(name) for name, _ in tokens if str(name) not in running]
        used = case["settings"]["kv_blocks"] - engine.kv_cache_manager.block_pool.get_num_free_blocks()
        if tokens:
            steps.append([tokens, admitted, sorted(map(int, again)), used])
        names = list(output.num_scheduled_tokens)
        sampled = []
        for name in names:
            request = engine.requests[name]
            done = request.num_computed_tokens >= request.num_tokens
            sampled.append([answers[name][request.num_output_tokens]] if done else [])
        engine.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=names, req_id_to_index={name: at for at, name in enumerate(names)}, sampled_token_ids=sampled,
                logprobs=None, prompt_logprobs_dict={}, pooler_output=[],
            ),
        )  # fmt: skip
    return steps


def main() -> None:
    """Read cases, write traces."""
    init_none_hash(sha256)
    cases = json.load(sys.stdin)
    json.dump({"version": vllm.__version__, "traces": [play(case) for case in cases]}, sys.stdout)


if __name__ == "__main__":
    main()
