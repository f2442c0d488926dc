"""Both GPU launchers, run against recorders in place of the engines: the exact command line and YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loadgen.engines import ksana
from loadgen.errors import UserError
from loadgen.scenario.file import load_scenario
from stack.engines import launching
from tests.stack.engines.launchers import QWEN, ROOT, Launch

DATA = ROOT / "tests" / "data"
EVERYTHING = {
    "dtype": "float16",
    "tensor_parallel_size": 2,
    "data_parallel_size": 2,
    "max_model_length": 8192,
    "max_batch_size": 64,
    "max_tokens_per_step": 4096,
    "kv_block_size": 32,
    "kv_dtype": "fp8_e4m3",
    "gpu_memory_fraction": 0.85,
    "kv_cache_tokens": 262144,
    "prefix_caching": True,
    "chunked_prefill": True,
    "cuda_graphs": False,
    "async_scheduling": False,
    "seed": 7,
}
SEED_MATRIX = load_scenario("seed-matrix").serving
assert SEED_MATRIX is not None
BLOCKS = {"nothing": {}, "seed-matrix": SEED_MATRIX.asked(), "everything": EVERYTHING}
each = pytest.mark.parametrize("name", BLOCKS)


@pytest.fixture
def place(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


def golden(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


@each
def test_vllm_is_started_with_just_this_command_line(place, name):
    done = place.launch("vllm", BLOCKS[name], BAKEOFF_SERVED_NAME="qwen")
    assert done.returncode == 0, done.stderr
    assert place.plain(place.recording["orig"]) == json.loads(golden(f"launch-{name}.vllm.json"))
    assert place.record["argv"] == place.recording["orig"]


@each
def test_sglang_is_started_with_just_this_command_line(place, name):
    done = place.launch("sglang", BLOCKS[name], BAKEOFF_SERVED_NAME="qwen")
    assert done.returncode == 0, done.stderr
    assert place.plain(place.recording["orig"]) == json.loads(golden(f"launch-{name}.sglang.json"))
    assert place.record["argv"] == place.recording["orig"]
    assert place.recording["environment"]["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "false"


@pytest.mark.parametrize(
    ("block", "flags", "told"),
    [
        ({"chunked_prefill": False, "max_tokens_per_step": 8192},
         ["--max-prefill-tokens", "8192", "--chunked-prefill-size", "-1"], ["max_tokens_per_step"]),
        ({"chunked_prefill": True, "max_tokens_per_step": 2048}, ["--chunked-prefill-size", "2048"],
         ["max_tokens_per_step"]),
        ({"prefix_caching": False}, ["--disable-radix-cache"], []),
        ({"cuda_graphs": True, "async_scheduling": True, "prefix_caching": True}, [], []),
        ({"gpu_memory_fraction": 0.8}, ["--mem-fraction-static", "0.8"], ["gpu_memory_fraction"]),
    ],
)  # fmt: skip
def test_what_sglang_means_by_a_setting(place, block, flags, told):
    done = place.launch("sglang", block)
    assert place.recording["orig"][place.recording["orig"].index("--enable-metrics") + 1 :] == flags
    assert [entry["setting"] for entry in place.record["serving"] if entry["outcome"] == "differs"] == told
    assert all(f"{name}: " in done.stderr for name in told)


def test_vllm_has_routes_for_development_only_where_prefix_caches_are_to_be_emptied(place):
    for block, variable in (({}, None), ({"seed": 7, "reset_prefix_caches": True}, "1")):
        done = place.launch("vllm", block, BAKEOFF_SERVED_NAME="qwen")
        assert done.returncode == 0, done.stderr
        assert place.record["environment"].get("VLLM_SERVER_DEV_MODE") == variable
        assert ("VLLM_SERVER_DEV_MODE=1: routes for development" in done.stderr) == (variable == "1")
        assert "reset" not in json.dumps(place.record["serving"])
    assert place.launch("ksana", {"reset_prefix_caches": True}).returncode == 0


@each
def test_ksana_is_started_with_just_this_command_line_and_yaml(place, name):
    done = place.launch("ksana", BLOCKS[name])
    assert done.returncode == 0, done.stderr
    assert place.plain(place.recording["orig"]) == json.loads(golden(f"launch-{name}.ksana.json"))
    yaml = Path(place.recording["argv"][place.recording["argv"].index("--config_file") + 1])
    text = yaml.read_text(encoding="utf-8")
    assert text.replace(str(place.folder), "/image") == golden(f"launch-{name}.ksana.yaml")
    assert place.record["yaml"] == text
    assert yaml.suffix == ".yaml"  # upstream refuses any other


@each
def test_the_yaml_says_the_same_to_another_library(place, name):
    tree = ksana.configuration(ksana.translate(BLOCKS[name], QWEN), "/image/models/qwen", "http://x:1/v1/metrics")
    tree["setting"]["profiler"]["metrics_export_url"] = "http://ksana-exporter:9103/v1/metrics"
    assert YAML(typ="safe").load(golden(f"launch-{name}.ksana.yaml")) == tree


def test_the_engine_takes_over_the_launchers_process_so_that_signals_reach_it(place):
    for engine in ("vllm", "ksana", "sglang"):
        place.launch(engine)
        assert place.recording["pid"] == place.process.pid == place.record["pid"]


def test_ksana_finds_its_libraries_and_its_log_is_the_containers(place):
    place.launch("ksana")
    environment = place.recording["environment"]
    assert place.recording["cwd"] == str(place.ksana)
    assert environment["PYTHONPATH"].split(":")[:2] == [str(place.ksana), str(place.ksana / "lib")]
    assert environment["PYTHONPATH"].split(":")[-1] == str(place.folder / "image")
    assert environment["LD_LIBRARY_PATH"] == str(place.ksana / "lib")
    assert environment["KLLM_LOG_FILE"] == "/dev/stdout"


def test_the_size_of_the_kv_cache_reaches_ksana_by_its_environment(place):
    place.launch("ksana", {"kv_cache_tokens": 1600, "max_model_length": 1500, "kv_block_size": 16})
    environment = place.recording["environment"]
    assert environment["KLLM_MAX_DEVICE_BLOCKS"] == "100" and "MAX_WARMUP_INPUT_LENGTH" not in environment
    assert place.record["environment"]["KLLM_MAX_DEVICE_BLOCKS"] == "100"
    assert "KLLM_MAX_DEVICE_BLOCKS" not in place.record["yaml"]
    place.launch("ksana", {"kv_cache_tokens": 1024, "max_model_length": 1000})
    assert place.recording["environment"]["MAX_WARMUP_INPUT_LENGTH"] == "960"


def test_what_changes_ksanas_warm_up_is_recorded(place):
    done = place.launch("ksana", DISABLE_WARMUP="1")
    assert "DISABLE_WARMUP=1" in done.stderr and "DISABLE_WARMUP=1" in " ".join(place.record["notes"])


def test_what_becomes_of_each_setting_is_recorded_and_said(place):
    done = place.launch("ksana", {"seed": 3, "max_batch_size": 8, "dtype": "float16"})
    serving = {entry["setting"]: entry for entry in place.record["serving"]}
    assert (serving["seed"]["outcome"], serving["max_batch_size"]["outcome"]) == ("not honoured", "honoured")
    assert "bfloat16" in serving["dtype"]["note"]
    assert serving["kv_dtype"]["outcome"] == "default"
    assert "note: seed: 3 not honoured" in done.stderr and "note: dtype: float16 not honoured" in done.stderr
    assert done.stdout.startswith("starting KsanaLLM: ") and done.stdout.count("\n") == 1


def test_the_commit_of_the_checkout_is_recorded(place):
    git = place.folder / "KsanaLLM" / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs with: peeled\n0123abc refs/heads/main\n")
    place.launch("ksana")
    assert place.record["source_commit"] == "0123abc"


def test_a_token_reaches_vllm_and_nothing_else(place):
    token = place.folder / "token"
    token.write_text("hf_secret\n")
    done = place.launch("vllm", BAKEOFF_HF_TOKEN_FILE=str(token), BAKEOFF_MODEL="Qwen/Qwen2.5-7B-Instruct")
    assert place.recording["environment"]["HF_TOKEN"] == "hf_secret"
    assert place.record["environment"]["HF_TOKEN"] == "(redacted)"
    assert "hf_secret" not in json.dumps(place.record) + done.stdout + done.stderr
    assert "hf_secret" not in " ".join(place.recording["orig"])


def refused(place: Launch, engine: str, *words: str, block=None, **environment: str) -> None:
    done = place.launch(engine, block, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert not (place.folder / "recording.json").exists()


@pytest.mark.parametrize("engine", ["vllm", "ksana", "sglang"])
def test_a_missing_model_is_refused(place, engine):
    refused(place, engine, "/nowhere/model", "BAKEOFF_MODEL", BAKEOFF_MODEL="/nowhere/model")
    refused(place, engine, "BAKEOFF_MODEL", BAKEOFF_MODEL="")
    (place.folder / "models" / "qwen" / "config.json").unlink()
    refused(place, engine, "config.json")
    (place.folder / "models" / "qwen" / "config.json").write_text("{")
    refused(place, engine, "config.json")


@pytest.mark.parametrize("engine", ["vllm", "ksana", "sglang"])
def test_malformed_settings_are_refused(place, engine):
    refused(place, engine, "max_batchsize", "max_batch_size", block={"max_batchsize": 3})
    refused(place, engine, "BAKEOFF_SERVING_FILE", **place.serving("{"))
    refused(place, engine, "BAKEOFF_SERVING_FILE", **place.serving("[1]"))
    refused(place, engine, "BAKEOFF_PORT", BAKEOFF_PORT="70000")


def test_an_image_without_the_engine_is_refused(place, tmp_path):
    refused(place, "vllm", "VLLM_IMAGE", PYTHONPATH="")
    refused(place, "ksana", "KSANA_IMAGE", "BAKEOFF_KSANA_SERVER", GIT_PROJECT_REPO_ROOT="/nowhere")
    refused(place, "ksana", "/nowhere", BAKEOFF_KSANA_SERVER="/nowhere")
    (place.ksana / "openaiapi").rmdir()
    refused(place, "ksana", "openaiapi")
    (place.ksana / "lib" / "libtorch_serving.so").unlink()
    refused(place, "ksana", "not compiled")


def test_ksana_may_lie_elsewhere(place, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    place.ksana.rename(elsewhere)
    for named in (elsewhere, elsewhere / "serving_server.py"):
        done = place.launch("ksana", BAKEOFF_KSANA_SERVER=str(named))
        assert done.returncode == 0, done.stderr
        assert place.recording["cwd"] == str(elsewhere)


def test_ksana_refuses_a_model_it_does_not_support(place):
    place.model({**QWEN, "model_type": "gemma3", "architectures": ["Gemma3ForCausalLM"]})
    refused(place, "ksana", "gemma3", "Gemma3ForCausalLM", "BAKEOFF_KSANA_MODEL_TYPES")
    assert place.launch("ksana", BAKEOFF_KSANA_MODEL_TYPES="other, gemma3").returncode == 0
    (place.folder / "recording.json").unlink()
    place.model({**QWEN, "torch_dtype": "float32"})
    refused(place, "ksana", "float32")
    place.model({**QWEN, "architectures": None})
    refused(place, "ksana", "architectures")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "qwen3_moe"},
        {"model_type": "hunyuan", "num_experts": 16},
        {"model_type": "hunyuan"},
        {"model_type": "deepseek_v3"},
    ],
)
def test_ksana_takes_what_upstream_takes(place, config):
    place.model({**QWEN, **config})
    assert place.launch("ksana").returncode == 0


def test_a_weight_map_makes_a_model_supported(place):
    place.model({**QWEN, "model_type": "strange"})
    refused(place, "ksana", "strange")
    (place.folder / "models" / "qwen" / "strange_weight_map.json").write_text("{}")
    assert place.launch("ksana").returncode == 0


def test_a_metrics_url_with_a_password_is_refused(place):
    refused(place, "ksana", "BAKEOFF_METRICS_URL", BAKEOFF_METRICS_URL="http://me:secret@x/v1/metrics")


def test_a_record_that_cannot_be_written_is_told(place):
    refused(place, "vllm", "BAKEOFF_LAUNCH_RECORD", BAKEOFF_LAUNCH_RECORD="/proc/nowhere/launch.json")


@pytest.mark.parametrize("engine", ["vllm", "ksana"])
def test_what_decides_attention_is_recorded_of_the_models_config_and_no_more(place, engine):
    sizes = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584}
    place.model(QWEN | sizes | {"vocab_size": 152064, "sliding_window": None})
    assert place.launch(engine).returncode == 0
    assert place.record["model_config"] == {"model_type": "qwen2", "torch_dtype": "bfloat16", **sizes}


def test_a_hubs_model_has_no_config_to_record(place):
    place.launch("vllm", BAKEOFF_MODEL="Qwen/Qwen2.5-7B-Instruct")
    assert place.record["model_config"] == {}


SHAPE = {**QWEN, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}


@pytest.mark.parametrize(
    ("engine", "block", "cards", "message"),
    [
        (
            "vllm",
            {"tensor_parallel_size": 2, "data_parallel_size": 2},
            "0,1",
            "tensor_parallel_size 2 x data_parallel_size 2 takes 4 GPUs, and 2 can be seen from here; "
            "tensor_parallel_size 1 would do with data_parallel_size 2, or give it more with BAKEOFF_VLLM_GPUS, such "
            "as 0,1,2,3.",
        ),
        ("vllm", {"tensor_parallel_size": 7}, "0,1,2,3,4,5,6,7", "MLP 18944 wide); tensor_parallel_size 1, 2, 4 would"),
        ("ksana", {"tensor_parallel_size": 3}, "0,1,2", "4 KV heads); tensor_parallel_size 1, 2 would do."),
        ("ksana", {"tensor_parallel_size": 4}, "0", "takes 4 GPUs, and 1 can be seen from here"),
    ],
)
def test_a_size_that_cannot_be_is_refused_before_the_engine(place, engine, block, cards, message):
    place.model(SHAPE)
    done = place.launch(engine, block, CUDA_VISIBLE_DEVICES=cards)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (place.folder / "recording.json").exists()


def test_what_a_container_was_given_is_counted_by_its_devices(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(launching, "DEVICES", tmp_path)
    launching.check_cards("vllm", {"tensor_parallel_size": 2}, {})  # nobody knows
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="takes 2 GPUs, and 1 can be seen from here; tensor_parallel_size 1 would do"):
        launching.check_cards("vllm", {"tensor_parallel_size": 2}, {})
    (tmp_path / "nvidia3").touch()
    launching.check_cards("vllm", {"tensor_parallel_size": 2}, {})
    launching.check_cards("ksana", {"data_parallel_size": 9}, {})  # told as not honoured
