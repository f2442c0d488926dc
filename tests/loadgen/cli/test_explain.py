"""`bakeoff explain` on run folders: what it prints, in which width and language, and what it says of bad ones."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from loadgen.cli.app import app
from loadgen.errors import UserError
from loadgen.monitoring.engine_samples import SAMPLES_FILE, BlockSamples, append_samples
from tests.loadgen.report.synthetic_run import SyntheticRun


def explain(*words: object) -> str:
    done = CliRunner().invoke(app, ["explain", *map(str, words)], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def folder(tmp_path):
    """A run whose first engine preempts in each block; the other one's figures were not read."""
    run = SyntheticRun(
        engines=["vllm", "ksana"], prompts=(64,), outputs=(8,), concurrencies=(1, 2), requests=5
    ).add_all()
    made = run.write(tmp_path)
    for block in run.blocks:
        if block.facts.engine == "vllm":
            at = block.facts.started_at
            rows = [(at - 1, {"recomputed": 4.0}), ((block.facts.ended_at or at) + 1, {"recomputed": 7.0})]
            append_samples(made.path / SAMPLES_FILE, BlockSamples(block.facts.record_id, rows))
    return made


def test_it_tells_each_engine_with_evidence_and_page(folder):
    text = explain(folder.path)
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.strip() for line in text.splitlines()]
    assert lines[lines.index("vllm") + 1] == "Preemption"
    assert "explained in docs/engines/vllm.md#when-blocks-run-out" in lines
    whole = " ".join(lines)
    for users in ("1 user", "2 users"):
        cell = f"64 prompt tokens, 8 output tokens, {users}"
        assert f"{cell}: 3 requests were preempted and computed again (blocks: 1 of 1)" in whole
    assert "Nothing of what is known shows in its requests" in " ".join(lines[lines.index("ksana") :])


def test_the_newest_run_is_the_default_and_chinese_names_chinese_pages(folder):
    text = explain("--runs-dir", folder.path.parent, "--lang", "zh")
    assert "抢占" in text and "docs/engines/vllm.zh.md" in text


def test_json_has_the_evidence_as_data(folder, tmp_path):
    explain(folder.path, "--json", tmp_path / "found.json")
    told = json.loads((tmp_path / "found.json").read_text())
    vllm, ksana = told["engines"]
    assert (vllm["blocks"], vllm["blocks_with_figures"], ksana["blocks_with_figures"]) == (2, 2, 0)
    (found,) = vllm["findings"]
    assert (found["mechanism"], [place["figures"] for place in found["cells"]]) == (
        "preemption",
        [{"recomputed": 3.0}] * 2,
    )


def test_bad_folders_are_told_in_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="There is no run 'nowhere'"):
        explain("nowhere", "--runs-dir", tmp_path)
    empty = tmp_path / "empty"
    shutil.copytree(folder.path, empty)
    (empty / "requests.jsonl").write_text("")
    with pytest.raises(UserError, match="nothing was measured"):
        explain(empty)
    (empty / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="not a readable manifest"):
        explain(empty)
    (folder.path / SAMPLES_FILE).write_text('{"block": "torn')
    assert "its own figures were not read" in " ".join(explain(folder.path).split())
