"""What a run's verdicts go by: its scenario's margin and limit of errors, and the level that it was judged at."""

from __future__ import annotations

import pytest

from loadgen.analysis.comparison import comparisons
from loadgen.runs.manifest import save_manifest
from tests.loadgen.known_run import Truth, known_run

TWO = {"a": Truth(), "b": Truth(tpot_ms=5.2)}


@pytest.fixture
def run(tmp_path):
    return known_run(tmp_path, "known", truths=TWO, repeats=4, requests=60)


def judged(folder, level=0.05, **keys):
    run = folder.load()
    run.manifest.alpha = level
    run.manifest.scenario |= keys
    save_manifest(run.manifest, folder.manifest_path)
    return comparisons(folder.load(), ["a", "b"])[0]


def test_the_scenarios_margin_decides_what_matters(run):
    assert judged(run).overall["tpot_ms.mean"].verdict == "a"
    assert judged(run, margin=0.1).overall["tpot_ms.mean"].verdict == "none"


def test_the_level_is_the_runs_own(run):
    assert judged(run, level=0.0125).settings.alpha == 0.0125


def test_the_scenarios_limit_of_errors_decides_which_blocks_count(tmp_path):
    truths = {"a": Truth(), "b": Truth(error_share=0.1)}
    folder = known_run(tmp_path, "failing", truths=truths, repeats=4, requests=60)
    assert len(judged(folder).cells[0].left_out) > 0
    assert judged(folder, max_error_share=0.5).cells[0].left_out == []


def test_several_pairs_share_the_level(tmp_path):
    folder = known_run(tmp_path, "three", truths={**TWO, "c": Truth()}, repeats=4, requests=60)
    found = comparisons(folder.load(), ["a", "b", "c"])
    assert [(one.a, one.b, one.settings.alpha) for one in found] == [("a", "b", 0.025), ("a", "c", 0.025)]
