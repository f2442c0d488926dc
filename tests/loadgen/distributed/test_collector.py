"""The collector: what is on disk, what counts, and when a block is complete. No Locust, no sockets."""

from __future__ import annotations

import errno
import json
import os

import pytest
from prometheus_client import CollectorRegistry

from loadgen.client.health import ProbeReport
from loadgen.distributed import collector as module
from loadgen.distributed.client_metrics import ClientMetrics
from loadgen.distributed.collector import Collector
from loadgen.distributed.messages import Pulse
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.metrics.window import CutRule
from loadgen.record import ErrorKind
from loadgen.runs.record_file import RecordFile, read_records
from loadgen.scenario.cell import Cell
from loadgen.traffic import block_state
from loadgen.traffic.plan import BlockPlan
from tests.loadgen.records import MS, record


def plan(run_id="run1", block="b1", **fields):
    known = {
        "run_id": run_id,
        "scenario": "s",
        "block": block,
        "endpoint": Endpoint(name="e", kind="openai", base_url="http://127.0.0.1:1", model="m", api="chat"),
        "recipe": PromptRecipe("text", 0, ("a", "b"), (), "nowhere"),
        **{"engine": "e", "cell": Cell(4, 2, 1), "requests": 3, "warmup_requests": 1, "seed": "1"},
    }
    return BlockPlan(**{**known, **fields})


def made(index, *, run_id="run1", block="b1", **fields):
    """The `index`-th request of one user: 5 ms long, every 10 ms."""
    fields = {"run_id": run_id, "block": block, "index": index, "output_tokens": 2, "prompt_tokens": 4, **fields}
    return record(index * 10 * MS, (2 * MS, 5 * MS), **fields)


def pulse(run_id, block, **seen):
    """A worker's pulse, as it arrives."""
    sent = Pulse("w1", 0, 0, 1.0, run_id, block, ProbeReport(**seen), ProbeReport())
    arrived = Pulse.from_dict(json.loads(json.dumps(sent.to_dict())))
    assert arrived.probe.late == seen["late"]
    return arrived


def on_disk(folder, run_id="run1"):
    return read_records(folder / run_id / "requests.jsonl")[0]


def test_records_are_on_disk_before_they_count(tmp_path):
    collector = Collector(tmp_path)
    collector.begin(plan())
    collector.take([made(0), made(1)])
    assert [r.index for r in on_disk(tmp_path)] == [0, 1]
    assert collector.status().received == 2
    assert not collector.status().complete
    collector.take([made(2), made(3), made(4)])
    status = collector.block.recut(force=True) and collector.status()
    assert (status.complete, status.measured, status.wanted) == (True, 3, 3)


def test_late_records_of_earlier_blocks_and_runs_are_kept_but_do_not_count(tmp_path):
    collector = Collector(tmp_path)
    collector.begin(plan("run1", "b1"))
    collector.take([made(0)])
    collector.begin(plan("run2", "b1"))
    collector.take([made(1), made(0, run_id="run2"), made(0, run_id="run2", block="b0")])
    assert collector.status().received == 1
    assert [r.index for r in on_disk(tmp_path, "run1")] == [0, 1]
    assert [r.block for r in on_disk(tmp_path, "run2")] == ["b1", "b0"]


def test_full_disk_keeps_records_in_memory_and_in_order(tmp_path, monkeypatch):
    full = {"run1"}
    append = RecordFile.append

    def failing(self, records):
        if self.path.parent.name in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, records)

    monkeypatch.setattr(RecordFile, "append", failing)
    metrics = ClientMetrics()
    collector = Collector(tmp_path, metrics)
    collector.begin(plan("run1"))
    collector.take([made(0)])
    collector.take([made(1)])
    assert "No space left" in collector.status().write_error
    assert collector.status().received == 2
    collector.begin(plan("run2"))
    collector.take([made(0, run_id="run2")])
    assert len(on_disk(tmp_path, "run2")) == 1, "one run's trouble must not hold up another"
    assert "run1" in collector.write_error
    assert metrics.gauges["records_pending"] == 2
    full.clear()
    collector.flush()
    assert metrics.gauges["records_pending"] == 0
    assert collector.write_error is None
    assert [r.index for r in on_disk(tmp_path, "run1")] == [0, 1]
    collector.flush()
    assert len(on_disk(tmp_path, "run1")) == 2


def test_failures_are_counted_by_kind_and_aborted_ones_are_not(tmp_path):
    collector = Collector(tmp_path)
    collector.begin(plan())
    bad = {"error": "http_500", "error_detail": "no"}
    collector.take([made(0, **bad), made(1, error=ErrorKind.ABORTED), made(2, **bad)])
    status = collector.status()
    assert (status.errors, status.failures_in_row) == ({"http_500": 2}, 2)
    assert (status.last_error.kind, status.last_error.detail) == ("http_500", "no")
    assert str(status.last_error) == "http_500: no"
    collector.take([made(3)])
    assert collector.status().failures_in_row == 0


def test_lost_workers_are_named_once_and_only_while_it_matters(tmp_path):
    collector = Collector(tmp_path)
    collector.worker_lost("nobody")
    collector.begin(plan())
    collector.take([made(0, worker="w1"), made(1, worker="w2")])
    collector.worker_lost("w1")
    collector.worker_lost("w1")
    status = collector.status()
    assert status.lost_workers == ["w1"]
    assert status.unconfirmed_workers == ["w2"]
    collector.block.ended_workers["w2"] = 1
    assert collector.status().unconfirmed_workers == []
    collector.begin(plan(block="b2"))
    collector.take([made(i, block="b2") for i in range(6)])
    collector.block.recut(force=True)
    collector.worker_lost("w2")
    assert collector.status().lost_workers == []


def test_block_without_an_end_stays_small(monkeypatch):
    monkeypatch.setattr(block_state, "MAX_SUMMARISED", 50)
    collector = Collector(None)
    collector.begin(plan(requests=None))
    for start in range(0, 1000, 10):
        collector.take([made(i) for i in range(start, start + 10)])
    assert collector.status().received == 1000
    assert len(collector.block.records) <= 110
    assert not collector.status().complete
    assert collector.block.summary().requests > 0


def test_cutting_a_long_block_leaves_time_for_the_rest(monkeypatch):
    """Each cut takes a second of this clock; the process that cuts may be the one that times requests."""
    clock, cuts = [100.0], []

    class SlowRule(CutRule):
        def cut(self, records):
            clock[0] += 1.0
            cuts.append(len(records))
            return CutRule.cut(self, records)

    monkeypatch.setattr(block_state.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(BlockPlan, "cut_rule", SlowRule(1, 1, 3))
    block = block_state.BlockState(plan(), 0.0)
    for number in range(100):
        block.take(made(number))
        block.progress()
        clock[0] += 0.5
    assert sum(cuts) > 0 and len(cuts) <= 6, "100 looks within 50 s"
    block.recut(force=True)
    assert cuts[-1] == 100 and block.progress().complete


def test_finished_cells_are_kept_for_the_tab_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(module, "KEPT_CELLS", 3)
    collector = Collector(None)
    for number in range(6):
        collector.begin(plan(f"run{number}"))
        collector.take([made(i, run_id=f"run{number}") for i in range(5)])
    collector.end()
    assert [key[0] for key in collector.finished] == ["run3", "run4", "run5"]


def test_the_load_generator_is_judged_with_what_its_workers_tell():
    metrics = ClientMetrics()
    collector = Collector(None, metrics)
    collector.begin(plan(requests=3))
    merged = {"clock": "kernel", "read_lags_ns": [0, 0], "worker": "w1"}
    records = [made(i, **merged) for i in range(6)]
    for r in records:
        r.event_offsets_ns = [5 * MS, 5 * MS]
        r.t_first = r.t_send + 5 * MS
    assert collector.status().client is None, "nothing is told before the block has ended"
    collector.take(records)
    late = [(r.t_first, 4 * MS) for r in records]
    collector.take_probe(pulse("run1", "b0", wall_s=9.0, late=late))
    collector.take_probe(pulse(None, None, wall_s=9.0, late=late))
    collector.end()
    quiet = collector.status().client
    assert quiet.ttft_error_ms == 0 and not any(reason.startswith("TTFT") for reason in quiet.reasons)
    collector.take_probe(pulse("run1", "b1", wall_s=1.0, late=late[:3]))
    collector.take_probe(pulse("run1", "b1", wall_s=2.0, late=late[3:]))
    told = collector.status().client
    assert told.limited and told.reasons[0].startswith("TTFT")
    # 4 ms were seen, and up to 2 more may have passed; but all of it took 5.
    assert told.ttft_error_ms == pytest.approx(5.0)
    assert told.workers[0]["worker"] == "w1"
    assert metrics.limited == ("e", "p0004-o0002-c001", True)
    assert collector.block.judge() is collector.block.judge(), "what has not changed is not judged again"
    collector.begin(plan(block="b2"))
    assert [limited for _, limited in collector.finished.values()] == [True]
    assert collector.verdict() is None


@pytest.mark.parametrize("kind", [None, "http_500", ErrorKind.ABORTED])
def test_metrics_count_every_record_under_its_outcome(kind):
    metrics = ClientMetrics()
    registry = CollectorRegistry()
    registry.register(metrics)
    collector = Collector(None, metrics)
    collector.begin(plan())
    assert metrics.block["cell"] == "p0004-o0002-c001"
    collector.take([made(i, engine="e", error=kind) for i in range(4)])
    labels = {"engine": "e", "model": "x", "scenario": "s", "cell": "x"}
    outcome = {**labels, "outcome": kind or "ok"}
    assert registry.get_sample_value("bakeoff_client_requests_total", outcome) == 4
    timed = registry.get_sample_value("bakeoff_client_ttft_seconds_count", labels)
    assert timed == (4 if kind is None else None)
    collector.end()
    assert metrics.block is None
