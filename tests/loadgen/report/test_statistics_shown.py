"""The statistics as the report shows them, and what it says where they decide nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from loadgen.analysis.prefill import PrefillFit
from loadgen.analysis.samples import _STATUS
from loadgen.presentation.headline import headline as headline_of
from loadgen.presentation.language import CHINESE
from loadgen.presentation.style import PAPER
from loadgen.presentation.text import interval, p_value, ratio_interval, short_ids
from loadgen.report import ReportPaths, terminal_table, write_report
from loadgen.report.headline import headline
from loadgen.report.page import fixed_text, prefill_rows
from loadgen.report.plots_compare import draw_differences, drift_points
from loadgen.report.verdicts import verdict_tables
from loadgen.statistics.words import metric_words
from tests.loadgen.report.html_check import check
from tests.loadgen.report.oracle import figures
from tests.loadgen.report.synthetic_run import SyntheticRun

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "statistics.schema.json"
T3 = 3.182446305284263
"""Student's t, 97.5%, 3 degrees of freedom (any table)."""


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    run = SyntheticRun(prompts=(256,), concurrencies=(1, 4), requests=15, repeats=4).add_all()
    return write_report(run.write(tmp_path_factory.mktemp("runs")), prometheus_url=None)


def summary_of(paths: ReportPaths) -> dict[str, Any]:
    return json.loads(paths.summary.read_text(encoding="utf-8"))


def test_summary_holds_the_statistics_of_the_schema(four: ReportPaths) -> None:
    found = summary_of(four)["statistics"]
    assert len(found) == 1
    jsonschema.validate(found[0], json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert (found[0]["a"], found[0]["b"]) == ("llamacpp", "vllm")


def test_ratio_and_interval_of_the_mean_tpot_by_the_oracle(four: ReportPaths) -> None:
    document = summary_of(four)
    records = four.summary.parent / "requests.jsonl"
    for cell in document["cells"]:
        logs = []
        for repeat in range(1, 5):
            means = [
                figures(records, [f"{engine}.{cell['id']}.r{repeat}"], cell["concurrency"], 15)["tpot_ms.mean"]
                for engine in ("llamacpp", "vllm")
            ]
            logs.append(math.log(means[1] / means[0]))
        reach = T3 * statistics.stdev(logs) / 2
        own = next(one for one in document["statistics"][0]["cells"] if one["id"] == cell["id"])["metrics"][
            "tpot_ms.mean"
        ]
        middle = math.log(own["ratio"]["estimate"])
        # The pooled mean of equal blocks is the mean of their means, its logarithm nearly the mean of their logarithms.
        assert middle == pytest.approx(statistics.fmean(logs), abs=1e-3)
        low, high = map(math.log, own["ratio"]["ci95"])
        assert high - low == pytest.approx(2 * reach, rel=0.05)
        assert cell["ratios"]["vllm"]["tpot_ms.mean"] == pytest.approx(own["ratio"]["estimate"])


def test_an_engine_has_the_same_interval_alone_and_compared(four: ReportPaths) -> None:
    document = summary_of(four)
    checked = 0
    for cell in document["statistics"][0]["cells"]:
        entries = next(view for view in document["cells"] if view["id"] == cell["id"])["engines"]
        for key, metric in cell["metrics"].items():
            for side, engine in (("a", "llamacpp"), ("b", "vllm")):
                assert entries[engine]["ci95"][key] == pytest.approx(metric[side]["ci95"])
                checked += 1
    assert checked == 2 * 14 * 2


def test_the_verdict_comes_first(four: ReportPaths) -> None:
    document = summary_of(four)
    found = four.data.comparisons[0]
    told = headline(four.data)
    assert document["headline"] == json.loads(json.dumps(told.as_json()))
    page = check(four.html.read_text(encoding="utf-8"))
    places = [
        page.text.index(text) for text in (told.sentence, *told.facts, "How vllm differs", "Verdicts", "Figures by")
    ]
    assert places == sorted(places), "the headline, its facts, the plot of differences, the table"
    assert f"Holm's correction over {found.family} comparisons" in page.text
    tile = document["overall_ratios"]["tpot_ms.mean"]
    assert tile["geometric_mean"] == pytest.approx(found.overall["tpot_ms.mean"].ratio.estimate)  # type: ignore[union-attr]
    ratios = [cell["ratios"]["vllm"]["tpot_ms.mean"] for cell in document["cells"]]
    assert tile["geometric_mean"] == pytest.approx(math.prod(ratios) ** 0.5)
    assert (tile["min"], tile["max"]) == (pytest.approx(min(ratios)), pytest.approx(max(ratios)))


def test_difference_plot_marks_winners(four: ReportPaths) -> None:
    page = check(four.html.read_text(encoding="utf-8"))
    drawn = [ids for ids in page.svgs if any(name.startswith("diff1-") for name in ids)]
    assert len(drawn) == 3
    tpot = four.data.comparisons[0].overall["tpot_ms.mean"]
    winner = {"a": "e0", "b": "e1"}.get(tpot.verdict, tpot.verdict)
    assert f"diff1-1-{winner}-0" in drawn[1]


def test_a_narrow_page_begins_with_the_metric_of_the_headline(four: ReportPaths) -> None:
    source = four.html.read_text(encoding="utf-8")
    found = four.data.comparisons[0]
    keys = list(found.settings.headline)
    wanted = next((key for key in keys if found.overall[key].verdict == found.verdict), keys[0])
    first = re.findall(r'<figure class="first">.*?<g id="(diff1-\d)', source, flags=re.DOTALL)
    assert first == [f"diff1-{keys.index(wanted)}"]
    sentence = headline(four.data).sentence
    if found.verdict in ("a", "b"):
        assert str(metric_words(wanted)) in sentence


def test_a_narrow_page_begins_with_what_lacks_least_where_nothing_is_decided(four: ReportPaths) -> None:
    found = four.data.comparisons[0]
    for least, key in enumerate(found.settings.headline):
        overall = {
            name: found.overall[name].model_copy(
                update={"verdict": "undecided", "further_repeats": 1 if name == key else 5}
            )
            for name in found.settings.headline
        }
        undecided = found.model_copy(update={"verdict": "undecided", "reason": "scatter", "overall": overall})
        (table,) = verdict_tables(dataclasses.replace(four.data, comparisons=[undecided]))
        assert table.first == least
        assert metric_words(key) in headline_of(undecided).sentence


def test_an_interval_that_is_cut_ends_in_an_arrow(four: ReportPaths) -> None:
    found = four.data.comparisons[0]
    cell, key = found.cells[0], "tpot_ms.mean"
    judged = cell.metrics[key]
    assert judged.ratio is not None
    for factor in (1.0, 1e3):
        ends = (judged.ratio.estimate / 1.001, judged.ratio.estimate * factor * 1.001)
        wide = judged.model_copy(update={"ratio": judged.ratio.model_copy(update={"ci95": ends})})
        other = found.model_copy(
            update={"cells": [cell.model_copy(update={"metrics": cell.metrics | {key: wide}}), *found.cells[1:]]}
        )
        axes = Figure().add_subplot()
        draw_differences(axes, four.data, other, key, PAPER, "x")
        arrows = [line for line in axes.lines if line.get_marker() in ("<", ">")]
        # TPOT is better where it is lower, so a ratio without an end reaches far to the left.
        assert [line.get_marker() for line in arrows] == (["<"] if factor > 1 else [])
        edge = axes.get_xlim()[0]
        assert all(edge <= line.get_xdata()[0] < 0.95 * edge for line in arrows)  # type: ignore[index]
        assert list(axes.get_xticks(minor=True)) == pytest.approx([-math.log(1.02), math.log(1.02)])


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_shows_intervals_and_marks(four: ReportPaths, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal_table(four.data))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    judged = four.data.comparisons[0].cells[0].metrics["tpot_ms.mean"]
    assert judged.ratio is not None
    assert ratio_interval(judged.ratio.ci95, fine=False) in text
    assert any("256" in line and "llamacpp" in line for line in text.splitlines())
    assert "is faster" in text and "undecided" in text
    assert headline(four.data).sentence.split(":")[0] in " ".join(text.split())
    assert any(line.strip().startswith("all cells") and "±" in line for line in text.splitlines())


def test_one_repeat_decides_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1, 2), requests=30).add_all()
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = summary_of(paths)
    assert document["statistics"][0]["reason"] == "one_repeat"
    text = document["headline"]["sentence"]
    assert text.startswith("Not decided between llamacpp and vllm") and "`repeats: 4`" in text
    assert document["cells"][0]["engines"]["vllm"]["ci95"]["tpot_ms.mean"], "the scatter within the block"
    page = check(paths.html.read_text(encoding="utf-8"))
    assert "decide nothing: set `repeats: 4`" in page.text
    assert "nothing can be said about drift" in page.text


def test_an_undecided_run_says_with_which_command_it_goes_on(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(256,), concurrencies=(1,), requests=5).add_all()
    run.manifest.resume = "bakeoff bench --resume runs/x"
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    command = "bakeoff bench --resume runs/x --repeats 4"
    assert summary_of(paths)["headline"]["following"]["text"] == f"To go on to 4 repeats: `{command}`"
    assert command in paths.html.read_text(encoding="utf-8") and command in paths.markdown.read_text(encoding="utf-8")


def test_one_engine_has_intervals_and_no_statistics(tmp_path: Path) -> None:
    run = SyntheticRun(engines=["solo"], prompts=(64,), concurrencies=(1,), requests=8, repeats=3).add_all()
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = summary_of(paths)
    assert document["statistics"] == [] and document["basis"] is None
    low, high = document["cells"][0]["engines"]["solo"]["ci95"]["ttft_ms.p50"]
    assert low < document["cells"][0]["engines"]["solo"]["summary"]["ttft_ms"]["p50"] < high
    assert "Validity" not in check(paths.html.read_text(encoding="utf-8")).text


def test_three_engines_are_compared_with_the_first(tmp_path: Path) -> None:
    engines = ["llamacpp", "vllm", "ksana"]
    run = SyntheticRun(engines=engines, prompts=(64,), concurrencies=(2,), requests=8, repeats=2).add_all()
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    document = summary_of(paths)
    assert [(one["a"], one["b"]) for one in document["statistics"]] == [("llamacpp", "vllm"), ("llamacpp", "ksana")]
    assert all(engine in document["headline"]["sentence"] for engine in engines)
    page = check(paths.html.read_text(encoding="utf-8"))
    assert "How vllm differs from llamacpp" in page.text and "How ksana differs from llamacpp" in page.text


def test_blocks_that_decide_nothing_are_listed(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(2,), requests=10, repeats=2)
    for repeat in (1, 2):
        run.add_block("llamacpp", run.cells[0], repeat=repeat)
        bad = {"error": ("http_503", "busy"), "error_share": 1.0} if repeat == 2 else {}
        run.add_block("vllm", run.cells[0], repeat=repeat, **bad)  # type: ignore[arg-type]
    run.end("complete")
    paths = write_report(run.write(tmp_path), prometheus_url=None)
    page = check(paths.html.read_text(encoding="utf-8"))
    assert "10 of 10 requests failed" in page.text
    assert "the other engine has no valid block of this repeat" in page.text
    assert "10 of 10 requests failed" in paths.markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_reasons_of_the_statistics_are_known_in_chinese(status: str) -> None:
    reason = _STATUS[status]  # type: ignore[index]
    assert CHINESE.shown(reason) != reason


def test_drift_points_are_relative_to_the_engine_and_cell(four: ReportPaths) -> None:
    points = drift_points(four.data, "vllm", "tpot_ms.mean")
    assert len(points) == 2 * 4
    by_cell: dict[str, list[float]] = {}
    for block, value in points:
        by_cell.setdefault(block.rpartition(".")[0], []).append(value)
    assert all(np.prod(values) == pytest.approx(1.0) for values in by_cell.values())


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        (None, ""),
        ((1.234, 1.567), "1.23–1.57"),
        ((12012.4, 13914.0), "12,012–13,914"),
        ((9.99, 10.01), "9.99–10.01"),
        ((0.0, 0.0), "0–0"),
        ((1.0, math.inf), ""),
    ],
)
def test_intervals_as_text(ends: tuple[float, float] | None, text: str) -> None:
    assert interval(ends) == text


def test_ratios_and_p_values_as_text() -> None:
    assert ratio_interval((0.951, 0.9592)) == "0.951–0.959"
    assert ratio_interval((0.951, 0.9592), fine=False) == "0.95–0.96"
    assert ratio_interval((0.01, 12.5)) == "0.0100–12.5"
    assert [p_value(p) for p in (None, 0.0001, 0.0123, 0.26)] == ["–", "< 0.001", "0.012", "0.26"]


def test_no_end_of_an_interval_looks_like_its_ratio() -> None:
    assert ratio_interval((0.976, 0.984), fine=False) == "0.98–0.98"
    assert ratio_interval((0.976, 0.984), fine=False, of=0.98) == "0.976–0.984"
    assert ratio_interval((0.9976, 1.02), of=1.0) == "0.998–1.020"
    assert ratio_interval((0.95, 1.06), of=1.0) == "0.95–1.06"


def test_ids_are_cut() -> None:
    assert short_ids(f"sha256:{'ab' * 32} of vllm") == "sha256:abababababab… of vllm"
    assert short_ids("commit c451219") == "commit c451219"


@pytest.mark.parametrize(
    ("fixed", "ends", "said"),
    [
        (546.0, (-364.0, 1456.0), ("at most 1,456, maybe none", "")),
        (12.0, (11.0, 13.1), ("12.0", "11.0–13.1")),
        (-20.0, (-30.0, -10.0), ("none found", "")),
        (12.0, None, ("12.0", "")),
    ],
)
def test_a_fixed_time_that_may_be_none_is_said_in_words(fixed, ends, said) -> None:
    values = np.array([1.0, 2.0])
    fit = PrefillFit("a", 1.0, values, values, fixed, ends, 0.1, 1e4, None, None, 2)
    assert fixed_text(fit) == said[0]
    (row,) = prefill_rows(SimpleNamespace(prefill=[fit], look=lambda _: 0))
    assert (row["fixed"], row["fixed_interval"]) == said
