"""A run that ended before its first block: interrupted in preflight, say."""

from __future__ import annotations

import pytest

from loadgen.client.verdict import ClientVerdict
from loadgen.presentation.text import DASH
from loadgen.report import write_report
from loadgen.report.columns import COLUMNS
from loadgen.report.headline import headline
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import Manifest
from loadgen.scenario.model import Scenario
from tests.loadgen.bench.races import SCENARIO
from tests.loadgen.report.synthetic_run import SyntheticRun


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_a_run_without_a_block_has_a_report(tmp_path, status):
    scenario = Scenario.model_validate(SCENARIO).model_dump(mode="json")
    folder = RunFolder.create(tmp_path, Manifest(run_id="r", started_at=1.0, status=status, scenario=scenario))
    paths = write_report(folder, prometheus_url=None)
    assert paths.html.is_file()
    assert paths.markdown.is_file()
    assert str(headline(paths.data)) == "Nothing was measured in this run, so there is nothing to compare."


@pytest.mark.parametrize(
    ("status", "blocks", "words"),
    [
        ("complete", 1, "have no request record, as if requests.jsonl and requests.parquet were lost"),
        ("failed", 0, "no block was ever started"),
        ("running", 0, "nothing was measured yet"),
    ],
)
def test_a_report_of_nothing_says_what_is_missing_and_is_no_success(loadgen, tmp_path, status, blocks, words):
    run = SyntheticRun(engines=["a"], prompts=(64,), concurrencies=(1,), requests=2)
    for _ in range(blocks):
        run.add_block("a", run.cells[0])
    run.end(status)
    folder = run.write(tmp_path)
    folder.records_path.unlink(missing_ok=True)
    done = loadgen("report", str(folder.path), "--brief")
    assert done.returncode == 1 and words in done.stderr and str(folder.path) in done.stderr


def test_figures_of_requests_that_all_failed_are_none(tmp_path):
    run = SyntheticRun(engines=["a", "b"], prompts=(64,), concurrencies=(1,), requests=4)
    run.add_block("a", run.cells[0])
    run.add_block("b", run.cells[0], error=("http_503", "overloaded"), error_share=1.0)
    run.end("complete")
    run.manifest.blocks[0].client = ClientVerdict(True, ("its core was busy",), 8.1, 1.0, 0.004, requests=4)
    data = write_report(run.write(tmp_path), prometheus_url=None).data
    assert str(headline(data).sentence).startswith("Every request to b failed, so nothing can be compared")
    good, failed = (data.cells[0].engines[name].summary for name in "ab")
    assert all(column.text(failed) == DASH for column in COLUMNS)
    assert all(column.text(good) != DASH for column in COLUMNS)


def test_the_load_generator_is_blamed_only_where_it_was_the_limit_of_every_pair(tmp_path):
    """One engine was limited in one repeat, the other died: that nothing compares is not the load generator's doing."""
    limited = ClientVerdict(True, ("its core was busy",), 8.1, 1.0, 0.004, requests=4)
    for died, words in (
        (True, "In no repeat did all engines (a and b) complete a cell with requests that count"),
        (False, "Nothing can be compared: wherever the engines completed a cell, the load generator was the limit"),
    ):
        run = SyntheticRun(engines=["a", "b"], prompts=(64,), concurrencies=(1,), requests=4)
        run.add_block("a", run.cells[0])
        told = {"status": "failed", "reason": "the engine died"} if died else {}
        run.add_block("b", run.cells[0], **told)
        run.end("complete")
        run.manifest.blocks[0].client = limited
        data = write_report(run.write(tmp_path / str(died)), prometheus_url=None).data
        assert str(headline(data).sentence).startswith(words)


def test_of_an_engine_that_was_never_seen_nothing_is_unequal(tmp_path):
    run = SyntheticRun(engines=["a", "b"], prompts=(64,), concurrencies=(1,), requests=4)
    run.add_block("a", run.cells[0])
    run.end("complete")
    run.manifest.engines = [facts for facts in run.manifest.engines if facts.name == "a"]
    data = write_report(run.write(tmp_path), prometheus_url=None).data
    assert not [
        row.check for row in data.fairness if row.equal is False and row.check.startswith(("engine:", "model:"))
    ]
