"""A run that ended before its first block: interrupted in preflight, say."""

from __future__ import annotations

import pytest

from loadgen.report import write_report
from loadgen.report.headline import headline
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import Manifest
from loadgen.scenario.model import Scenario
from tests.loadgen.bench.races import SCENARIO


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_a_run_without_a_block_has_a_report(tmp_path, status):
    scenario = Scenario.model_validate(SCENARIO).model_dump(mode="json")
    folder = RunFolder.create(tmp_path, Manifest(run_id="r", started_at=1.0, status=status, scenario=scenario))
    paths = write_report(folder, prometheus_url=None)
    assert paths.html.is_file()
    assert paths.markdown.is_file()
    assert str(headline(paths.data)) == "Nothing was measured in this run, so there is nothing to compare."
