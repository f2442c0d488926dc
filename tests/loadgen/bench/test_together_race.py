"""`bakeoff bench --placement together` over real endpoints, two Locusts and signals."""

from __future__ import annotations

import collections
import json

import pytest

from loadgen.analysis.together import disturbances, overlap
from loadgen.bench.together_campaign import LEAD_S
from loadgen.report.together import disturbance_words, together_of
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import Bench

pytestmark = pytest.mark.integration

STEADY = "normal?ttft_ms=20&gap_ms=20"


def test_pairs_run_at_one_instant_into_one_file(tmp_path):
    with (
        FaultServer(in_process=False, fault=STEADY) as a,
        FaultServer(in_process=False, fault=STEADY) as b,
        Bench(tmp_path, {"a": a, "b": b}, placement="together", repeats=2) as bench,
    ):
        bench.wait_for_records(1)
        assert sum("--master" in process.cmdline() for process in bench.locusts()) == 2
        assert bench.wait() == 0, bench.output
        bench.assert_nothing_left()
        run = bench.load()
    assert run.bad_lines == []
    by_id = {block.facts.record_id: block for block in run.blocks}
    for block in run.blocks:
        assert (block.facts.status, block.facts.attempt, len(block.measured)) == ("complete", 1, 10)
        (other,) = block.facts.beside
        assert by_id[other].facts.beside == [block.facts.record_id]
        # Both wait for the instant that they have agreed on, each by its own worker.
        first = min(record.t_send + record.wall_offset_ns for record in block.records) / 1e9
        assert first >= max(block.facts.started_at, by_id[other].facts.started_at) + LEAD_S - 0.5
    workers = {block.facts.id: {record.worker for record in block.records} for block in run.blocks}
    assert all(len(own) == 1 for own in workers.values())
    assert len(set.union(*workers.values())) == 2
    assert workers[run.blocks[0].facts.id] != workers[run.blocks[0].facts.id.replace("r1", "r2")], "they change hands"
    assert overlap(run) is not None
    assert any("Bakeoff pins nothing" in text for text in run.manifest.messages)
    bench.assert_reportable()
    told = json.loads((bench.folder.path / "summary.json").read_text())
    assert told["together"]["placement"] == "together"
    assert any("was not measured" in notice["text"] for notice in told["notices"])


def test_an_interrupt_ends_both_and_loses_nothing(tmp_path):
    with (
        FaultServer(in_process=False, fault=STEADY) as a,
        FaultServer(in_process=False, fault=STEADY) as b,
        Bench(tmp_path, {"a": a, "b": b}, placement="together", requests=20_000) as bench,
    ):
        before = bench.wait_for_records(10)
        bench.signal()
        assert bench.wait() == 130, bench.output
        run = bench.load()
        assert not collections.Counter(before) - collections.Counter(bench.lines())
        bench.assert_nothing_left()
    assert [block.facts.status for block in run.blocks] == ["interrupted"] * 2
    assert run.bad_lines == []


def test_engines_that_slow_each_other_down_are_told(tmp_path):
    with FaultServer(fault=STEADY) as a, FaultServer(fault=STEADY) as b:
        # The truth: a stream's gaps are twice as long while the other engine streams.
        a.pace, b.pace = (lambda: 2.0 if b.streams else 1.0), (lambda: 2.0 if a.streams else 1.0)
        with Bench(tmp_path, {"a": a, "b": b}, placement="both", repeats=3, requests=20) as bench:
            assert bench.wait() == 0, bench.output
            run = bench.load()
    for block in run.blocks:  # whether a busy machine let the load generator measure well is not the question here
        block.facts.client = block.facts.contention = None
    found = {one.a: one for one in disturbances(run)}
    assert {name: one.b for name, one in found.items()} == {"a": "a-together", "b": "b-together"}
    for one in found.values():
        tpot = one.overall["tpot_ms.mean"]
        assert tpot.verdict == "a" and tpot.ratio.ci95[0] > 1.1, tpot
    bench.assert_reportable()
    words = disturbance_words(together_of(run))
    assert all("TPOT mean +" in text and "(it disturbs)" in text for text in words), words
    told = json.loads((bench.folder.path / "summary.json").read_text())
    assert sum("together with the others, against itself" in notice["text"] for notice in told["notices"]) == 2


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            {"find_capacity": {"of": "rate", "from": 1.0}, "load": {}, "slo": {"ttft_ms": 100}},
            "searches engine by engine",
        ),
        ({}, "needs two engines or more"),
        ({"starts": 2, "repeats": 2}, "needs engines that Bakeoff starts itself"),
    ],
)
def test_what_cannot_run_together_is_refused(tmp_path, more, why):
    with FaultServer(in_process=False) as one, Bench(tmp_path, {"one": one}, placement="together", **more) as bench:
        assert bench.wait() == 2
        assert why in bench.output
