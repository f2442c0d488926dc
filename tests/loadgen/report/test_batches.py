"""A run of batches as it is told (report, summary, thresholds, exports), against a plain look at its records."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from loadgen.export.llm_d import llm_d_report
from loadgen.export.vllm import vllm_result
from loadgen.gate.cases import read_thresholds, run_cases
from loadgen.presentation.text import cell_words
from loadgen.report import report_data, terminal_table, write_report
from loadgen.report.summary import summary
from loadgen.runs.folder import RunFolder
from loadgen.scenario.cell import Cell
from tests.loadgen.known_run import Truth, known_run

BATCH, REPEATS = 4, 3
CELLS = (Cell(512, 8, 0, batch=BATCH), Cell(512, 8, 0, batch=1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    truths = {"a": Truth(), "b": Truth(ttft_ms=160)}
    folder = known_run(
        tmp_path_factory.mktemp("runs"), "batches", truths=truths, cells=CELLS, repeats=REPEATS, requests=30
    )
    return folder


def plain_batches(folder: RunFolder, engine: str, cell: Cell) -> np.ndarray:
    """First, last first token and latency of each measured batch in ms, by a plain look at the records."""
    blocks: dict[tuple[str, int], list[dict]] = {}
    for line in folder.records_path.read_text().splitlines():
        record = json.loads(line)
        if record["engine"] == engine and record["cell"] == cell.id and record["index"] >= 1:
            blocks.setdefault((record["block"], record["index"]), []).append(record)
    rows = []
    for own in blocks.values():
        assert len(own) == cell.batch
        sent = min(r["t_send"] for r in own)
        firsts = [r["t_first"] - sent for r in own]
        rows.append((min(firsts), max(firsts), max(r["t_last"] for r in own) - sent))
    return np.array(rows) / 1e6


def test_the_summary_has_the_figures_of_the_batches(run: RunFolder) -> None:
    told = summary(report_data(run, prometheus_url=None))
    cells = {cell["id"]: cell for cell in told["cells"]}
    assert set(cells) == {"p0512-o0008-b001", "p0512-o0008-b004"}
    for cell in CELLS:
        entry = cells[cell.id]
        assert (entry["batch"], entry["concurrency"], entry["rate"]) == (cell.batch, None, None)
        for engine in "ab":
            found = entry["engines"][engine]
            plain = plain_batches(run, engine, cell)
            assert found["summary"]["batches"]["latency_ms"]["count"] == len(plain)
            for place, name in enumerate(("ttft_first_ms", "ttft_last_ms", "latency_ms")):
                p50 = float(np.median(plain[:, place]))
                assert found["summary"]["batches"][name]["p50"] == pytest.approx(p50)
                low, high = found["ci95"][f"batches.{name}.p50"]
                assert low < p50 < high
            seconds = plain[:, 2].sum() / 1e3
            assert found["summary"]["window_s"] == pytest.approx(seconds)
            assert found["summary"]["output_tokens_per_s"] == pytest.approx(len(plain) * cell.batch * 8 / seconds)


def test_requests_were_rounded_up_to_whole_batches(run: RunFolder) -> None:
    data = run.load()
    assert {block.facts.cell: len(block.measured) for block in data.blocks} == {CELLS[0].id: 32, CELLS[1].id: 30}


def test_the_report_shows_batches_and_says_which_traffic_its_ttft_is_of(run: RunFolder) -> None:
    data = report_data(run, prometheus_url=None)
    paths = write_report(run, prometheus_url=None)
    for path in (paths.html, paths.markdown):
        text = path.read_text(encoding="utf-8")
        assert "sent at the same instant and wait for each other" in text
        assert "last of a batch" in text
        assert "batch size" in text
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_table(data))
    shown = console.export_text()
    assert "batch" in shown
    assert "latency" in shown
    assert cell_words(CELLS[0].id) == "512 prompt tokens, 8 output tokens, batch 4"


def test_thresholds_look_at_batches(run: RunFolder) -> None:
    data = run.load()
    texts = ["batch_latency.mean > +5%", "batch_ttft_last.p50 > 100ms", "batch_ttft_first.p50 < -1%"]
    cases = run_cases(read_thresholds(texts), data)
    changes = {case.cell: case.quantity.estimate for case in cases if str(case.threshold) == texts[0]}
    for cell in CELLS:
        a, b = (plain_batches(run, engine, cell)[:, 2].mean() for engine in "ab")
        assert changes[cell.id] == pytest.approx(100 * (b / a - 1))
    limits = [case for case in cases if str(case.threshold) == texts[1] and case.engine == "a"]
    assert {case.cell for case in limits} == {cell.id for cell in CELLS}
    for case in limits:
        cell = Cell.parse(case.cell)
        assert case.quantity.estimate == pytest.approx(np.median(plain_batches(run, "a", cell)[:, 1]))


def test_exports_tell_of_batches(run: RunFolder) -> None:
    data = run.load()
    block = next(block for block in data.blocks if block.facts.cell == CELLS[0].id)
    told = vllm_result(data.manifest, block, detailed=False, client_limited=False)
    assert told["max_concurrency"] == BATCH
    assert told["total_output_tokens"] / told["duration"] == pytest.approx(told["output_throughput"])
    assert told["bakeoff_batch_latency_ms"] > told["bakeoff_batch_ttft_last_ms"] > told["bakeoff_batch_ttft_first_ms"]
    other = llm_d_report(data.manifest, block, client_limited=False)
    assert other["scenario"]["load"]["standardized"]["concurrency"] == BATCH
    assert other["results"]["observability"]["bakeoff_batches"]["latency_ms"]["count"] == 8
    rate = other["results"]["request_performance"]["aggregate"]["throughput"]["request_rate"]["mean"]
    assert rate * float(other["run"]["time"]["duration"][2:-1]) == pytest.approx(8 * BATCH)
