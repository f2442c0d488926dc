"""The report of whole runs, against an oracle, and its pages as a strict reader sees them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from loadgen.client.verdict import ClientVerdict
from loadgen.metrics.definitions import DEFINITIONS
from loadgen.report import ReportPaths, terminal_table, write_report
from loadgen.scenario.model import Cell
from tests.loadgen.known_run import Truth, known_run
from tests.loadgen.report.html_check import check
from tests.loadgen.report.oracle import figures
from tests.loadgen.report.synthetic_run import SyntheticRun


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    run = SyntheticRun(repeats=2, requests=20).add_all()
    folder = run.write(tmp_path_factory.mktemp("runs"))
    run.write_metrics(folder)
    return write_report(folder, prometheus_url=None)


def summary_of(paths: ReportPaths) -> dict[str, Any]:
    return json.loads(paths.summary.read_text(encoding="utf-8"))


def table_text(paths: ReportPaths, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal_table(paths.data))
    return console.file.getvalue()  # type: ignore[attr-defined]


def dig(tree: dict[str, Any], path: str) -> Any:
    for step in path.split("."):
        tree = tree[step]
    return tree


def test_summary_agrees_with_the_oracle_in_every_cell(complete: ReportPaths) -> None:
    document = summary_of(complete)
    assert document["schema_version"] == 3
    assert len(document["cells"]) == 6
    checked = 0
    for cell in document["cells"]:
        for engine, entry in cell["engines"].items():
            assert entry["status"] == "complete"
            blocks = [f"{engine}.{cell['id']}.r1", f"{engine}.{cell['id']}.r2"]
            assert sorted(entry["blocks"]) == blocks
            truth = figures(complete.summary.parent / "requests.jsonl", blocks, cell["concurrency"], 20)
            for key, value in truth.items():
                assert dig(entry["summary"], key) == pytest.approx(value, rel=1e-9), (cell["id"], engine, key)
                checked += 1
    assert checked == 6 * 2 * 17


def test_ratios_are_second_seat_over_first(complete: ReportPaths) -> None:
    for cell in summary_of(complete)["cells"]:
        first, second = (cell["engines"][e]["summary"] for e in ("llamacpp", "vllm"))
        ratios = cell["ratios"]["vllm"]
        assert ratios["to"] == "llamacpp"
        assert ratios["ttft_ms.p50"] == pytest.approx(second["ttft_ms"]["p50"] / first["ttft_ms"]["p50"])
        assert ratios["output_tokens_per_s"] == pytest.approx(
            second["output_tokens_per_s"] / first["output_tokens_per_s"]
        )


def test_every_plot_has_data_for_both_engines(complete: ReportPaths) -> None:
    page = check(complete.html.read_text(encoding="utf-8"))
    # 2 shapes x 3 figures, 6 cells x 2 distributions, 1 memory plot, 2 x 2 frontiers, 1 prefill, 3 drift, 3 differences
    assert len(page.svgs) == 2 * 3 + 6 * 2 + 1 + 2 * 2 + 1 + 3 + 3
    for ids in page.svgs:
        if any(name.startswith("diff") for name in ids):
            continue  # these show winners
        assert any("-e0" in name for name in ids) and any("-e1" in name for name in ids), ids[:5]
    loads = [ids for ids in page.svgs if any("-ttft-e0-c" in name for name in ids)]
    assert all(f"-c{c}" in " ".join(ids) for ids in loads for c in (1, 4, 8))


def test_page_holds_everything_a_reader_needs(complete: ReportPaths) -> None:
    page = check(complete.html.read_text(encoding="utf-8"))
    assert complete.data.manifest.run_id in page.text
    assert summary_of(complete)["basis"] in page.text
    for name, words in DEFINITIONS.items():
        assert name in page.text and words in page.text
    assert "bakeoff bench synthetic --seed 7" in page.text
    assert "0123456789abcdef0123456789abcdef01234567" in page.text
    assert "✓" in page.text and "≠" in page.text


def test_markdown_shows_its_pictures(complete: ReportPaths) -> None:
    text = complete.markdown.read_text(encoding="utf-8")
    pictures = sorted(path.name for path in (complete.markdown.parent / "report_files").iterdir())
    assert len(pictures) == 2 + 2 + 1 + 2 + 1 + 1 + 1
    for name in pictures:
        assert f"(report_files/{name})" in text
        assert (complete.markdown.parent / "report_files" / name).stat().st_size > 10_000
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_markdown_tables_keep_their_columns(complete: ReportPaths) -> None:
    block: list[int] = []
    for line in [*complete.markdown.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            block.append(line.replace("\\|", "").count("|"))
        else:
            assert len(set(block)) <= 1
            block = []


def test_the_same_run_gives_the_same_report(tmp_path: Path) -> None:
    folder = SyntheticRun(prompts=(64,), concurrencies=(1, 2), requests=5).add_all().write(tmp_path)
    paths = write_report(folder, prometheus_url=None)
    first = [path.read_bytes() for path in (paths.html, paths.markdown, paths.summary)]
    write_report(folder, prometheus_url=None)
    assert [path.read_bytes() for path in (paths.html, paths.markdown, paths.summary)] == first


@pytest.mark.parametrize("width", [80, 100, 140])
def test_terminal_table_never_cuts_a_figure(complete: ReportPaths, width: int) -> None:
    text = table_text(complete, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "llamacpp" in text and "vllm" in text and "ratio" in text


@pytest.mark.usefixtures("undrawn")
def test_names_are_whole_beside_fine_intervals_and_the_verdict_comes_last(tmp_path: Path) -> None:
    """Intervals of equal engines have three decimals: p95 gives way to them, not the engines' names."""
    fine = Truth(spread=0.005, block_spread=0.0005)
    run = known_run(tmp_path, "fine", truths={"alpha": fine, "beta": fine}, repeats=4)
    lines = table_text(write_report(run, prometheus_url=None)).splitlines()
    starts = [line.split()[0] for line in lines[:14] if line.strip()]
    assert {"beta", "ratio"} <= set(starts) and max(map(len, lines)) <= 80, lines[:14]
    assert any(line.split()[:4] == ["512", "×", "4", "alpha"] for line in lines)
    verdict = next(place for place, line in enumerate(lines) if line.startswith("No difference worth 2%"))
    assert lines[verdict - 1] == "" and len(lines) - verdict < 12


@pytest.mark.usefixtures("undrawn")
def test_parquet_is_made_when_missing_or_older(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all()
    folder = run.write(tmp_path)
    write_report(folder, prometheus_url=None)
    frame = pl.read_parquet(folder.parquet_path)
    assert frame["phase"].value_counts().filter(pl.col("phase") == "measure")["count"].to_list() == [8]
    before = folder.parquet_path.stat().st_mtime_ns
    write_report(folder, prometheus_url=None)
    assert folder.parquet_path.stat().st_mtime_ns == before

    folder.records_path.unlink()
    folder.manifest_path.touch()  # newer, as after a copy
    told = json.loads(write_report(folder, prometheus_url=None).summary.read_text())
    assert told["cells"][0]["engines"]["vllm"]["summary"]["requests"] == 4, (
        "a folder that was handed on with the parquet alone"
    )
    assert folder.parquet_path.stat().st_mtime_ns == before


@pytest.mark.usefixtures("undrawn")
def test_a_failed_block_is_shown_but_not_counted_when_another_attempt_completed(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(2,), requests=10)
    run.add_block("llamacpp", run.cells[0])
    run.add_block("vllm", run.cells[0], status="failed", reason="the engine died", stop_after=8)
    run.add_block("vllm", run.cells[0], attempt=2)
    run.end("complete")
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = summary_of(paths)
    entry = document["cells"][0]["engines"]["vllm"]
    assert entry["status"] == "complete"
    assert entry["blocks"] == [f"vllm.{run.cells[0].id}.r1.a2"]
    assert entry["summary"]["requests"] == 10
    assert [block["used"] for block in document["blocks"]] == [True, False, True]
    assert any("the engine died" in n["text"] and n["level"] == "info" for n in document["notices"])


def partial_run(tmp_path: Path) -> ReportPaths:
    run = SyntheticRun(requests=12)
    for cell in run.cells:
        run.add_block("llamacpp", cell)
    run.add_block("vllm", run.cells[0])
    run.add_block("vllm", run.cells[1], status="failed", reason="the engine died (signal 9)", stop_after=13)
    run.add_block("vllm", run.cells[2], status="running", stop_after=1)
    run.manifest.messages = ["worker w1 was lost"]
    run.end("interrupted")
    folder = run.write(tmp_path)
    with folder.records_path.open("a") as file:
        file.write('{"run_id": "torn')
    return write_report(folder, prometheus_url=None)


def test_a_partial_run_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    paths = partial_run(tmp_path)
    document = summary_of(paths)
    page = check(paths.html.read_text(encoding="utf-8"))
    status = {c["id"]: c["engines"]["vllm"]["status"] for c in document["cells"]}
    assert list(status.values()) == ["complete", "partial", "missing", "missing", "missing", "missing"]
    assert document["partial"] is True
    assert document["unreadable_lines"] == 1
    for words in ("interrupted", "signal 9", "marked partial", "never ran", "never ended", "worker w1", "torn"):
        assert words in page.text, words
    partial = document["cells"][1]
    assert partial["engines"]["vllm"]["summary"]["requests"] > 0
    assert set(partial["ratios"]["vllm"].values()) == {"llamacpp", None}
    assert partial["engines"]["vllm"]["summary"]["errors"] == {}, "requests that we aborted are not errors"
    assert "1 of 6 cells" in document["basis"]
    assert "vllm *" in table_text(paths)


def client(*, limited: bool) -> ClientVerdict:
    """A verdict as a manifest holds it."""
    worker = {"worker": "w1", "cpu_share": 0.987, "waiting_share": None, "read_lag_ms": {"p99": 7.31}}
    reasons = ("TTFT may be off by up to 8.1 ms (tolerance 1.0 ms)",) if limited else ()
    return ClientVerdict(limited, reasons, 8.1, 1.0, 0.004, requests=10, workers=(worker,))


@pytest.mark.usefixtures("undrawn")
def test_a_client_limited_cell_decides_nothing(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1, 4), requests=10)
    for cell in run.cells:
        for engine in run.engines:
            facts = run.add_block(engine, cell).facts
            facts.client = client(limited=engine == "vllm" and cell.concurrency == 4)
    run.end("complete")
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = summary_of(paths)
    assert [block["client"]["limited"] for block in document["blocks"]] == [False, False, False, True]
    good, bad = document["cells"]
    assert [bad["engines"][e]["client_limited"] for e in ("llamacpp", "vllm")] == [False, True]
    assert bad["engines"]["vllm"]["summary"]["requests"] == 10, "its figures are shown"
    assert set(bad["ratios"]["vllm"].values()) == {"llamacpp", None}
    assert None not in good["ratios"]["vllm"].values()
    assert "only 1 of 2 cells count" in document["basis"]
    assert all(tile["cells"] == 1 for tile in document["overall_ratios"].values())
    words = "is client-limited and decides nothing: TTFT may be off by up to 8.1 ms"
    page = check(paths.html.read_text(encoding="utf-8"))
    assert words in page.text and "1 of 4 blocks limited by the load generator" in page.text
    assert "98.7" in page.text and "7.31" in page.text
    text = paths.markdown.read_text()
    assert "vllm (client-limited)" in text and "| **client-limited** | 8.10 |" in text
    assert "vllm !" in table_text(paths) and "decides nothing" in table_text(paths)


@pytest.mark.usefixtures("undrawn")
def test_a_run_in_which_every_block_was_client_limited(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1, 2, 4), requests=5).add_all()
    for block in run.blocks:
        block.facts.client = client(limited=True)
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = summary_of(paths)
    assert "Nothing can be compared" in document["headline"]["sentence"] and document["overall_ratios"] == {}
    text = paths.markdown.read_text()
    assert text.count("is client-limited and decides nothing") == 3
    assert "3 blocks more of 6 are client-limited. See “Validity”." in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("told", [None, {}, {"limited": True}])
def test_a_block_without_a_readable_verdict_is_not_judged(tmp_path: Path, told: dict[str, Any] | None) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=5).add_all()
    folder = run.write(tmp_path)
    manifest = json.loads(folder.manifest_path.read_text())
    manifest["blocks"][0]["client"] = told
    folder.manifest_path.write_text(json.dumps(manifest))
    document = summary_of(write_report(folder, prometheus_url=None))
    assert [block["client"] for block in document["blocks"]] == [None, None]
    assert not document["cells"][0]["engines"]["llamacpp"]["client_limited"]


def test_what_was_not_measured_is_a_dash_and_null(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(2,), requests=6)
    run.add_block("llamacpp", run.cells[0])
    run.add_block("vllm", run.cells[0], error=("http_503", "overloaded"), error_share=1.0)
    run.end("complete")
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    entry = summary_of(paths)["cells"][0]["engines"]["vllm"]["summary"]
    assert entry["errors"] == {"http_503": 6}
    assert entry["ttft_ms"]["p50"] is None and entry["tokens_per_event"] is None
    page = check(paths.html.read_text(encoding="utf-8"))
    assert "overloaded" in page.text
    assert "No cell was completed by both engines" in page.text or "nothing can be compared" in page.text


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{1}{0}$ `x` | ]](https://evil.example) -->"


def test_text_from_outside_is_harmless(tmp_path: Path) -> None:
    run = SyntheticRun(engines=["a", "b"], prompts=(64,), concurrencies=(1, 2), requests=6)
    run.add_block("a", run.cells[0])
    run.add_block("b", run.cells[0], error=(HOSTILE, HOSTILE), error_share=0.5)
    run.add_block("b", run.cells[1], status="failed", reason=HOSTILE + "\x1b[31m", stop_after=7)
    for engine in run.manifest.engines:  # their names have no such letters
        engine.version, engine.model = HOSTILE, HOSTILE
    run.manifest.messages = [HOSTILE, "\x1b[31m red"]
    run.manifest.scenario |= {"name": HOSTILE, "question": HOSTILE}
    run.manifest.command = ["bench", HOSTILE]
    run.end("failed")
    folder = run.write(tmp_path)
    run.write_metrics(folder)
    paths = write_report(folder, prometheus_url=None)
    page = check(paths.html.read_text(encoding="utf-8"))
    assert HOSTILE in page.text
    tokens = MarkdownIt("commonmark").enable("table").parse(paths.markdown.read_text())
    flat = [token for outer in tokens for token in [outer, *(outer.children or [])]]
    kinds = {token.type for token in flat}
    assert "table_open" in kinds and "image" in kinds
    assert not kinds & {"html_block", "html_inline", "link_open"}
    assert all(str(t.attrs["src"]).startswith("report_files/") for t in flat if t.type == "image")
    assert "\x1b" not in table_text(paths)


ODD: dict[str, SyntheticRun] = {}


def odd(name: str) -> SyntheticRun:
    """Build one of the odd runs."""
    if name == "one engine":
        return SyntheticRun(engines=["solo"], requests=8).add_all()
    if name == "three engines, one concurrency":
        return SyntheticRun(engines=["llamacpp", "vllm", "ksana"], concurrencies=(4,), requests=8).add_all()
    if name == "eight engines":
        engines = [f"engine-{i}" for i in range(8)]
        return SyntheticRun(engines=engines, prompts=(64,), concurrencies=(1, 2), requests=4).add_all()
    if name == "one request":
        return SyntheticRun(prompts=(64,), concurrencies=(1,), requests=1).add_all()
    if name == "one token":
        return SyntheticRun(prompts=(1,), outputs=(1,), concurrencies=(1, 3), requests=5).add_all()
    if name == "two output lengths":
        return SyntheticRun(prompts=(64,), outputs=(16, 128), concurrencies=(1, 64), requests=70).add_all()
    run = SyntheticRun(requests=6)
    if name == "blocks without records":
        run.add_block("llamacpp", run.cells[0], status="running", stop_after=0)
    if name == "still running":
        run.add_block("llamacpp", run.cells[0])
        return run
    if name == "unknown scenario":
        run.manifest.scenario = {"prompt_tokens": "many"}
        run.manifest.engines, run.manifest.parity = [], []
        run.add_block("llamacpp", run.cells[0])
    if name == "strange cell id":
        run.add_block("llamacpp", "by-hand")
        run.add_block("vllm", "by-hand")
    if name == "web ui":
        run = SyntheticRun(engines=["vllm"], source="web-ui", requests=10)
        block = run.add_block("vllm", Cell(100, 20, 3))
        block.facts.measured_requests = None
        run.add_block("vllm", Cell(100, 20, 3), repeat=2, status="interrupted", stop_after=9)
    run.end("complete")
    return run


@pytest.mark.parametrize(
    "name",
    [
        "one engine",
        "three engines, one concurrency",
        "eight engines",
        "one request",
        "one token",
        "two output lengths",
        "nothing",
        "blocks without records",
        "still running",
        "unknown scenario",
        "strange cell id",
        "web ui",
    ],
)
def test_odd_runs_render(name: str, tmp_path: Path) -> None:
    run = odd(name)
    folder = run.write(tmp_path)
    if name != "nothing":
        run.write_metrics(folder)
    paths = write_report(folder, prometheus_url=None)
    page = check(paths.html.read_text(encoding="utf-8"))
    document = summary_of(paths)
    assert document["headline"]["sentence"] in page.text
    assert document["headline"]["sentence"].endswith(".")
    assert table_text(paths, 80) and table_text(paths, 160)
    assert "nan" not in paths.summary.read_text().lower().replace("finance", "")
    if name == "nothing":
        assert "Nothing was measured" in document["headline"]["sentence"]
    if name == "web ui":
        assert "by hand" in page.text and "never ran" not in page.text
    if name == "one engine":
        assert "nothing is compared" in document["headline"]["sentence"]


def test_records_file_missing_altogether(tmp_path: Path) -> None:
    run = SyntheticRun(requests=4)
    run.end("failed")
    folder = run.write(tmp_path)
    folder.records_path.unlink()
    assert "Nothing was measured" in summary_of(write_report(folder, prometheus_url=None))["headline"]["sentence"]


def test_sizes_stay_small_with_many_requests(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(512, 1024, 2048, 4096), outputs=(8,), concurrencies=(1, 4, 8, 16), requests=300)
    folder = run.add_all().write(tmp_path)
    paths = write_report(folder, prometheus_url=None)
    check(paths.html.read_text(encoding="utf-8"))
    assert paths.html.stat().st_size < 1_500_000
