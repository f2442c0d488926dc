"""What is not known, was not compared or cannot be read is told as that, and as nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from loadgen.client.verdict import ClientVerdict
from loadgen.presentation.language import CHINESE
from loadgen.report import report_data, write_report
from loadgen.report.headline import notices
from loadgen.runs.manifest import ParityFact
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import SyntheticRun


def small(repeats: int = 1) -> SyntheticRun:
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=6, repeats=repeats).add_all()
    run.end("complete")
    return run


def finding(name: str, verdict: Any, *values: str) -> ParityFact:
    told = dict(zip(("llamacpp", "vllm"), values, strict=True))
    return ParityFact(check=name, equal=verdict == "equal", detail="", values=told, name=name, verdict=verdict)


@pytest.mark.parametrize("verdict", ["unknown", "noted"])
def test_what_could_not_be_told_is_not_called_unequal(tmp_path: Path, verdict: str) -> None:
    """Manifests of before there was a verdict for it say `noted`."""
    run = small()
    run.manifest.parity = [
        finding("prefix-caching", verdict, "cannot tell (not answered)", "off (0 of 257)"),
        finding("context-length", verdict, "not told", "not told"),
        finding("top-p", "noted", "honoured", "ignored"),
        finding("seed", "noted", "honoured", "cannot tell"),
        finding("usage", "equal", "finish event", "finish event"),
    ]
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = json.loads(paths.summary.read_text())
    rows = {row["check"]: (row["equal"], row["unknown"]) for row in document["fairness"]}
    assert rows["prefix-caching"] == rows["context-length"] == rows["seed"] == (None, True)
    assert (rows["top-p"], rows["usage"]) == ((False, False), (True, False))
    (notice,) = (n["text"] for n in document["notices"] if "not equal" in n["text"])
    assert "top-p" in notice and "prefix" not in notice and "context" not in notice and "seed" not in notice
    lines = paths.markdown.read_text(encoding="utf-8").splitlines()
    signs = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in lines if line.startswith("| ")}
    assert [signs[name] for name in ("prefix-caching", "top-p", "usage")] == ["?", "≠", "✓"]


def test_a_race_limited_by_the_load_generator_was_measured_all_the_same(tmp_path: Path) -> None:
    run = small(repeats=2)
    for facts in run.manifest.blocks:
        facts.client = ClientVerdict(True, ("its core was busy",), 8.1, 1.0, 0.004, requests=6)
    text = check(write_report(run.write(tmp_path), prometheus_url=None).html.read_text(encoding="utf-8")).text
    assert "client-limited: nothing is compared" in text and "nothing was measured" not in text


def test_a_line_that_was_edited_is_told_by_its_number(tmp_path: Path) -> None:
    folder = small().write(tmp_path)
    lines = folder.records_path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {"output_tokens": "many"})
    lines[4] = lines[4].replace(":", ";")
    folder.records_path.write_text("\n".join(lines) + '\n{"run_id": "torn')
    paths = write_report(folder, prometheus_url=None)
    document = json.loads(paths.summary.read_text())
    assert document["unreadable_lines"] == 3
    told = {notice["level"]: notice["text"] for notice in document["notices"] if "requests.jsonl" in notice["text"]}
    assert '3 (output_tokens is "many", not a whole number) and 5 (it is not JSON)' in told["bad"]
    assert "torn by a crash" in told["warn"] and f": {len(lines) + 1}." in told["warn"]
    assert pl.read_parquet(folder.parquet_path).height == len(lines) - 2
    chinese = write_report(folder, prometheus_url=None, language="zh").html.read_text(encoding="utf-8")
    assert "第 3 行（output_tokens 为 &#34;many&#34;，不是整数）" in chinese


def test_one_repeat_that_is_left_is_told_with_what_took_the_others(tmp_path: Path) -> None:
    """Not as if there had been one repeat only; and an attempt that another made up for is no block of its own."""
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=6, repeats=2)
    run.add_block("llamacpp", run.cells[0], repeat=1, status="interrupted", stop_after=3)
    run.add_block("llamacpp", run.cells[0], repeat=1, attempt=2)
    run.add_block("vllm", run.cells[0], repeat=1)
    for engine in ("vllm", "llamacpp"):
        block = run.add_block(engine, run.cells[0], repeat=2)
        block.facts.client = ClientVerdict(True, ("its core was busy",), 8.1, 1.0, 0.004, requests=6)
    run.end("complete")
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = json.loads(paths.summary.read_text())
    assert document["headline"]["sentence"] == (
        "Not decided between llamacpp and vllm: one repeat counts, and one alone cannot tell a difference from drift. "
        "Of the others 2 blocks decide nothing, because the load generator was the limit."
    )
    assert "in 2 of 4 blocks" in " ".join(fact["text"] for fact in document["headline"]["facts"])
    text = check(paths.html.read_text(encoding="utf-8")).text
    assert "4 blocks, 3 in the figures; 5 attempts" in text or "4 blocks, 4 in the figures; 5 attempts" in text
    assert "it was interrupted" not in text and "repeats: 4" not in text


def test_who_interrupted_a_block_is_told_in_chinese_of_older_runs_too(tmp_path: Path) -> None:
    run = SyntheticRun(requests=4)
    run.add_block("llamacpp", run.cells[0], status="interrupted", reason="interrupted by the user", stop_after=0)
    run.end("interrupted")
    told = [CHINESE.shown(notice.text) for notice in notices(report_data(run.write(tmp_path), prometheus_url=None))]
    assert any("被用户中断" in text for text in told) and not any("by the user" in text for text in told)
