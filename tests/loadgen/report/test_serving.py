"""The table of serving settings on the fairness page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadgen.engines import ksana, vllm
from loadgen.engines.serving import SETTINGS, block_facts
from loadgen.report import ReportPaths, write_report
from loadgen.runs.manifest import ParityFact
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import SyntheticRun

pytestmark = pytest.mark.usefixtures("undrawn")
ASKED: dict[str, Any] = {"max_batch_size": 128, "prefix_caching": False, "seed": 3, "gpu_memory_fraction": 0.9}
MADE = {"vllm": block_facts(vllm.translate(ASKED)), "ksana": block_facts(ksana.translate(ASKED))}


def report(folder: Path, asked: dict[str, Any] | None, made: dict[str, Any]) -> ReportPaths:
    run = SyntheticRun(engines=["vllm", "ksana"], concurrencies=(1,), prompts=(512,), requests=5)
    run.manifest.scenario["serving"] = asked
    for facts in run.manifest.engines:
        if facts.name in made:
            facts.launch["serving"] = made[facts.name]
    return write_report(run.add_all().write(folder), prometheus_url=None)


def test_every_setting_is_shown_with_each_engines_own_name_and_what_became_of_it(tmp_path):
    paths = report(tmp_path, ASKED, MADE)
    rows = {row["setting"]: row for row in json.loads(paths.summary.read_text())["serving"]}
    assert set(rows) == set(SETTINGS)
    assert list(rows)[:4] == ["max_batch_size", "gpu_memory_fraction", "prefix_caching", "seed"]
    batch = rows["max_batch_size"]
    assert (batch["asked"], batch["same"]) == ("128", True)
    assert batch["values"]["vllm"]["told"] == "--max-num-seqs 128"
    assert batch["values"]["ksana"]["told"] == "setting.batch_scheduler.max_batch_size: 128"
    assert rows["prefix_caching"]["values"]["vllm"]["told"] == "--no-enable-prefix-caching"
    assert rows["seed"]["same"] is False and rows["seed"]["values"]["ksana"]["outcome"] == "not honoured"
    assert rows["dtype"]["same"] is None and "default" in rows["dtype"]["values"]["vllm"]["note"]

    html, markdown = paths.html.read_text(), paths.markdown.read_text()
    check(html)
    assert "Serving settings" in html and "Serving settings" in markdown
    for row in rows.values():
        assert row["setting"] in html
        for value in row["values"].values():
            assert value["note"].split("'")[0] in html
    assert "--max-num-seqs 128" in html and "`--max-num-seqs 128`" in markdown
    assert "serving setting seed" in html
    assert "launch: serving" not in html


def test_engines_that_someone_else_set_up_are_not_claimed_to_be_equal(tmp_path):
    paths = report(tmp_path, ASKED, {"vllm": MADE["vllm"]})
    rows = {row["setting"]: row for row in json.loads(paths.summary.read_text())["serving"]}
    assert rows["max_batch_size"]["same"] is None
    assert "not known" in rows["max_batch_size"]["values"]["ksana"]["note"]


def test_a_record_that_makes_no_sense_counts_as_none(tmp_path):
    for broken in ("text", [1, {"setting": "seed"}], [{"value": {}}]):
        report(tmp_path / str(len(str(broken))), ASKED, {"vllm": broken})


def test_without_a_block_there_is_no_table(tmp_path):
    for number, asked in enumerate((None, {}, {"seed": None}, "text")):
        paths = report(tmp_path / str(number), asked, {})  # type: ignore[arg-type]
        assert "Serving settings" not in paths.html.read_text()
        assert "Serving settings" not in paths.markdown.read_text()


def test_what_the_scenario_sets_apart_is_the_question_and_no_unfairness(tmp_path):
    run = SyntheticRun(engines=["cached", "eager"], concurrencies=(1,), prompts=(512,), requests=5)
    run.manifest.scenario |= {
        "serving": {"cuda_graphs": True, "prefix_caching": True, "seed": 3},
        "variants": {
            "cached": {"engine": "vllm", "serving": {}},
            "eager": {"engine": "vllm", "serving": {"cuda_graphs": False, "prefix_caching": False}},
        },
    }
    run.manifest.parity = [
        ParityFact(
            check=name, name=name, equal=False, detail="d", values={"cached": "a", "eager": "b"}, verdict="noted"
        )
        for name in ("prefix-caching", "usage")
    ]
    for facts in run.manifest.engines:
        asked = {"cuda_graphs": facts.name == "cached", "prefix_caching": facts.name == "cached", "seed": 3}
        facts.launch |= {"seat": "vllm", "serving": block_facts(vllm.translate(asked))}
    paths = write_report(run.add_all().write(tmp_path), prometheus_url=None)
    document = json.loads(paths.summary.read_text())
    rows = {row["setting"]: row for row in document["serving"]}
    assert list(rows)[:3] == ["prefix_caching", "cuda_graphs", "seed"]
    assert [row["question"] for row in rows.values()] == [True, True] + [False] * (len(rows) - 2)
    graphs = rows["cuda_graphs"]
    assert (graphs["asked"], graphs["same"]) == ("cached: true, eager: false", None)
    assert "cudagraph_mode" in graphs["values"]["eager"]["told"]
    assert rows["seed"]["same"] is True
    fairness = {row["check"]: row for row in document["fairness"]}
    assert fairness["prefix-caching"]["equal"] is None and "on purpose" in fairness["prefix-caching"]["detail"]
    assert fairness["usage"]["equal"] is False
    for text in (paths.html.read_text(), paths.markdown.read_text()):
        assert "A/B" in text and "serving setting cuda" not in text
