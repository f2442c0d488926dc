"""What a search for capacity and an SLO look like in each form of the report."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from loadgen.report import report_data, terminal_table, write_report
from tests.loadgen.bench.test_capacity_campaign import Capacity
from tests.loadgen.report.synthetic_run import SyntheticRun


@pytest.fixture
def searched(tmp_path, monkeypatch):
    race = Capacity(tmp_path, monkeypatch, {"a": 11.0, "b": 3.0})
    race.campaign.run()
    return race.folder


def test_a_search_in_every_form(searched):
    paths = write_report(searched, prometheus_url=None)
    summary = json.loads(paths.summary.read_text())
    assert summary["slo"] == {"ttft_ms": 100.0, "tpot_ms": None, "e2e_ms": None, "percentile": 90.0}
    rows = {row["engine"]: row for row in summary["capacity"]}
    for engine, truth in (("a", 11.0), ("b", 3.0)):
        found = rows[engine]["found"]
        assert found["low"] <= truth < found["high"]
        assert found["low"] <= found["load"] <= found["high"]
        assert rows[engine]["of"] == "rate"
    # Loads that only one engine was asked for are nothing that is missing.
    assert summary["partial"] is False
    assert not [notice for notice in summary["notices"] if "never ran" in notice["text"]]
    assert "90% of the requests with TTFT <= 100 ms: a 1" in summary["headline"]["sentence"]
    console = Console(width=100, record=True)
    console.print(terminal_table(report_data(searched, prometheus_url=None)))
    for text in (paths.html.read_text(), paths.markdown.read_text(), console.export_text()):
        assert "capacity" in text.lower()
        assert text.count("req/s") >= 2
    assert "## Capacity" in paths.markdown.read_text()


@pytest.mark.usefixtures("undrawn")
def test_goodput_is_shown_where_there_is_an_slo(tmp_path):
    run = SyntheticRun().add_all()
    plain = write_report(run.write(tmp_path / "plain"), prometheus_url=None)
    assert "goodput (req/s)" not in plain.markdown.read_text()
    assert json.loads(plain.summary.read_text())["cells"][0]["engines"]["vllm"]["summary"]["slo"] is None
    run.manifest.scenario["slo"] = {"ttft_ms": 1e6, "percentile": 95.0}
    made = write_report(run.write(tmp_path / "with"), prometheus_url=None)
    assert "goodput (req/s)" in made.markdown.read_text()
    cell = json.loads(made.summary.read_text())["cells"][0]
    entry = cell["engines"]["vllm"]["summary"]
    assert entry["slo"]["goodput_per_s"] == pytest.approx(entry["requests_per_s"]), "so mild an SLO is always met"
    assert (entry["slo"]["met_share"], entry["slo"]["holds"]) == (1.0, True)
    assert cell["ratios"]["vllm"]["slo.goodput_per_s"] > 0
