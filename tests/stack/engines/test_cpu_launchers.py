"""The launchers of CPU engines, with recorders in their place: as before without settings, as asked with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.stack.engines.launchers import Launch

FAKE_LLAMA = """\
import json, os, signal
class Holder:
    def __init__(self):
        self.__dict__.update(model=None)
class ggml_type:
    GGML_TYPE_F16, GGML_TYPE_BF16 = "f16", "bf16"
class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch, self.sampling = Holder(), Holder(), Holder(), Holder()
class Server:
    listening_address = "recorder"
    def __init__(self, params):
        flat = {k: v for k, v in vars(params).items() if isinstance(v, (bool, int, str))}
        flat["seed"] = vars(params.sampling).get("seed")
        with open(os.environ["RECORDING"], "w") as file:
            json.dump(flat, file)
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture
def place(tmp_path: Path) -> Launch:
    found = Launch(tmp_path)
    (tmp_path / "image" / "xllamacpp.py").write_text(FAKE_LLAMA)
    (tmp_path / "models" / "qwen.stamp.json").write_text('{"sha256": "ab"}')
    return found


def launch(place: Launch, engine: str, block: dict | None = None, *more: str, **environment: str):
    arguments = [
        *("--model", str(place.folder / "models" / "qwen")),
        *("--served-name", "gemma", "--port", "8101", "--cpus", "0", "--context-tokens", "5120", "--parallel", "16"),
        *("--state-dir", str(place.folder / "state"), "--record", str(place.folder / "run" / "launch.json"), *more),
    ]
    if block is not None:
        environment |= place.serving(json.dumps(block))
    return place.run("-m", f"stack.engines.{engine}.serve", *arguments, **environment)


def test_vllm_without_settings_is_started_as_ever(place):
    assert launch(place, "vllm", None, "--eager").returncode == 0
    assert place.recording["orig"] == [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(place.folder / "models" / "qwen")),
        *("--served-model-name", "gemma", "--host", "127.0.0.1", "--port", "8101", "--max-model-len", "5120"),
        *("--max-num-seqs", "16", "--no-enable-prefix-caching", "--seed", "0", "--allowed-origins", "[]"),
        "--enforce-eager",
    ]
    assert "serving" not in place.record
    assert (place.record["context_tokens"], place.record["parallel_sequences"]) == (5120, 16)
    assert place.record["model_config"] == {"model_type": "qwen2", "torch_dtype": "bfloat16"}


def test_vllm_on_a_cpu_has_routes_for_development_where_they_are_asked_for(place):
    assert launch(place, "vllm", {"reset_prefix_caches": True}, "--eager").returncode == 0
    assert place.record["environment"]["VLLM_SERVER_DEV_MODE"] == "1" and "serving" not in place.record
    assert launch(place, "llamacpp", {"reset_prefix_caches": True}).returncode == 0


def test_vllm_on_a_cpu_honours_what_it_can(place):
    block = {"max_model_length": 9000, "max_batch_size": 4, "gpu_memory_fraction": 0.5, "prefix_caching": True}
    done = launch(place, "vllm", block, "--eager")
    assert done.returncode == 0, done.stderr
    line = " ".join(place.recording["orig"])
    assert "--max-model-len 9000 --max-num-seqs 4 --enable-prefix-caching --seed 0" in line
    assert "gpu-memory" not in line
    assert "gpu_memory_fraction: 0.5 not honoured" in done.stderr
    assert (place.record["context_tokens"], place.record["parallel_sequences"]) == (9000, 4)
    assert {entry["setting"] for entry in place.record["serving"] if entry["asked"] is not None} == set(block)


def test_llamacpp_without_settings_is_started_as_ever(place):
    assert launch(place, "llamacpp").returncode == 0
    found = place.recording
    assert (found["n_ctx"], found["n_parallel"], found["seed"]) == (5120 * 16, 16, None)
    assert (found["cache_prompt"], found["cache_ram_mib"]) == (False, 0)
    assert "cache_type_k" not in found and "n_batch" not in found
    assert "serving" not in place.record


def test_llamacpp_honours_what_it_can(place):
    block = {
        "max_model_length": 1000,
        "max_batch_size": 3,
        "max_tokens_per_step": 700,
        "kv_dtype": "bfloat16",
        "prefix_caching": True,
        "seed": 5,
        "dtype": "float16",
    }
    done = launch(place, "llamacpp", block)
    assert done.returncode == 0, done.stderr
    found = place.recording
    assert (found["n_ctx"], found["n_parallel"], found["n_batch"], found["seed"]) == (3000, 3, 700, 5)
    assert (found["cache_prompt"], found["cache_type_k"], found["cache_type_v"]) == (True, "bf16", "bf16")
    assert "cache_ram_mib" not in found
    assert "dtype: float16 not honoured" in done.stderr


def test_no_file_is_no_settings(place):
    assert launch(place, "llamacpp", BAKEOFF_SERVING_FILE=str(place.folder / "absent.json")).returncode == 0
    assert place.recording["n_parallel"] == 16


def test_malformed_settings_are_refused(place):
    done = launch(place, "llamacpp", {"max_batch": 2})
    assert done.returncode == 2
    assert "max_batch" in done.stderr and "serving.json" in done.stderr and "Traceback" not in done.stderr
