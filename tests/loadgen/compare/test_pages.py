"""What the pages of a comparison hold beside its table: the report's plots, drift, goodput, and another language."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadgen.compare.comparison import compare_runs
from loadgen.compare.page import write_comparison
from loadgen.compare.sides import load_sides
from loadgen.compare.terminal import show_comparison
from loadgen.gate.terminal import show_decisions
from loadgen.presentation.language import CHINESE
from loadgen.presentation.locale.__main__ import extracted
from loadgen.runs.folder import RunFolder
from loadgen.scenario.model import Cell
from loadgen.scenario.threshold import parse_threshold
from tests.loadgen.known_run import MS, Truth, known_run
from tests.loadgen.report.html_check import Page

CELLS = (Cell(512, 8, 2), Cell(512, 8, 4))
SLO = {"ttft_ms": 85, "percentile": 95}


def scenario(slo: dict[str, Any] | None) -> dict[str, Any]:
    known = {"name": "known", "question": "Is the truth found?", "prompt_tokens": [512], "output_tokens": [8]}
    return {**known, "load": {"concurrency": [2, 4]}, "requests": 40, "repeats": 3, "slo": slo}


def runs(folder: Path, slo_a: dict[str, Any] | None, slo_b: dict[str, Any] | None) -> tuple[RunFolder, RunFolder]:
    made = []
    for name, slo in (("a", slo_a), ("b", slo_b)):
        told = {"scenario": scenario(slo)}
        made.append(known_run(folder, name, Truth(), cells=CELLS, repeats=3, requests=40, manifest=told))
    return made[0], made[1]


def test_goodput_is_there_where_both_runs_have_an_slo(tmp_path: Path) -> None:
    a, b = load_sides(*runs(tmp_path, {"ttft_ms": 1, "percentile": 95}, SLO), None, None)
    comparison = compare_runs(a, b)
    met: dict[str, list[bool]] = {"A vllm": [], "B vllm": []}
    for letter in ("a", "b"):
        for line in (tmp_path / letter / "requests.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["cell"] == CELLS[0].id and record["index"] > 0:
                met[f"{letter.upper()} vllm"].append(record["t_first"] - record["t_intended"] <= 85 * MS)
    for engine, entry in comparison.report.cells[0].engines.items():
        assert entry.summary is not None and entry.summary.slo is not None
        share = entry.summary.slo.met_share
        assert share == pytest.approx(sum(met[engine]) / len(met[engine]), abs=0.1), "both are held against B's"
        low, high = entry.intervals["slo.met_share"]
        assert share is not None and 0 <= low <= share <= high <= 1
        low, high = entry.intervals["slo.goodput_per_s"]
        assert entry.summary.slo.goodput_per_s is not None and low <= entry.summary.slo.goodput_per_s <= high
    assert any(row.what == "scenario: slo" for row in comparison.differences)
    a, b = load_sides(*runs(tmp_path / "one", None, SLO), None, None)
    assert compare_runs(a, b).report.slo is None


def test_each_runs_own_drift_is_told(tmp_path: Path) -> None:
    steady, other = runs(tmp_path, None, None)
    # From block to block B takes longer to its first token, in the last one of a cell 60%.
    blocks = sorted(other.load().manifest.blocks, key=lambda block: block.started_at)
    last = blocks[-1]
    own = [block.record_id for block in blocks if block.cell == last.cell]
    lines = [json.loads(line) for line in other.records_path.read_text().splitlines()]
    for record in lines:
        if record["block"] in own:
            slower = 0.6 * own.index(record["block"]) / (len(own) - 1)
            late = int(slower * (record["t_first"] - record["t_send"]))
            for name in ("t_first", "t_last", "t_done"):
                record[name] += late
            record["event_offsets_ns"] = [offset + late for offset in record["event_offsets_ns"]]
    other.records_path.write_text("".join(json.dumps(record) + "\n" for record in lines))
    comparison = compare_runs(*load_sides(steady, other, None, None))
    moved = {cell.id: cell.metrics["ttft_ms.p50"].drift.moved for cell in comparison.statistics.cells if cell.metrics}
    assert moved[last.cell] == ["b"]
    drift = next(c for c in comparison.statistics.cells if c.id == last.cell).metrics["ttft_ms.p50"].drift
    assert drift is not None and drift.b.estimate == pytest.approx(1.6, abs=0.15) and drift.trend is None
    page = Page(write_comparison(comparison, tmp_path / "out").read_text(encoding="utf-8"))
    assert "TTFT p50 of B vllm moved by +" in page.text and "Nothing tells a drift between the two runs" in page.text
    assert "TTFT p50 of B vllm moved by +" in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")


def test_pages_and_terminal_in_chinese(tmp_path: Path) -> None:
    a, b = load_sides(*runs(tmp_path, SLO, SLO), None, None)
    comparison = compare_runs(a, b, thresholds=[parse_threshold("ttft.p95 > +5%")])
    page = write_comparison(comparison, tmp_path / "out", "zh")
    assert page.name == "compare.zh.html" and (tmp_path / "out" / "compare_files.zh" / "drift.png").is_file()
    terminal = Console(width=160, file=io.StringIO())
    show_comparison(terminal, comparison, CHINESE)
    show_decisions(terminal, comparison.decisions, CHINESE)
    made = "Bakeoff 运行对比", "阈值", "漂移", "有效吞吐", "两次运行", "B vllm 对比 A vllm"
    for text, expected in (
        (Page(page.read_text(encoding="utf-8")).text, made),
        ((tmp_path / "out/compare.zh.md").read_text("utf-8"), made),
        (terminal.file.getvalue(), ("引擎", "置信区间", "比值", "更快", "并发", "阈值", "尚无定论")),
    ):
        for words in expected:
            assert words in text, words
        for english in filter(lambda sentence: isinstance(sentence, str), extracted()):
            if len(english) > 25 and "{" not in english and "`" not in english:
                assert english not in text, english
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["headline"]["sentence"].startswith(("No difference", "Not decided")), "data is English"
