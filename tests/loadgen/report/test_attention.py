"""Attention's part of TTFT in a report, on runs whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loadgen.analysis import speeds
from loadgen.cli.app import app
from loadgen.errors import UserError
from loadgen.report import report_data, write_report
from loadgen.report.summary import summary
from loadgen.runs.folder import RunFolder
from loadgen.scenario.model import Cell
from tests.loadgen.known_run import Truth, known_run

QWEN = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
    "torch_dtype": "bfloat16",
}
H200 = {"gpus": [{"name": "Imaginary H200", "driver": "1"}]}
FAST, SLOW = Truth(100.0), Truth(110.0)
SPEEDS = {
    "Imaginary H200": {
        "limit_tflops": 989.0,
        "limit_source": "a data sheet",
        "causal": {"128": {"float16": {"kernel": {"512": 300.0, "4096": 660.0}, "library": {"4096": 650.0}}}},
    }
}


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Speeds that stay what they are here."""
    monkeypatch.setattr(speeds, "_cards", lambda: SPEEDS)


def raced(
    runs: Path,
    launch: dict[str, Any] | None = None,
    truths: dict[str, Truth] | None = None,
    prompts: tuple[int, ...] = (512, 4096),
    facts: dict[str, Any] | None = None,
    **manifest: Any,
) -> RunFolder:
    return known_run(
        runs,
        "20261128-100000-known",
        truths=truths or {"one": FAST, "two": SLOW},
        cells=tuple(Cell(tokens, 8, 1) for tokens in prompts),
        requests=30,
        facts={"launch": {"model_config": QWEN} if launch is None else launch} | (facts or {}),
        manifest={"host": H200} | manifest,
    )


def told(folder: RunFolder) -> Any:
    """As JSON has it; without drawing a page."""
    return json.loads(json.dumps(summary(report_data(folder, prometheus_url=None))))["attention"]


def test_the_parts_by_hand(tmp_path):
    """2 x 2 x 28 x 28 x 128 x 4096^2 / 2 = 3.37e12 FLOPs: 5.1 ms at 660 TFLOP/s, 3.4 at 989; 1/64 of it at 512."""
    found = told(raced(tmp_path))
    short, long = found["rows"]
    assert (short["prompt_tokens"], long["prompt_tokens"]) == (512, 4096)
    assert long["flops"] == pytest.approx(3.37e12, rel=1e-3)
    assert long["measured_ms"] == pytest.approx(5.102, rel=1e-3)
    assert long["limit_ms"] == pytest.approx(3.405, rel=1e-3)
    assert short["measured_ms"] == pytest.approx(5.102 / 64 * 660 / 300, rel=1e-3)
    one = long["engines"]["one"]
    assert one["ttft_p50_ms"] == pytest.approx(100, rel=0.03)
    assert one["measured_share"] == pytest.approx(5.102 / one["ttft_p50_ms"], rel=1e-3)
    assert one["limit_share"] == pytest.approx(3.405 / one["ttft_p50_ms"], rel=1e-3)
    assert found["dtype"] == "float16"  # bfloat16 was not measured


def test_a_difference_beyond_attention(tmp_path):
    first, *rest = told(raced(tmp_path))["sentences"]
    assert first.startswith("At 4,096 tokens two takes ")
    assert "more than all of attention takes at the measured speed (5.10 ms)" in first
    assert first.endswith("of that speed or less in two.")
    # 10 ms or so at both lengths, where attention's part would be 64 times less
    assert len(rest) == 1 and rest[0].startswith("If attention made this difference, it would be 0.1")


def test_a_difference_within_attention(tmp_path):
    close = {"one": Truth(13.0, spread=0.01), "two": Truth(10.0, spread=0.01)}
    first = told(raced(tmp_path, truths=close))["sentences"][0]
    assert first.startswith("At 4,096 tokens one takes 3.0")
    assert "attention can explain it if it ran at about 63% of that speed in one" in first  # 5.1 / 8.1


def test_a_difference_that_may_be_chance(tmp_path):
    _, second, *_ = told(raced(tmp_path, truths={"one": FAST, "two": FAST}))["sentences"]
    assert second == "No verdict names a winner there: the difference may be chance, or too small to matter."


def test_pages_in_both_languages(tmp_path):
    folder = raced(tmp_path)
    for language, name, words in (
        ("en", "report", ("What attention alone takes of it", "989 TFLOP/s", "5.10")),
        ("zh", "report.zh", ("其中仅注意力所需的时间", "989 TFLOP/s", "5.10")),
    ):
        write_report(folder, prometheus_url=None, language=language)
        for page in (f"{name}.html", f"{name}.md"):
            text = (folder.path / page).read_text()
            assert all(word in text for word in words), page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"launch": {"argv": []}}, "`bakeoff report 20261128-100000-known --model-config config.json` adds it"),
        ({"launch": {"model_config": QWEN | {"hidden_size": 0}}}, "hidden_size must be"),
        ({"host": {"gpus": [{"name": "Imaginary 1"}]}}, "was not measured on Imaginary 1"),
        ({"host": {"gpus": [{"name": "A"}, {"name": "B"}]}}, "found: A and B"),
        ({"host": {"gpus": []}, "launch": {"host": "docker", "gpus": {"count": -1}}}, "found: none"),
    ],
)
def test_one_line_where_a_gpu_raced_and_something_is_not_known(tmp_path, change, words):
    found = told(raced(tmp_path, **change))
    assert words in found["missing"]
    assert found["rows"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"host": {"gpus": []}},
        {"launch": {"model_config": QWEN, "threads": 2}},
        {"launch": {"host": "docker", "gpus": {}, "model_config": QWEN}},
        {"facts": {"base_url": "http://10.1.2.3:8000"}},
        {"prompts": (4096,)},
    ],
)
def test_nothing_where_no_gpu_is_known_to_have_raced(tmp_path, change):
    assert told(raced(tmp_path, **change)) is None


def test_no_noise_where_no_gpu_raced(tmp_path):
    folder = raced(tmp_path, host={"gpus": []})
    write_report(folder, prometheus_url=None)
    for page in ("report.html", "report.md"):
        assert "attention alone" not in (folder.path / page).read_text()


def test_prompts_that_share_a_prefix(tmp_path):
    cells = tuple(Cell(tokens, 8, 1, shared_percent=50) for tokens in (512, 4096))
    folder = known_run(
        tmp_path, "shared", cells=cells, repeats=2, facts={"launch": {"model_config": QWEN}}, manifest={"host": H200}
    )
    assert "no whole, fresh prompts" in told(folder)["missing"]


def test_a_head_dimension_that_was_not_measured_and_two_cards(tmp_path):
    config = QWEN | {"head_dim": 256}
    scenario = {"serving": {"tensor_parallel_size": 2}}
    found = told(raced(tmp_path, launch={"model_config": config}, scenario=scenario))
    last = found["rows"][-1]
    assert last["measured_ms"] is None and last["limit_ms"] == pytest.approx(3.405, rel=1e-3)  # twice the work, halved
    assert last["engines"]["one"]["measured_share"] is None
    assert found["sentences"] == []
    assert any("only the card's limit" in sentence for sentence in found["basis"])
    assert "2 cards share the heads." in found["basis"]


def test_the_command_takes_a_config(tmp_path):
    folder = raced(tmp_path, launch={"argv": []})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(QWEN))
    done = CliRunner().invoke(app, ["report", str(folder.path), "--model-config", str(config), "--brief"])
    assert done.exit_code == 0, done.output
    assert json.loads((folder.path / "summary.json").read_text())["attention"]["rows"]
    config.write_text("{}")
    done = CliRunner().invoke(app, ["report", str(folder.path), "--model-config", str(config)])
    assert isinstance(done.exception, UserError)
    assert "config.json: num_hidden_layers must be" in str(done.exception)
