"""How answers ended: counted by finish reason and kind of failure, told loudly only where it is a mix."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from loadgen.metrics.endings import Endings
from loadgen.presentation.language import CHINESE
from loadgen.report import ReportData, report_data, terminal_table, write_report
from loadgen.report.headline import notices
from loadgen.report.summary import summary
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import SyntheticRun

TEXTS = [
    (Endings(20, {"length": 20}, {}), "length 100%", "", False),
    (
        Endings(20, {"length": 18, "stop": 2}, {"output_tokens": 2}),
        "length 18 (90%), stop 2 (10%)",
        "output_tokens 2 (10%)",
        True,
    ),
    (Endings(5000, {"stop": 4999, "abort": 1}, {}), "stop 4,999 (> 99.9%), abort 1 (< 0.1%)", "", False),
    (
        Endings(7, {f"r{n}": 1 for n in range(7)}, {}),
        "r0 1 (14%), r1 1 (14%), r2 1 (14%), r3 1 (14%), r4 1 (14%), … 2 (29%)",
        "",
        True,
    ),
    (Endings(4, {}, {"connect": 4}), "", "connect 100%", False),
    (Endings(0, {}, {}), "", "", False),
]


@pytest.mark.parametrize("place", range(len(TEXTS)))
def test_endings_in_words(place: int) -> None:
    endings, reasons, failed, mixed = TEXTS[place]
    assert (endings.reasons_text, endings.failed_text, endings.mixed) == (reasons, failed, mixed)


def terminal_text(data: ReportData) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(terminal_table(data))
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def small(**more: tuple[int, ...]) -> SyntheticRun:
    return SyntheticRun(**{"prompts": (64,), "concurrencies": (1,), **more}, requests=20).add_all()


def test_one_way_for_each_engine_is_one_quiet_line(tmp_path: Path) -> None:
    """An engine may have a word of its own for it, as KsanaLLM says `stop` at the limit too."""
    run = small()
    for block in run.blocks:
        for record in block.records:
            record.finish_reason = "stop" if block.facts.engine == "vllm" else "length"
    data = report_data(run.write(tmp_path), prometheus_url=None)
    assert "Finish reasons: llamacpp length 100%; vllm stop 100%" in terminal_text(data)
    document = summary(data)
    assert not [notice for notice in document["notices"] if "Finish" in notice["text"]]
    assert [(row["engine"], row["cell"], row["finish_reasons"]) for row in document["endings"]] == [
        ("llamacpp", None, {"length": 20}),
        ("vllm", None, {"stop": 20}),
    ]


def test_a_mix_is_a_notice_and_has_rows_of_the_cells_that_differ(tmp_path: Path) -> None:
    run = small(concurrencies=(1, 4))
    for block in run.blocks:
        if block.facts.engine == "vllm" and "c004" in block.facts.cell:
            for n, record in enumerate(block.records):
                record.finish_reason = "stop" if n % 2 else "length"
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document, markdown = json.loads(paths.summary.read_text()), paths.markdown.read_text("utf-8")
    page = check(paths.html.read_text(encoding="utf-8")).text
    (notice,) = (found for found in notices(paths.data) if "Finish" in found.text)
    assert notice.level == "warn" and "vllm length 30 (75%), stop 10 (25%)" in notice.text
    assert notice.text in page and notice.text in terminal_text(paths.data)
    assert CHINESE.shown(notice.text).startswith("引擎所报的结束原因：llamacpp 达到长度上限 (length) 100%")
    cell = run.cells[1].id
    assert [(row["engine"], row["cell"]) for row in document["endings"]] == [
        ("llamacpp", None),
        ("vllm", None),
        ("llamacpp", cell),
        ("vllm", cell),
    ]
    assert "| vllm | all | 40 | length 30 (75%), stop 10 (25%) |" in markdown


def test_kinds_of_failures_stand_beside_them(tmp_path: Path) -> None:
    run = SyntheticRun(engines=["vllm"], prompts=(64,), concurrencies=(1,), requests=20)
    run.add_block("vllm", run.cells[0], error=("finish_abort", "the server aborted the answer"), error_share=0.5)
    run.end("complete")
    (row,) = report_data(run.write(tmp_path), prometheus_url=None).endings
    found = row.endings
    assert found.failed.keys() == {"finish_abort"}
    assert found.failed["finish_abort"] + found.finish_reasons["length"] == found.requests == 20
