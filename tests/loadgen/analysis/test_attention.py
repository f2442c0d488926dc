"""How long attention takes, from configs like those of real models."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.analysis.attention import Model, attention_flops, attention_ms, model_of, read_config, speed_at
from loadgen.engines.model_config import attention_config
from loadgen.errors import UserError

LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
}


def test_a_llama():
    model = model_of(LLAMA_8B)
    assert model == Model(heads=32, qk_dim=128, v_dim=128, full_layers=32)
    # 32 layers x 32 heads x 4 x 4096^2 x 128 / 2
    assert attention_flops(model, 4096) == 4_398_046_511_104
    assert attention_ms(model, 4096, 400) == pytest.approx(10.995, rel=1e-4)
    assert attention_ms(model, 4096, 400, cards=2) == pytest.approx(5.4976, rel=1e-4)


def test_a_qwen_worked_out_by_hand():
    """Qwen2.5-7B: 28 layers x 28 heads x 4 x 4096^2 x 128 / 2 = 3.37e12 FLOPs, 5.1 ms at 660 TFLOP/s."""
    model = model_of(
        {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584}
        | {"sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 28}
    )
    assert attention_flops(model, 4096) == pytest.approx(3.37e12, rel=1e-3)
    assert attention_ms(model, 4096, 660) == pytest.approx(5.102, rel=1e-3)
    assert attention_ms(model, 4096, 989) == pytest.approx(3.405, rel=1e-3)


def test_a_head_dim_of_its_own_and_a_text_model_inside():
    config = {"text_config": {"num_hidden_layers": 2, "num_attention_heads": 3, "head_dim": 256, "hidden_size": 640}}
    assert model_of(attention_config(config)) == Model(3, 256, 256, full_layers=2)


def test_latent_attention_has_two_dims():
    config = LLAMA_8B | {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    model = model_of(config)
    assert (model.qk_dim, model.v_dim) == (192, 128)
    assert attention_flops(model, 100) == 32 * 32 * (2 * 192 + 2 * 128) * 100**2 / 2


@pytest.mark.parametrize(
    ("extra", "full", "within"),
    [
        ({"sliding_window": None}, 32, 0),
        ({"sliding_window": 4096}, 0, 32),
        ({"sliding_window": 4096, "use_sliding_window": False}, 32, 0),
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28}, 28, 4),
        ({"sliding_window": 512, "sliding_window_pattern": 6}, 5, 27),
        ({"sliding_window": 512, "model_type": "gemma2"}, 16, 16),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}, 16, 16),
        ({"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}, 8, 0),
    ],
)
def test_layers_with_a_window(extra, full, within):
    model = model_of(LLAMA_8B | extra)
    assert (model.full_layers, model.window_layers) == (full, within)
    assert model.window == (extra["sliding_window"] if within else 0)


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_window_costs_what_its_pairs_cost(tokens, window):
    """Against counting pairs one by one; the diagonal counts half, as in the halved square."""
    model = Model(heads=1, qk_dim=1, v_dim=1, full_layers=0, window_layers=1, window=window)
    pairs = sum(1 for i in range(tokens) for j in range(tokens) if 0 <= i - j < window)
    edge = min(tokens, window) / 2  # half of the corner's diagonal
    assert attention_flops(model, tokens) == pytest.approx(4 * (pairs - edge))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers must be a whole number of at least 1, not None"),
        ({"num_attention_heads": 0}, "num_attention_heads must be"),
        ({"hidden_size": "4096"}, "hidden_size must be .* not '4096'"),
        ({"head_dim": True}, "head_dim must be"),
        ({"layer_types": ["chunked_attention"] * 32}, "not known here: chunked_attention"),
        ({"layer_types": ["sliding_attention"] * 32}, "sliding_window must be"),
        ({"sliding_window": 512, "sliding_window_pattern": "6"}, "sliding_window_pattern must be .* not '6'"),
        ({"index_topk": 2048}, "sparse attention"),
    ],
)
def test_a_config_that_lacks_something(change, words):
    with pytest.raises(ValueError, match=words):
        model_of(LLAMA_8B | change)


def test_reading_a_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA_8B | {"vocab_size": 128256, "torch_dtype": "bfloat16"}))
    assert read_config(file) == LLAMA_8B | {"torch_dtype": "bfloat16"}
    for text, words in (("{", "is not JSON"), ("[]", "no JSON object"), ("{}", "config.json: num_hidden_layers")):
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            read_config(file)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.json")


def test_speed_between_lengths():
    speeds = {512: 100.0, 2048: 300.0, 4096: 320.0}
    assert [speed_at(speeds, n) for n in (1, 512, 1024, 2048, 4096, 10**6)] == [100, 100, 200, 300, 320, 320]
    with pytest.raises(ValueError, match="0 lengths were measured"):
        speed_at({}, 512)


def test_what_cannot_be_is_refused():
    model = model_of(LLAMA_8B)
    for call, words in (
        (lambda: attention_flops(model, 0), "at least 1 token"),
        (lambda: attention_ms(model, 1, 0), "positive number of TFLOP/s"),
        (lambda: attention_ms(model, 1, float("nan")), "positive number of TFLOP/s"),
        (lambda: attention_ms(model, 1, 1, cards=0), "at least 1 card"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
