"""The `serving:` block: what it takes, how mistakes are explained, and that no engine drops a setting silently."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loadgen.engines import ksana, llamacpp, vllm
from loadgen.engines.serving import SETTINGS, read_block
from loadgen.errors import UserError
from loadgen.hosts.stack_file import declare_serving, serving_file
from loadgen.scenario.file import load_scenario
from loadgen.scenario.serving import Serving, serving_json
from tests.loadgen.scenario.test_model import GOOD, explain, write  # noqa: F401 - a fixture

ONE = st.integers(1, 64)
FIELDS = {
    "dtype": st.sampled_from(["auto", "bfloat16", "float16"]),
    "tensor_parallel_size": ONE,
    "data_parallel_size": ONE,
    "max_model_length": st.integers(1, 4096),
    "max_batch_size": ONE,
    "max_tokens_per_step": st.integers(4096, 9999),
    "kv_block_size": ONE,
    "kv_dtype": st.sampled_from(["auto", "bfloat16", "float16", "fp8_e4m3", "fp8_e5m2"]),
    "gpu_memory_fraction": st.floats(0.01, 0.99),
    "kv_cache_tokens": st.integers(4096, 99_999),
    "prefix_caching": st.booleans(),
    "chunked_prefill": st.booleans(),
    "cuda_graphs": st.booleans(),
    "async_scheduling": st.booleans(),
    "seed": st.integers(0, 9),
}
blocks = st.fixed_dictionaries({}, optional=FIELDS)
MODELS = st.sampled_from([{}, {"torch_dtype": "bfloat16", "model_type": "qwen2"}, {"model_type": "deepseek_v3"}])


def test_the_block_and_the_launchers_know_the_same_settings():
    assert tuple(Serving.model_fields) == SETTINGS == tuple(FIELDS)


@given(blocks)
def test_a_block_reaches_a_launcher_whole(block):
    serving = Serving.model_validate(block)
    assert read_block(serving_json(serving)) == serving.asked() == {k: block[k] for k in SETTINGS if k in block}


def test_no_block_is_no_text():
    assert serving_json(None) == serving_json(Serving()) == ""
    assert read_block("") == read_block(" \n") == read_block('{"seed": null}') == {}


@given(blocks, MODELS)
def test_no_engine_drops_a_setting_silently(block, model):
    for made in (
        vllm.translate(block),
        vllm.translate(block, gpu=False),
        ksana.translate(block, model),
        llamacpp.translate(block),
    ):
        assert [setting.setting for setting in made] == list(SETTINGS)
        for setting in made:
            assert setting.asked == block.get(setting.setting)
            if setting.asked is None:
                assert setting.outcome == "default" and setting.note and not setting.told()
            elif setting.outcome == "honoured":
                assert setting.told() or setting.note
            else:
                assert setting.note and setting.setting in (setting.remark() or "")


@given(blocks)
def test_a_launchers_defaults_yield_to_what_is_asked(block):
    defaults = {"max_model_length": 5000, "prefix_caching": False}
    for made in (vllm.translate(block, defaults, gpu=False), llamacpp.translate(block, defaults)):
        found = {setting.setting: setting for setting in made}
        for name, value in defaults.items():
            assert found[name].value == block.get(name, value)
            assert found[name].outcome == ("honoured" if name in block else "default")


@pytest.mark.parametrize(
    ("block", "outcome"),
    [
        ({"max_tokens_per_step": 4096, "max_model_length": 4096}, "honoured"),
        ({"max_tokens_per_step": 4095, "max_model_length": 4096}, "differs"),
        ({"max_tokens_per_step": 4095, "max_model_length": 4096, "chunked_prefill": True}, "differs"),
        ({"max_tokens_per_step": 4096}, "differs"),
    ],
)
def test_ksana_raises_the_tokens_of_a_step_to_the_longest_sequence(block, outcome):
    (found,) = [setting for setting in ksana.translate(block) if setting.setting == "max_tokens_per_step"]
    assert found.outcome == outcome


@pytest.mark.parametrize(("asked", "size", "blocks"), [(16, 32, 768), (32, 32, 768), (40, 64, 384)])
def test_vllm_takes_blocks_of_another_size_on_a_cpu(asked, size, blocks):
    """With one of 16 it does not start there."""
    found = vllm.arguments(vllm.translate({"kv_block_size": asked, "kv_cache_tokens": 24576}, gpu=False))
    assert found == ["--block-size", str(size), "--num-gpu-blocks-override", str(blocks)]
    outcomes = [each.outcome for each in vllm.translate({"kv_block_size": asked}, gpu=False) if each.asked]
    assert outcomes == ["honoured" if asked == size else "differs"]
    assert vllm.arguments(vllm.translate({"kv_block_size": asked})) == ["--block-size", str(asked)]


@pytest.mark.parametrize(
    ("asked", "model", "outcome", "word"),
    [
        ("bfloat16", {"torch_dtype": "bfloat16"}, "honoured", "bfloat16"),
        ("float16", {"torch_dtype": "bfloat16"}, "not honoured", "bfloat16"),
        ("bfloat16", {"dtype": "bfloat16"}, "not honoured", "no torch_dtype"),
        ("float16", {"dtype": "bfloat16"}, "honoured", "no torch_dtype"),
        ("auto", {"torch_dtype": "float16"}, "honoured", "float16"),
        ("bfloat16", {}, "differs", "not known"),
    ],
)
def test_ksana_computes_in_the_models_own_type(asked, model, outcome, word):
    found = ksana.translate({"dtype": asked}, model)[0]
    assert (found.outcome, found.told()) == (outcome, {})
    assert word in found.note


def put(write, text):  # noqa: F811
    return write(GOOD + "serving:\n" + text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("  max_batch: 3\n", 10, ["`serving.max_batch`", "unknown key", "did you mean `max_batch_size`"]),
        ("  frobnicate: 3\n", 10, ["unknown key", "known keys: dtype, tensor_parallel_size"]),
        ("  seed: 1\n  dtype: fp64\n", 11, ["`serving.dtype`", "bfloat16", "fp64"]),
        ("  max_batch_size: '3'\n", 10, ["`serving.max_batch_size`", "a whole number"]),
        ("  gpu_memory_fraction: 1.0\n", 10, ["`serving.gpu_memory_fraction`", "less than 1"]),
        ("  prefix_caching: 1\n", 10, ["`serving.prefix_caching`", "true or false"]),
        ("  max_batch_size: 9\n  max_tokens_per_step: 8\n", 11, ["`max_tokens_per_step`", "(9)"]),
        (
            "  chunked_prefill: false\n  max_model_length: 90\n  max_tokens_per_step: 80\n",
            12,
            ["`max_tokens_per_step`", "(90)", "chunked prefill"],
        ),
        ("  max_model_length: 90\n  kv_cache_tokens: 80\n", 11, ["`kv_cache_tokens`", "(90)"]),
        ("  seed: 1\n  max_model_length: 5\n", 11, ["`serving.max_model_length` (5)", "6 tokens"]),
    ],
)
def test_mistakes_are_explained_with_file_line_and_hint(write, text, line, words):  # noqa: F811
    said = explain(put(write, text))
    assert f"mine.yaml:{line}: " in said
    for word in words:
        assert word in said
    assert "\n" not in said


def test_a_scenario_keeps_its_block(write):  # noqa: F811
    scenario = load_scenario(put(write, "  max_model_length: 10\n  prefix_caching: false\n"))
    assert scenario.serving is not None
    assert scenario.serving.asked() == {"max_model_length": 10, "prefix_caching": False}
    assert json.loads(scenario.model_dump_json())["serving"]["max_model_length"] == 10
    assert load_scenario(write(GOOD)).serving is None


def test_smoke_asks_for_nothing_and_the_matrix_for_a_fair_set_up():
    assert load_scenario("smoke").serving is None
    asked = load_scenario("seed-matrix").serving
    assert asked is not None
    assert (asked.prefix_caching, asked.dtype, asked.tensor_parallel_size) == (False, "bfloat16", 1)


def test_an_engine_without_copies_side_by_side_needs_no_cards_for_them(write):  # noqa: F811
    scenario = load_scenario(put(write, "  tensor_parallel_size: 2\n  data_parallel_size: 3\n"))
    assert [scenario.cards_of("x", kind) for kind in ("vllm", "ksana")] == [6, 2]
    assert load_scenario(write(GOOD)).cards_of("x", "vllm") == 1


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"max_batch": 3}'])
def test_a_malformed_block_is_refused_by_a_launcher(text):
    with pytest.raises(UserError):
        read_block(text)


def test_a_block_takes_no_numbers_that_are_none():
    for bad in ({"seed": -1}, {"gpu_memory_fraction": 0}, {"max_batch_size": True}, {"seed": 2**32}):
        with pytest.raises(ValidationError):
            Serving.model_validate(bad)


class Host:
    """An engine host that counts how often it was told to stop everything."""

    stops = 0

    def stop_all(self) -> None:
        self.stops += 1


def test_engines_are_stopped_only_when_other_settings_are_asked_for(write, tmp_path):  # noqa: F811
    plain, asking = load_scenario(write(GOOD)), load_scenario(put(write, "  seed: 3\n"))
    path, host = serving_file(tmp_path), Host()
    for scenario, stops, text in (
        (plain, 0, None),
        (asking, 1, '{"seed": 3}'),
        (asking, 1, '{"seed": 3}'),
        (plain, 2, ""),
    ):
        declare_serving(tmp_path, serving_json(scenario.serving), host)  # type: ignore[arg-type]
        assert host.stops == stops
        assert (path.read_text() if path.exists() else None) == text
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        declare_serving(tmp_path / "file", serving_json(asking.serving), host)  # type: ignore[arg-type]
