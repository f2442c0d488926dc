"""A release whose blocks broke off is not held by what the others show, and the headline says what was lost."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from loadgen.analysis.samples import FAILED
from loadgen.cli.app import app
from loadgen.gate.decide import Case, decide
from loadgen.gate.quantity import difference_quantity, limit_quantity
from loadgen.monitoring.memory import Memory
from loadgen.presentation.language import CHINESE
from loadgen.report.data import build_report_data
from loadgen.report.headline import headline
from loadgen.runs.manifest import load_manifest, save_manifest
from loadgen.scenario.threshold import parse_threshold
from loadgen.statistics.metrics import BlockSample, CellSample
from tests.loadgen.known_run import Truth, known_run
from tests.loadgen.report.synthetic_run import SyntheticRun

BASE = Truth()
CELL = "p0512-o0008-c004"


def invoke(runs, *arguments):
    done = CliRunner().invoke(app, [*arguments, "--runs-dir", str(runs)], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def broken_run(runs, name, lost):
    """A run of four blocks, the first of which broke off: twelve records each, every one of a failure."""
    folder = known_run(runs, name, BASE, repeats=4, requests=200, seed=2)
    manifest = load_manifest(folder.manifest_path)
    for facts in manifest.blocks[:lost]:
        facts.status, facts.reason = "failed", "every request fails; the last: http_500"
    save_manifest(manifest, folder.manifest_path)
    bad, seen, kept = {facts.record_id for facts in manifest.blocks[:lost]}, Counter(), []
    for line in folder.records_path.read_text().splitlines():
        record = json.loads(line)
        block = record["block"]
        if block in bad:
            seen[block] += 1
            if seen[block] > 12:
                continue
            record["error"] = "http_500"
        kept.append(json.dumps(record))
    folder.records_path.write_text("\n".join(kept) + "\n")


@pytest.mark.parametrize("threshold", ["errors > 1%", "errors > +1pp"])
def test_a_release_that_lost_blocks_is_not_held(tmp_path, threshold):
    known_run(tmp_path, "a", BASE, repeats=4, requests=150)
    broken_run(tmp_path, "b", 2)
    code, output = invoke(tmp_path, "compare", "a", "b", "--fail-if", threshold)
    assert code == 4, output
    assert "2 of 4 blocks failed" in output
    assert "B vllm lost 2 of 4 blocks to failures of its own" in output
    broken_run(tmp_path, "whole", 0)
    code, output = invoke(tmp_path, "compare", "a", "whole", "--fail-if", threshold)
    assert code == 0 and " lost " not in output


def test_a_report_of_the_release_alone_is_not_held_either(tmp_path):
    broken_run(tmp_path, "b", 2)
    code, output = invoke(tmp_path, "report", "b", "--fail-if", "errors > 1%")
    assert code == 4, output
    assert "vllm lost 2 of 4 blocks to failures of its own, so this speaks only of the others." in output


def sample(repeat, share, *, failed=False):
    values = np.zeros(400)
    values[: round(400 * share)] = 1
    requests = {} if failed else {FAILED: values}
    return BlockSample(repeat, float(repeat), requests, invalid="it failed" if failed else None, failed=failed)


def outcome(text, quantity):
    return decide([Case(parse_threshold(text), CELL, "b", None, quantity)])[0].outcome


def limit(*blocks):
    return outcome("errors > 1%", limit_quantity(parse_threshold("errors > 1%"), blocks))


def test_another_attempt_makes_up_for_a_lost_one():
    good = [sample(repeat, 0.0) for repeat in (1, 2, 3)]
    assert limit(*good) == "held"
    assert limit(*good, sample(4, 0.0, failed=True)) == "undecided"
    assert limit(*good, sample(4, 0.0, failed=True), sample(4, 0.0)) == "held"


def test_lost_blocks_do_not_excuse_what_the_others_show():
    bad = [sample(repeat, 0.1) for repeat in (1, 2, 3)]
    assert limit(*bad, sample(4, 0.0, failed=True)) == "failed"


@pytest.mark.parametrize(
    ("lost", "share", "wanted"), [("a", 0.0, "undecided"), ("a", 0.1, "undecided"), ("b", 0.1, "failed")]
)
def test_a_difference_is_in_doubt_on_either_side(lost, share, wanted):
    text = "errors > +1pp"
    sides = {side: [sample(r, share if side == "b" else 0.0) for r in (1, 2, 3)] for side in "ab"}
    sides[lost] = [*sides[lost], sample(4, 0.0, failed=True)]
    cell = CellSample(CELL, sides["a"], sides["b"])
    assert outcome(text, difference_quantity(parse_threshold(text), cell, paired=False)) == wanted


def test_the_headline_of_a_race_names_blocks_lost_to_failures(tmp_path):
    """One repeat broke off, one had every fifth request failed, one was made up for by a second attempt."""
    run = SyntheticRun(prompts=(512,), concurrencies=(4,), requests=20, repeats=5)
    (cell,) = run.cells
    for repeat in range(1, 6):
        run.add_block("llamacpp", cell, repeat=repeat)
        if repeat == 1:
            run.add_block("vllm", cell, repeat=1, status="failed", reason="vllm died in mid-block", stop_after=9)
        elif repeat == 2:
            run.add_block("vllm", cell, repeat=2, error=("http", "503"), error_share=0.4)
        else:
            if repeat == 3:
                run.add_block("vllm", cell, repeat=3, status="failed", reason="vllm died in mid-block", stop_after=9)
            run.add_block("vllm", cell, repeat=repeat, attempt=2 if repeat == 3 else 1)
    run.end("complete")
    data = build_report_data(run.write(tmp_path).load(), Memory())
    first = headline(data).facts[0]
    assert first == "vllm lost 2 of 5 blocks to failures of its own, so this speaks only of the others."
    assert CHINESE.shown(first) == "vllm 因自身故障失去了 5 个测试块中的 2 个，因此以上只反映其余部分。"
