"""What a report says of engines that ran together, where the truth is known."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.analysis.together import disturbances, overlap
from loadgen.monitoring.energy import energy_rows
from loadgen.monitoring.memory import Memory
from loadgen.report.data import build_report_data
from loadgen.report.headline import headline, notices
from loadgen.report.summary import summary
from loadgen.report.together import Together, disturbance_words, together_of
from loadgen.runs.folder import RunData
from tests.loadgen.known_run import Truth, known_run

ALONE = Truth(tpot_ms=5.0, spread=0.02)
NAMES = ("a", "b", "a-together", "b-together")


def raced(tmp_path, **together: Truth) -> RunData:
    """A race of both placements."""
    truths = {"a": ALONE, "b": ALONE} | {f"{name}-together": truth for name, truth in together.items()}
    folder = known_run(tmp_path, "both", truths=truths, repeats=4, requests=60)
    run = folder.load()
    manifest = run.manifest
    manifest.scenario |= {"placement": "both", "between_blocks": "keep", "repeats": 4}
    for facts in manifest.engines:
        facts.together_of = facts.name.removesuffix("-together") if facts.name.endswith("-together") else None
    return run


def test_a_disturbance_is_told_with_its_interval_and_none_where_there_is_none(tmp_path):
    run = raced(tmp_path, a=dataclasses.replace(ALONE, tpot_ms=5.4), b=ALONE)
    found = {one.a: one.overall["tpot_ms.mean"] for one in disturbances(run)}
    low, high = found["a"].ratio.ci95
    assert found["a"].verdict == "a" and low < 1.08 < high and low > 1.05
    low, high = found["b"].ratio.ci95
    assert found["b"].verdict == "none" and low < 1 < high, found["b"]
    words = disturbance_words(together_of(run))
    assert words[0].startswith("a together with the others, against itself in turns: TTFT p50 ")
    assert "TPOT mean +" in words[0] and "(it disturbs)" in words[0]
    assert "(no disturbance beyond the margin)" in words[1] and "(it disturbs)" not in words[1]


def test_starts_do_not_make_a_disturbance_uncertain(tmp_path):
    run = raced(tmp_path, a=ALONE, b=ALONE)
    for block in run.blocks:
        block.facts.start = (block.facts.repeat + 1) // 2
    assert [one.scope for one in disturbances(run)] == ["processes"] * 2


def test_the_overlap_is_of_the_windows(tmp_path):
    run = raced(tmp_path, a=ALONE, b=ALONE)
    assert overlap(run) is None
    blocks = {block.facts.record_id: block for block in run.blocks}
    cell = run.blocks[0].facts.cell
    one, other = (blocks[f"{name}-together.{cell}.r1"] for name in "ab")
    one.facts.beside, other.facts.beside = [other.facts.record_id], [one.facts.record_id]
    assert overlap(run).mean == 0, "they ran one after the other"
    half = dataclasses.replace(one.cut.window, end_ns=(one.cut.window.start_ns + one.cut.window.end_ns) // 2)
    whole = dataclasses.replace(other.cut, window=one.cut.window)
    object.__setattr__(one, "cut", dataclasses.replace(one.cut, window=half))
    object.__setattr__(other, "cut", whole)
    found = overlap(run)
    assert found.least == pytest.approx(0.5) and found.mean == pytest.approx(0.75)


def test_the_report_tells_places_and_that_the_disturbance_is_not_known(tmp_path):
    places = [
        {"engine": "a", "start": 1, "gpus": ["0"], "cpus": "0-7", "memory_node": 0},
        {"engine": "a", "start": 2, "gpus": ["1"], "cpus": "8-15", "memory_node": 1},
    ]
    run = known_run(
        tmp_path, "together", truths={"a": ALONE, "b": ALONE}, repeats=2, manifest={"placed": places}
    ).load()
    run.manifest.scenario |= {"placement": "together", "between_blocks": "keep"}
    data = build_report_data(run, Memory())
    row = next(row for row in data.fairness if row.check == "where it ran")
    assert row.values["a"] == (
        "start 1: GPU 0, cores 0-7, memory of node 0; start 2: GPU 1, cores 8-15, memory of node 1"
    )
    assert not [row.check for row in data.fairness if row.equal is False]
    assert any("was not measured" in notice.text for notice in notices(data))
    assert summary(data)["together"]["placed"][1]["gpus"] == ["1"]


def test_the_verdict_is_between_engines_and_not_between_ways_to_run_them(tmp_path):
    data = build_report_data(raced(tmp_path, a=ALONE, b=ALONE), Memory())
    assert [(one.a, one.b) for one in data.comparisons] == [("a", "b")]
    text = headline(data)
    assert "-together" not in str(text)


def test_engines_that_took_turns_have_nothing_to_tell(tmp_path):
    assert together_of(known_run(tmp_path, "turns", truths={"a": ALONE}).load()) is None
    assert isinstance(together_of(raced(tmp_path, a=ALONE)), Together)


def test_the_energy_of_all_cards_is_not_an_engines_that_ran_beside_another(tmp_path):
    run = raced(tmp_path, a=ALONE)
    windows = [block.cut.window for block in run.blocks]
    first, last = min(one.start_ns for one in windows) // 10**9 - 1, max(one.end_ns for one in windows) // 10**9 + 2
    counters = {"GPU-0": [(float(second), 300.0 * second) for second in range(first, last)]}
    assert {row.engine for row in energy_rows(run.blocks, counters, {})} == {"a", "b", "a-together"}
    for block in run.blocks:
        block.facts.beside = ["x"] if block.facts.engine == "a-together" else []
    assert {row.engine for row in energy_rows(run.blocks, counters, {})} == {"a", "b"}
    counters["GPU-1"] = [(at, joules / 3) for at, joules in counters["GPU-0"]]
    own = {block.facts.record_id: ["GPU-0" if block.facts.engine == "a" else "GPU-1"] for block in run.blocks}
    told = {row.engine: row.watts for row in energy_rows(run.blocks, counters, own | {"x": ["GPU-0"]})}
    assert told == pytest.approx({"a": 300.0, "b": 100.0, "a-together": 100.0})
    assert {row.engine for row in energy_rows(run.blocks, counters, own | {"x": ["GPU-1"]})} == {"a", "b"}, "shared"
