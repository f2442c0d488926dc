"""A trace replayed by a race: both engines get the same requests at the same moments, whoever sends them."""

from __future__ import annotations

import json

import pytest

from loadgen.scenario.trace import TRACE_FILE, read_trace
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import Bench


@pytest.mark.integration
def test_a_race_replays_a_trace(tmp_path):
    entries = [{"t": 0.5 + 0.03 * n, "prompt_tokens": 20 + n, "output_tokens": 1 + n % 3} for n in range(24)]
    (tmp_path / "calls.jsonl").write_text("\n".join(map(json.dumps, entries)))
    with FaultServer() as a, FaultServer() as b:
        bench = Bench(tmp_path, {"a": a, "b": b}, workers=2)
        scenario = {"name": "replay", "question": "As it was?", "load": {"trace": "calls.jsonl"}, "warmup_requests": 4}
        bench.scenario.write_text(json.dumps(scenario))
        with bench:
            assert bench.wait() == 0, bench.output
            bench.assert_reportable()
        run = bench.load()
    assert "trace" in (bench.folder.path / "report.md").read_text()
    assert read_trace(bench.folder.path / TRACE_FILE).prompt_tokens == tuple(e["prompt_tokens"] for e in entries)
    sent = []
    for block in run.blocks:
        assert (block.facts.status, len(block.measured)) == ("complete", 20)
        assert block.cut.complete, "the schedule ends with the last measured request: nothing comes behind it"
        records = sorted(block.records, key=lambda r: r.index)
        assert [r.index for r in records] == list(range(24))
        assert {r.worker for r in records} != {records[0].worker}, "both workers sent some"
        assert all(r.ok for r in records)
        first = records[0].t_intended + records[0].wall_offset_ns
        # Workers' clocks are aligned to about a millisecond.
        offsets = [round((r.t_intended + r.wall_offset_ns - first) / 1e7) for r in records]
        assert offsets == [3 * n for n in range(24)]
        sent.append([(r.prompt_tokens, r.output_tokens) for r in records])
    assert sent[0] == sent[1] == [(e["prompt_tokens"], e["output_tokens"]) for e in entries]
