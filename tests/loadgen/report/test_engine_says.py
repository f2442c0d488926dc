"""What the report makes of the engines' own figures: each rule, the mark of warm caches, nothing without readings."""

from __future__ import annotations

import dataclasses
import json

import pytest

from loadgen.monitoring.engine_figures import EngineFigures
from loadgen.monitoring.engine_samples import SAMPLES_FILE, BlockSamples, append_samples
from loadgen.report import write_report
from loadgen.report.engine_says import _why, in_common
from loadgen.runs.folder import RunFolder
from loadgen.runs.resume import scenario_of
from loadgen.scenario.cell import Cell
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import SyntheticRun

CELL = Cell(512, 64, 4)
QUIET = EngineFigures(
    seconds=10.0,
    ttft_ms=100.0,
    client_ttft_ms=101.0,
    residual_ms=1.0,
    queue_ms=3.0,
    waiting=0.1,
    running=4.0,
    kv_used_peak=0.5,
    prefix_hits=0.0,
    preemptions=0.0,
    swaps=0.0,
    output_tokens=1000.0,
    client_output_tokens=1000.0,
)
EXPLAINS = "its own TTFT explains the client's"


def why(shown: list[str] | None = None, restarted: bool = False, **changed: float | None) -> list[str]:
    return [*_why(dataclasses.replace(QUIET, **changed), CELL, shown or [], restarted)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, EXPLAINS),
        ({"residual_ms": None}, None),
        ({"residual_ms": 10.2}, "10.2 ms of the client's TTFT are not in its own"),
        ({"residual_ms": -10.2}, "its own TTFT is 10.2 ms above the client's"),
        ({"client_ttft_ms": 10.0, "residual_ms": 1.9}, EXPLAINS),
    ],
)
def test_whether_its_own_ttft_explains_the_clients(changed, said):
    assert [words.startswith(said) for words in why(**changed)] == ([True] if said else [])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output_tokens": 1257.0}, "it made 1,257 tokens while the client got 1,000: others used it too"),
        ({"output_tokens": 1256.0}, None),
        ({"restarted": True}, "it was started anew meanwhile, so that its counters tell nothing"),
        ({"shown": ["its KV cache was 97% full"]}, "its KV cache was 97% full"),
    ],
)
def test_each_rule_of_why(changed, said):
    found = [words for words in why(**changed) if words != EXPLAINS]
    assert [words.startswith(said) for words in found] == ([True] if said else []), found


def readings(run: SyntheticRun, folder: RunFolder, engine: str, hits: float) -> None:
    """A page a second of an engine whose prefix cache has this share of the prompts, in each of its blocks."""
    for block in run.blocks:
        if block.facts.engine == engine:
            first, last = block.facts.started_at - 1, (block.facts.ended_at or 0) + 1
            rows = []
            for second in range(round(last - first) + 1):
                tokens = {"queries": 100.0 * second, "hits": 100.0 * hits * second, "output_tokens": 50.0 * second}
                rows.append(
                    (first + second, tokens | {"ttft_s": 2.0 * second, "ttft_n": 10.0 * second, "kv_used": 0.97})
                )
            append_samples(folder.path / SAMPLES_FILE, BlockSamples(block.facts.record_id, rows))


@pytest.fixture
def warm(tmp_path, undrawn):
    """A run of two engines, one of them with warm caches, and its report."""
    run = SyntheticRun(prompts=(64,), outputs=(8,), concurrencies=(1, 2), requests=10, repeats=2).add_all()
    folder = run.write(tmp_path)
    readings(run, folder, "vllm", 0.0)
    readings(run, folder, "llamacpp", 0.8)
    return write_report(folder, prometheus_url=None), write_report(folder, prometheus_url=None, language="zh")


def test_blocks_with_warm_caches_are_marked(warm):
    paths, chinese = warm
    summary = json.loads(paths.summary.read_text())
    told = [(each["engine"], each["hits"], each["allowed"]) for each in summary["warm_blocks"]]
    assert told == [("llamacpp", pytest.approx(0.8), 0.0)] * 4
    text = [notice["text"] for notice in summary["notices"] if "cold caches" in notice["text"]]
    assert len(text) == 4
    assert text[0].startswith(
        "llamacpp at 64 prompt tokens, 8 output tokens, 1 user (repeat 1) did not meet cold caches"
    )
    page = paths.html.read_text()
    check(page)
    assert page.count('<span class="pill bad">caches not cold</span>') == 2
    assert "caches not cold" in paths.markdown.read_text()
    check(chinese.html.read_text())
    assert "非冷缓存" in chinese.html.read_text()


def test_the_mechanisms_that_show_are_in_a_section_of_their_own(warm):
    paths, chinese = warm
    summary = json.loads(paths.summary.read_text())
    told = {one["engine"]: one for one in summary["mechanisms"]}
    assert told.keys() == {"vllm", "llamacpp"}
    (full,) = told["vllm"]["findings"]
    assert (full["mechanism"], full["page"]) == ("kv_cache_full", "docs/engines/vllm.md#when-blocks-run-out")
    assert [(place["cell"], place["of"], place["figures"]) for place in full["cells"]] == [
        (cell, 2, {"kv_used_peak": pytest.approx(0.97)}) for cell in ("p0064-o0008-c001", "p0064-o0008-c002")
    ]
    page = paths.html.read_text()
    section = page.partition('id="mechanisms"')[2].partition("</section>")[0]
    assert "<details>" in section and "KV cache full" in section and full["page"] in section
    assert "its KV cache was 97% full (blocks: 2 of 2)" in section
    assert "its KV cache was 97% full" in paths.markdown.read_text().partition("## Known mechanisms that show")[2]
    assert "KV 缓存已满" in chinese.html.read_text() and "docs/engines/vllm.zh.md" in chinese.html.read_text()


def test_figures_are_in_the_summary_by_cell_and_by_block(warm):
    summary = json.loads(warm[0].summary.read_text())
    assert [(row["cell"], row["engine"]) for row in summary["engine_figures"]] == [
        (cell, engine) for cell in ("p0064-o0008-c001", "p0064-o0008-c002") for engine in ("llamacpp", "vllm")
    ]
    row = summary["engine_figures"][1]
    assert row["blocks"] == 2 and row["ttft_ms"] == pytest.approx(200)
    assert row["why"][0] == {
        "text": "its KV cache was 97% full",
        "code": "its KV cache was {share} full",
        "values": {"share": "97%"},
    }
    assert {block["engine_figures"]["kv_used_peak"] for block in summary["blocks"]} == {0.97}
    markdown = warm[0].markdown.read_text()
    table = markdown.partition("## What the engines say of themselves")[2].partition("## Cells")[0]
    assert "own TTFT (ms)" in table and "GPU" not in table


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_before_there_were_readings_has_no_table(tmp_path):
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=5).add_all()
    folder = run.write(tmp_path)
    (folder.path / SAMPLES_FILE).write_text('{"block": "nobody\'s", "names": [], "rows": []}\n{"torn')
    paths = write_report(folder, prometheus_url=None)
    summary = json.loads(paths.summary.read_text())
    assert (summary["engine_figures"], summary["warm_blocks"]) == ([], [])
    assert all(block["engine_figures"] is None for block in summary["blocks"])
    text = paths.html.read_text() + paths.markdown.read_text()
    assert "engines say" not in text
    assert "Nothing of what is known shows in its requests; its own figures were not read." in text


def test_what_prompts_have_in_common():
    run = SyntheticRun()
    manifest, scenario = run.manifest, scenario_of(run.manifest)
    assert in_common("p0512-o0064-c001", "vllm", manifest, scenario) == 0
    assert in_common("p0512-o0064-c001-s50", "vllm", manifest, scenario) == 0.5
    run.manifest.engines[1].prompts["overhead_tokens"] = 32
    assert in_common("p0512-o0064-c001-s50", "vllm", manifest, scenario) == 0.5625
    assert in_common("p0512-o0064-c001-t01234567", "vllm", manifest, scenario) is None
    assert in_common("not a cell", "vllm", manifest, scenario) is None
