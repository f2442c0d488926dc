"""Serve a model with vLLM on CPU: convert a GGUF first, fix the environment, and become vLLM's API server.

Runs in vLLM's environment: `python -m stack.engines.vllm.serve --help`.
"""

from __future__ import annotations

import math
import os
import shutil
import sysconfig
from pathlib import Path
from typing import NoReturn

from loadgen.engines.model_config import attention_config
from loadgen.engines.vllm import VLLM, api_server, translate
from loadgen.machine import format_cpus
from stack.engines.cpu_options import launch_facts, parse_options
from stack.engines.launching import Launch, for_resets, read_model, run
from stack.engines.vllm.convert import ensure_converted

# Gemma 3 270M keeps keys and values (2) of 18 layers x 1 head x 256 values x 2 bytes for a token.
KV_BYTES_A_TOKEN = 2 * 18 * 256 * 2


def kv_cache_gib(context_tokens: int, parallel: int) -> int:
    """Whole GiB (vLLM takes no fractions) that hold `parallel` sequences of full length."""
    return max(1, math.ceil(context_tokens * parallel * KV_BYTES_A_TOKEN / 2**30))


def missing_for_compile() -> list[str]:
    """What TorchInductor needs to compile the model for this machine, and is not there."""
    missing = []
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        missing.append("a C++ compiler (g++)")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        missing.append("Python's headers (python3-dev)")
    return missing


def main() -> NoReturn:
    """Write the launch record and exec vLLM."""
    options = parse_options("Serve a model folder with vLLM on CPU, or a GGUF, which is converted first.")
    if options.model.suffix == ".gguf":
        options.model = ensure_converted(options.model, options.state_dir / "model")
    notes: list[str] = []
    eager = options.eager
    if eager:
        notes.append(
            "vLLM runs eagerly, without compiling the model: BAKEOFF_VLLM_EAGER is set. Its default is faster."
        )
    elif missing := missing_for_compile():
        eager = True
        notes.append(
            f"vLLM runs eagerly, without compiling the model: {' and '.join(missing)} not found. "
            "Its default is faster; install what is missing for a fair figure."
        )

    stack = {
        "max_model_length": options.context_tokens,
        "max_batch_size": options.parallel,
        "prefix_caching": False,
        "seed": 0,
    }
    serving = translate(options.asked, stack, gpu=False)
    cache = options.state_dir / "cache"
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib(options.context_tokens, options.parallel)),
        "VLLM_CPU_OMP_THREADS_BIND": format_cpus(options.cpus),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        # On CPU this vLLM cannot load what it compiled ahead of time, and compiles anew at every start; without that
        # step the very same code comes from TorchInductor's own cache.
        "VLLM_USE_AOT_COMPILE": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "HF_HOME": str(cache / "hf"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    opened, told = for_resets(VLLM.cache_reset_variable)
    environment |= opened
    notes += told
    argv = api_server(str(options.model), options.served_name, options.host, options.port, serving)
    argv += ["--enforce-eager"] if eager else []
    packages = ("vllm-cpu", "torch", "transformers", "tokenizers", "numpy")
    facts = launch_facts(options, packages, "the same GGUF (Q4_K_M) dequantised to bfloat16")
    facts["model_config"] = attention_config(read_model(options.model))
    launch = Launch(argv, environment, serving if options.asked else (), facts, notes)
    launch.record(options.record)
    # vLLM is started as a module, which puts the working folder on its import path: not the checkout's.
    launch.become("vLLM", options.state_dir)


if __name__ == "__main__":
    run(main)
