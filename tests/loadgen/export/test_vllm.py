"""The export in vLLM's format against what vLLM's own bench wrote of the same requests."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from loadgen.cli.app import app
from loadgen.client.verdict import ClientVerdict
from loadgen.errors import UserError
from loadgen.export.files import export_run
from loadgen.export.vllm import DETAILS, vllm_result
from loadgen.metrics.window import Cut, Window
from loadgen.record import int64s
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest
from loadgen.scenario.model import Cell
from tests.loadgen.known_run import Truth, known_run
from tests.loadgen.records import record

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "client-benchmark" / "vllm" / "result.json").read_text())
"""Written by `vllm bench serve --save-result --save-detailed` (vLLM 0.32), six requests of two users."""
OURS = {
    "date",
    "label",
    "tokenizer_id",
    "duration",
    "request_throughput",
    "output_throughput",
    "total_token_throughput",
}
"""Not vLLM's: its date and label, its tokenizer, and what is counted in our window."""


def golden_block() -> BlockData:
    """Our records of the requests that the golden file is about."""
    records = []
    for number, (start, ttft, gaps, outputs) in enumerate(
        zip(GOLDEN["start_times"], GOLDEN["ttfts"], GOLDEN["itls"], GOLDEN["output_lens"], strict=True)
    ):
        offsets = np.round(np.cumsum([ttft, *gaps]) * 1e9).astype(int).tolist()
        begun = round(start * 1e9)
        waited = round(GOLDEN["queue_times"][number] * 1e9)
        made = record(begun, offsets, api="completions", model="simulated", index=number, t_intended=begun - waited)
        text = {"text": GOLDEN["generated_texts"][number], "prompt_tokens_wanted": 33}
        records.append(dataclasses.replace(made, prompt_tokens=33, output_tokens=outputs, **text))
    facts = BlockFacts(
        id="b", record_id="b", engine="vllm", cell="p0033-o0004-c002", repeat=1, users=2, warmup_requests=0,
        measured_requests=6, status="complete", started_at=0.0,
    )  # fmt: skip
    window = Window(min(r.t_send for r in records), max(r.t_done for r in records))
    return BlockData(facts, records, Cut(["measure"] * 6, window, complete=True))


def manifest() -> Manifest:
    engine = EngineFacts(name="vllm", kind="vllm", api="completions", base_url="http://x", model="simulated")
    return Manifest(run_id="r", started_at=0.0, engines=[engine])


def close(ours, theirs) -> bool:
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(theirs, float) and isinstance(ours, float | int):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=2e-6)
    return ours == theirs


def test_every_key_of_vllms_is_there_with_vllms_value():
    ours = vllm_result(manifest(), golden_block(), detailed=True, client_limited=False)
    assert not GOLDEN.keys() - ours.keys()
    different = {key for key, value in GOLDEN.items() if not close(ours[key], value)}
    assert different <= OURS
    extra = ours.keys() - GOLDEN.keys()
    assert all(key.startswith("bakeoff_") or key.endswith("_ms") for key in extra)


def test_the_keys_stand_in_vllms_order():
    ours = list(vllm_result(manifest(), golden_block(), detailed=True, client_limited=False))
    shared = [key for key in ours if key in GOLDEN]
    assert shared == list(GOLDEN)


def test_throughputs_are_of_the_window():
    ours = vllm_result(manifest(), golden_block(), detailed=False, client_limited=False)
    block = golden_block()
    seconds = (block.cut.window.end_ns - block.cut.window.start_ns) / 1e9
    assert ours["duration"] == seconds
    assert ours["output_throughput"] == pytest.approx(GOLDEN["total_output_tokens"] / seconds)
    assert ours["total_token_throughput"] == pytest.approx((24 + 6 * 33) / seconds)
    assert ours["request_throughput"] == pytest.approx(6 / seconds)


def test_without_details_the_file_is_as_small_as_vllms():
    ours = vllm_result(manifest(), golden_block(), detailed=False, client_limited=False)
    assert not set(DETAILS) & ours.keys()
    assert {"latencies", "queue_times"} <= ours.keys()


def test_failed_requests_are_counted_as_vllm_counts_them(tmp_path):
    run = known_run(tmp_path, "a", Truth(error_share=0.3), repeats=1, requests=40).load()
    ours = vllm_result(run.manifest, run.blocks[0], detailed=True, client_limited=True)
    failed = [error != "" for error in ours["errors"]]
    assert ours["failed"] == sum(failed) > 0 and ours["completed"] == 40 - sum(failed)
    assert all(
        length == 0 and first == 0
        for length, first, bad in zip(ours["output_lens"], ours["ttfts"], failed, strict=True)
        if bad
    )
    good = [first for first, bad in zip(ours["ttfts"], failed, strict=True) if not bad]
    assert ours["mean_ttft_ms"] == pytest.approx(1000 * sum(good) / len(good))
    assert ours["bakeoff_client_limited"] == "yes"


def test_an_open_loop_has_its_rate():
    block = golden_block()
    facts = block.facts.model_copy(update={"users": 0, "rate": 2.5})
    run = manifest().model_copy(update={"scenario": {"load": {"rate": [2.5], "arrival": "constant"}}})
    ours = vllm_result(run, dataclasses.replace(block, facts=facts), detailed=False, client_limited=False)
    assert (ours["request_rate"], ours["burstiness"], ours["max_concurrency"]) == (2.5, "inf", None)


def test_nothing_measured_is_zero_as_in_vllm():
    block = golden_block()
    records = [
        dataclasses.replace(r, error="http", t_first=None, t_last=None, events=0, event_offsets_ns=int64s())
        for r in block.records
    ]
    ours = vllm_result(manifest(), dataclasses.replace(block, records=records), detailed=True, client_limited=False)
    assert ours["mean_ttft_ms"] == ours["p99_itl_ms"] == ours["max_output_tokens_per_s"] == 0


def test_one_file_for_each_engine_cell_and_repeat(tmp_path):
    cells = (Cell(64, 8, 1), Cell(64, 8, 2))
    folder = known_run(tmp_path, "a", truths={"vllm": Truth(), "ksana": Truth()}, cells=cells, repeats=2, requests=8)
    done = CliRunner().invoke(app, ["export", "a", "--runs-dir", str(tmp_path), "--format", "vllm"])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (folder.path / "export-vllm").iterdir()}
    assert names == {f"{e}.{c.id}.r{r}.json" for e in ("vllm", "ksana") for c in cells for r in (1, 2)}
    for path in (folder.path / "export-vllm").iterdir():
        assert json.loads(path.read_text())["label"] == path.name.partition(".")[0]


def test_unfinished_blocks_are_left_out_and_named(tmp_path):
    run = known_run(tmp_path, "a", repeats=2, requests=8).load()
    run.blocks[1].facts.status = "interrupted"
    told = export_run(run, "vllm", tmp_path / "out")
    assert len(told.files) == 1 and run.blocks[1].facts.record_id in told.notes[0]
    run.blocks[0].facts.status = "failed"
    with pytest.raises(UserError, match="nothing to export"):
        export_run(run, "vllm", tmp_path / "out")


def test_a_block_whose_records_were_lost_in_part_is_left_out_and_named(tmp_path):
    run = known_run(tmp_path, "a", repeats=2, requests=8).load()
    whole, short = run.blocks
    whole.facts.measured_requests = short.facts.measured_requests = len(whole.measured)
    third = short.records.index(short.measured[3])
    left = Cut(short.cut.phases[:third], short.cut.window, complete=False)
    lost = BlockData(short.facts, short.records[:third], left)
    assert (whole.lacks, lost.lacks) == (0, 5)
    told = export_run(dataclasses.replace(run, blocks=[whole, lost]), "vllm", tmp_path / "out")
    assert len(told.files) == 1
    assert f"missing in the records: {lost.facts.record_id} (5)." in told.notes[0]
    with pytest.raises(UserError, match="nothing to export"):
        export_run(dataclasses.replace(run, blocks=[lost]), "vllm", tmp_path / "out")


def test_a_client_limited_block_is_marked(tmp_path):
    run = known_run(tmp_path, "a", repeats=1, requests=8).load()
    run.blocks[0].facts.client = ClientVerdict(True, ("late",), 9.0, 1.0, 0.0)
    told = export_run(run, "vllm", tmp_path / "out")
    assert "Limited by the load generator" in told.notes[0]
    assert json.loads(told.files[0].read_text())["bakeoff_client_limited"] == "yes"


def test_peaks_take_no_memory_for_years_between_two_requests():
    block = golden_block()
    late = dataclasses.replace(block.records[-1], wall_offset_ns=block.records[-1].wall_offset_ns + 7 * 10**18)
    apart = BlockData(block.facts, [*block.records[:-1], late], block.cut)
    made = vllm_result(manifest(), apart, detailed=False, client_limited=False)
    assert made["max_concurrent_requests"] == GOLDEN["max_concurrent_requests"] - 1
    assert made["max_output_tokens_per_s"] > 0
