"""Goodput, and the share of requests that met the SLO: figures, intervals and a verdict that is no headline."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from loadgen.compare.comparison import compare_runs
from loadgen.compare.sides import load_sides
from loadgen.presentation.style import EQUAL, LOOKS, OPEN
from loadgen.presentation.text import interval, ratio_interval
from loadgen.report import ReportPaths, terminal_table, write_report
from loadgen.report.table import TerminalTable
from loadgen.scenario.model import Cell
from loadgen.statistics.metrics import GOODPUT
from tests.loadgen.known_run import Truth, known_run

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "statistics.schema.json"
LIMIT_MS = 85.0
TRUTHS = {"vllm": Truth(ttft_ms=80.0), "ksana": Truth(ttft_ms=88.0)}


def scenario(limit_ms: float | None) -> dict[str, Any]:
    told = {"name": "known", "question": "Is the truth found?", "prompt_tokens": [512], "output_tokens": [8]}
    told |= {"load": {"concurrency": [4]}, "requests": 200, "warmup_requests": 1, "repeats": 4}
    return told if limit_ms is None else told | {"slo": {"ttft_ms": limit_ms, "percentile": 95.0}}


def reported(folder: Path, limit_ms: float | None) -> ReportPaths:
    told = {"scenario": scenario(limit_ms)}
    return write_report(known_run(folder, "run", truths=TRUTHS, repeats=4, manifest=told), prometheus_url=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    return reported(tmp_path_factory.mktemp("runs"), LIMIT_MS)


def test_the_table_fits_80_columns(made: ReportPaths) -> None:
    file = io.StringIO()
    Console(width=80, file=file).print(TerminalTable(made.data).cells(80))
    lines = file.getvalue().splitlines()
    heads = "\n".join(lines[:4])
    for word in ("prompt", "users", "engine", "TTFT", "goodput", "err."):
        assert word in heads, heads
    assert any(line.strip().startswith("ratio ") for line in lines)


def document(paths: ReportPaths) -> dict[str, Any]:
    return json.loads(paths.summary.read_text(encoding="utf-8"))


def met_share(truth: Truth) -> float:
    """The true one: of a lognormal TTFT below the limit."""
    return 0.5 * (1 + math.erf(math.log(LIMIT_MS / truth.ttft_ms) / truth.spread / math.sqrt(2)))


def rate(truth: Truth) -> float:
    """Requests a second of one user: TTFT (its mean), 7 gaps, the end of the stream and a pause."""
    factor = math.exp(truth.spread**2 / 2)
    return 1000 / (factor * (truth.ttft_ms + 7 * truth.tpot_ms) + 1.1)


def test_the_true_ratio_of_goodput_is_within_its_interval_and_no_headline(made: ReportPaths) -> None:
    (found,) = document(made)["statistics"]
    jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    metric = found["cells"][0]["metrics"][GOODPUT.key]
    a, b = TRUTHS.values()
    truth = met_share(b) * rate(b) / (met_share(a) * rate(a))
    low, high = metric["ratio"]["ci95"]
    assert low < truth < high < 0.6
    assert (metric["verdict"], metric["better"], metric["unit"]) == ("a", "higher", "req/s")
    assert metric["headline"] is False and metric["p_adjusted"] is None
    assert found["overall"][GOODPUT.key]["verdict"] == "a"
    for side, own in (("a", a), ("b", b)):
        low, high = metric[side]["ci95"]
        assert low < 4 * met_share(own) * rate(own) < high


def test_goodput_joins_no_family_and_changes_no_other_verdict(made: ReportPaths, tmp_path: Path) -> None:
    (found,) = document(made)["statistics"]
    (plain,) = document(reported(tmp_path, None))["statistics"]
    for where in (found["overall"], found["cells"][0]["metrics"]):
        del where[GOODPUT.key]
    assert found == plain


def test_without_a_miss_goodput_is_the_rate_of_requests(tmp_path: Path) -> None:
    metrics = document(reported(tmp_path, 1e6))["statistics"][0]["cells"][0]["metrics"]
    for key in ("a", "b", "ratio", "difference", "p_value"):
        assert metrics[GOODPUT.key][key] == metrics["requests_per_s"][key]


def test_each_engine_has_both_intervals_in_every_form(made: ReportPaths) -> None:
    told = document(made)
    entries = told["cells"][0]["engines"]
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    console.print(terminal_table(made.data))
    shown = (
        made.html.read_text(encoding="utf-8"),
        made.markdown.read_text(encoding="utf-8"),
        console.file.getvalue(),  # type: ignore[attr-defined]
    )
    compared = told["statistics"][0]["cells"][0]["metrics"][GOODPUT.key]
    for side, engine in (("a", "vllm"), ("b", "ksana")):
        own, slo = entries[engine]["ci95"], entries[engine]["summary"]["slo"]
        assert own[GOODPUT.key] == pytest.approx(compared[side]["ci95"])
        assert slo["goodput_per_s"] == pytest.approx(compared[side]["estimate"])
        low, high = own["slo.met_share"]
        assert 0 <= low < met_share(TRUTHS[engine]) < high <= 1
        assert low < slo["met_share"] < high
        for text in shown:
            assert interval(tuple(own[GOODPUT.key])) in text
            assert interval((100 * low, 100 * high)) in text


def test_no_request_met_it(tmp_path: Path) -> None:
    """A rate of 0 has neither interval nor ratio; the share has its interval all the same."""
    told = document(reported(tmp_path, 0.001))
    metric = told["statistics"][0]["cells"][0]["metrics"][GOODPUT.key]
    assert (metric["a"], metric["verdict"], metric["reason"]) == (
        {"estimate": 0.0, "ci95": None},
        "invalid",
        "not_positive",
    )
    low, high = told["cells"][0]["engines"]["vllm"]["ci95"]["slo.met_share"]
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 800), rel=1e-6)


def test_two_runs_have_it_where_both_have_an_slo(tmp_path: Path) -> None:
    runs = [
        known_run(tmp_path, name, truth, cells=(Cell(512, 8, 4),), repeats=4, manifest={"scenario": scenario(LIMIT_MS)})
        for name, truth in zip("ab", TRUTHS.values(), strict=True)
    ]
    metric = compare_runs(*load_sides(*runs, None, None)).statistics.cells[0].metrics[GOODPUT.key]
    a, b = TRUTHS.values()
    assert metric.ratio is not None and metric.ratio.ci95 is not None
    assert metric.ratio.ci95[0] < met_share(b) * rate(b) / (met_share(a) * rate(a)) < metric.ratio.ci95[1]
    assert (metric.verdict, metric.headline) == ("a", False)


def test_only_ratios_of_headline_metrics_have_a_mark(made: ReportPaths) -> None:
    """TTFT p95 and goodput are 10% and more apart, and no winner is named: among many such, some are by chance."""
    metrics = document(made)["statistics"][0]["cells"][0]["metrics"]
    keys = [column.key for column in made.data.columns]
    (row,) = [line for line in made.markdown.read_text(encoding="utf-8").splitlines() if "*ksana ÷ vllm*" in line]
    columns = dict(zip(keys, row.split(" |")[2:], strict=False))
    glyph = LOOKS[made.data.look("vllm")].glyph
    for key in ("ttft_ms.p50", "ttft_ms.p95", GOODPUT.key):
        assert metrics[key]["verdict"] == "a"
        assert (glyph in columns[key]) == metrics[key]["headline"], key
        assert ratio_interval(tuple(metrics[key]["ratio"]["ci95"])) in columns[key]
    html = made.html.read_text(encoding="utf-8").partition('<tr class="ratio">')[2].partition("</tr>")[0]
    figures = dict(zip(keys, html.split("<td")[1:], strict=False))
    assert glyph in figures["ttft_ms.p50"] and "is faster" in figures["ttft_ms.p50"]
    assert glyph not in figures["ttft_ms.p95"] and "is faster" not in figures["ttft_ms.p95"]
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(terminal_table(made.data))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    ratios = next(line for line in text.splitlines() if line.split()[:1] == ["ratio"])
    headlines = {key for key in keys if key in metrics and metrics[key]["headline"]}
    signs = sum(ratios.count(sign) for sign in (glyph, LOOKS[made.data.look("ksana")].glyph, EQUAL, OPEN))
    assert signs == len(headlines) == 3
    for told in (text.replace("\n", " "), made.html.read_text(), made.markdown.read_text()):
        assert "Only headline metrics name who is faster" in told
