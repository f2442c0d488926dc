"""An engine's own figures over a block, against readings of an engine whose rates are known."""

from __future__ import annotations

import pytest

from loadgen.monitoring.engine_figures import figures, tally
from loadgen.monitoring.engine_page import Reading
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.monitoring.tally import Tally
from loadgen.runs.folder import BlockData
from tests.loadgen.report.synthetic_run import OFFSET_NS, SyntheticRun

RATES = {
    "ttft_s": 2.0,
    "ttft_n": 10.0,
    "queue_s": 0.5,
    "queue_n": 10.0,
    "prompt_tokens": 640.0,
    "output_tokens": 80.0,
    "hits": 160.0,
    "queries": 640.0,
    "recomputed": 0.2,
}
"""A second."""


def block() -> BlockData:
    run = SyntheticRun(prompts=(64,), outputs=(8,), concurrencies=(2,), requests=60, engines=["vllm"])
    made = run.add_block("vllm", run.cells[0])
    return BlockData(made.facts, made.records, made.facts.cut_rule.cut(made.records))


BLOCK = block()
assert BLOCK.cut.window is not None
START, END = BLOCK.cut.window.start_ns / 1e9, BLOCK.cut.window.end_ns / 1e9


def reading(at: float, rates: dict[str, float], **gauges: float) -> Reading:
    return {name: 1000 + rate * (at - START) for name, rate in rates.items()} | gauges


def samples(step: float = 0.5, before: float = 1.0, after: float = 1.0, **gauges: float) -> BlockSamples:
    count = round((END + after - START + before) / step)
    moments = [START - before + step * n for n in range(count + 1)]
    return BlockSamples("b", [(at, reading(at, RATES, **gauges)) for at in moments])


def test_counters_are_read_at_both_ends_of_the_window():
    own = figures(tally(BLOCK, samples(running=3.0, waiting=1.5, kv_used=0.25)))
    seconds = END - START
    assert own.seconds == pytest.approx(seconds, abs=1e-4)
    assert (own.ttft_ms, own.queue_ms, own.prefix_hits) == pytest.approx((200, 50, 0.25))
    assert (own.prompt_tokens, own.output_tokens) == pytest.approx((640 * seconds, 80 * seconds), rel=1e-4)
    assert own.preemptions == pytest.approx(0.2 * seconds, rel=1e-4)
    assert (own.running, own.waiting, own.waiting_peak, own.kv_used_peak) == pytest.approx((3, 1.5, 1.5, 0.25))
    assert own.swaps is own.gpu_power_watts is own.gpu_scope is None


def test_the_residual_is_of_the_requests_that_got_their_first_token_meanwhile():
    own = figures(tally(BLOCK, samples()))
    first = [
        (r.t_first - r.t_send) / 1e6
        for r in BLOCK.records
        if r.t_first is not None and START * 1e9 < r.t_first + OFFSET_NS <= END * 1e9
    ]
    assert own.client_ttft_ms == pytest.approx(sum(first) / len(first))
    assert own.residual_ms == pytest.approx(own.client_ttft_ms - 200)
    assert own.client_prompt_tokens == 64 * len(first)


def test_means_of_ksana_are_over_its_steps():
    rates = {"running_sum": 30.0, "running_n": 10.0, "waiting_sum": 5.0, "waiting_n": 10.0}
    rows = [(START - 1 + n / 2, reading(START - 1 + n / 2, rates)) for n in range(round(2 * (END - START + 2)) + 1)]
    own = figures(tally(BLOCK, BlockSamples("b", rows)))
    assert (own.running, own.waiting, own.waiting_peak) == (pytest.approx(3), pytest.approx(0.5), None)


def test_an_engine_that_was_started_anew_has_no_counters():
    told = samples(running=3.0)
    middle = len(told.rows) // 2
    rows = [(at, {**row, "ttft_n": row["ttft_n"] - 990 * (n > middle)}) for n, (at, row) in enumerate(told.rows)]
    made = tally(BLOCK, BlockSamples("b", rows))
    own = figures(made)
    assert made.restarted
    assert own.ttft_ms is own.output_tokens is own.residual_ms is None
    assert own.running == pytest.approx(3), "gauges are as they were read"


def test_a_new_start_before_the_window_does_not_matter():
    told = samples(before=3.0)
    own = figures(tally(BLOCK, BlockSamples("b", [(START - 60, {"ttft_n": 10**6}), *told.rows])))
    assert own.ttft_ms == pytest.approx(200)


@pytest.mark.parametrize(
    "told",
    [
        BlockSamples("b", []),
        BlockSamples("b", [(START, reading(START, RATES))]),
        samples(after=-(END - START) / 2),
        samples(before=-(END - START) / 2),
        BlockSamples("b", [(START - 60, reading(START, RATES)), (END + 60, reading(END, RATES))]),
    ],
    ids=["none", "one", "ends in the middle", "begins in the middle", "a gap"],
)
def test_readings_that_do_not_reach_over_the_window_give_nothing(told):
    assert tally(BLOCK, told) is None


def test_a_block_without_a_window_has_nothing():
    facts = BLOCK.facts
    assert tally(BlockData(facts, [], facts.cut_rule.cut([])), samples()) is None


def gpu_rows(own: bool, energy: bool = True) -> BlockSamples:
    rows = []
    for n in range(round(2 * (END - START + 2)) + 1):
        at = START - 1 + n / 2
        row = {"gpu_memory_all": 100.0 + n % 2, "gpu_watts:0": 300.0, "gpu_watts:1": 50.0}
        row |= {"gpu_joules:0": 5000 + 300 * (at - START), "gpu_joules:1": 50 * (at - START) + 99} if energy else {}
        row |= {"gpu_memory": 60.0, "gpu_on:0": 1.0} if own else {}
        rows.append((at, row))
    return BlockSamples("b", rows)


@pytest.mark.parametrize("energy", [True, False], ids=["energy", "power only"])
@pytest.mark.parametrize(
    ("own", "scope", "memory", "watts"), [(True, "engine", 60, 300), (False, "all", 101, 350)], ids=["own", "all"]
)
def test_gpu_memory_and_power(own, scope, memory, watts, energy):
    told = figures(tally(BLOCK, gpu_rows(own, energy)))
    assert (told.gpu_scope, told.gpu_memory_peak_bytes) == (scope, memory)
    assert told.gpu_power_watts == pytest.approx(watts, rel=1e-6)
    assert told.ttft_ms is None


def test_blocks_of_a_cell_are_pooled_by_their_sums():
    one = Tally({"ttft_s": 1.0, "ttft_n": 10, "swapped": 2.0}, {"kv_used": 0.5}, 10.0)
    two = Tally({"ttft_s": 9.0, "ttft_n": 30}, {"kv_used": 0.7}, 5.0)
    own = figures(one.plus(two))
    assert (own.ttft_ms, own.kv_used_peak, own.seconds, own.blocks) == (250.0, 0.7, 15.0, 2)
    assert own.swaps is None, "of one block it is not known"
