"""From a run's records to samples, and which blocks decide nothing."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.analysis.samples import FAILED, cell_samples, why_invalid
from loadgen.client.verdict import ClientVerdict
from loadgen.metrics.summary import summarise
from loadgen.metrics.window import CutRule
from loadgen.runs.folder import BlockData
from loadgen.runs.manifest import BlockFacts
from loadgen.statistics.compare import compare
from loadgen.statistics.unpaired import compare_unpaired
from tests.loadgen.records import MS, record

CELL = "p0004-o0003-c001"


def run_block(
    engine="left", repeat=1, *, gap=10, wanted=5, errors=(), at=0.0, events=3, together=1, **facts
) -> BlockData:
    """One user's warm-up request, `wanted` measured ones and a last one, one after the other.

    A request has so many `events` of as many tokens `together`, a `gap` in ms for each token.
    """
    records = []
    for i in range(wanted + 2):
        send = (i * 1000) * MS
        offsets = [(20 + i + gap * together * event) * MS for event in range(events)]
        error = errors[i - 1] if 0 < i <= len(errors) else None
        tokens = events * together
        records.append(record(send, offsets, index=i, output_tokens=tokens, prompt_tokens=4, error=error))
    known = {"id": f"{engine}.{CELL}.r{repeat}", "engine": engine, "cell": CELL, "repeat": repeat, "status": "complete"}
    known |= {"users": 1, "warmup_requests": 1, "measured_requests": wanted, "started_at": at, **facts}
    block = BlockFacts(record_id=known["id"], **known)
    return BlockData(block, records, CutRule(users=1, warmup_requests=1, measured_requests=wanted).cut(records))


def test_values_and_totals_are_those_of_the_summary():
    block = run_block()
    (cell,) = cell_samples([block, run_block("right"), run_block("third")], "left", "right")
    (left,) = cell.a
    expected = summarise([(block.records, block.measured, block.cut.window)])
    assert left.requests["ttft_ms"].tolist() == [21, 22, 23, 24, 25]
    assert left.requests["tpot_ms"].tolist() == [10] * 5
    assert left.requests["e2e_ms"].tolist() == [41, 42, 43, 44, 45]
    for key, rate in (("output_tokens", expected.output_tokens_per_s), ("requests", expected.requests_per_s)):
        total = left.totals[key]
        assert total.amount / total.seconds == pytest.approx(rate)
        assert total.seconds == pytest.approx(expected.window_s)
    assert (cell.id, left.repeat, left.invalid, len(cell.b)) == (CELL, 1, None, 1)


def test_a_whole_comparison_of_blocks():
    blocks = [run_block(engine, repeat, gap=gap) for repeat in (1, 2) for engine, gap in (("left", 10), ("right", 12))]
    found = compare("left", "right", cell_samples(blocks, "left", "right"))
    tpot = found.cells[0].metrics["tpot_ms.mean"]
    assert (tpot.a.estimate, tpot.b.estimate, tpot.verdict) == (10, 12, "a")


def test_tokens_that_come_together_make_no_engine_faster():
    """32 tokens at 10 ms each: in events of four, the time between the first and the last of them is 28 tokens'."""
    sides = {"left": {"events": 32}, "right": {"events": 8, "together": 4}}
    blocks = [run_block(engine, repeat, **sides[engine]) for repeat in (1, 2, 3, 4) for engine in sides]
    found = compare("left", "right", cell_samples(blocks, "left", "right"))
    tpot = found.cells[0].metrics["tpot_ms.mean"]
    assert (tpot.a.estimate, tpot.b.estimate) == (10, pytest.approx(280 / 31))
    assert (tpot.verdict, tpot.reason) == ("undecided", "tokens_per_event")
    assert found.overall["tpot_ms.mean"].reason == "tokens_per_event"
    unpaired = compare_unpaired("left", "right", cell_samples(blocks, "left", "right"))
    assert unpaired.cells[0].metrics["tpot_ms.mean"].reason == "tokens_per_event"


def test_an_engine_that_is_faster_by_more_than_that_is():
    sides = {"left": {"events": 32}, "right": {"events": 8, "together": 4, "gap": 5}}
    blocks = [run_block(engine, repeat, **sides[engine]) for repeat in (1, 2, 3, 4) for engine in sides]
    found = compare("left", "right", cell_samples(blocks, "left", "right"))
    assert found.cells[0].metrics["tpot_ms.mean"].verdict == "b"


def limited(reasons=("it was late",)):
    fields = {field.name: 0 for field in dataclasses.fields(ClientVerdict)}
    return {**fields, "limited": True, "reasons": reasons, "workers": []}


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (run_block(), None),
        (run_block(status="failed"), "it failed"),
        (run_block(status="running"), "it never ended"),
        (run_block(status="interrupted"), "it was interrupted"),
        (run_block(client=limited()), "the load generator was the limit: it was late"),
        (run_block(client={"limited": True, "of a later version": 1}), None),
        (run_block(errors=["http_500"]), "1 of 5 requests failed"),
        (run_block(errors=["output_tokens", "http_500"]), "1 of 5 requests had another length than was asked for"),
        (run_block(wanted=100, errors=["http_500"]), None),
        (run_block(wanted=100, errors=["http_500"] * 2), "2 of 100 requests failed"),
    ],
)
def test_why_a_block_decides_nothing(block, reason):
    assert why_invalid(block) == reason


def test_too_few_requests_measured():
    block = run_block()
    facts = block.facts.model_copy(update={"measured_requests": 9})
    assert why_invalid(dataclasses.replace(block, facts=facts)) == "only 5 of 9 requests were measured"


def test_the_limit_on_errors_is_the_callers():
    block = run_block(errors=["http_500"])
    assert cell_samples([block], "left", "right", most=0.2)[0].a[0].invalid is None
    (spoilt,) = cell_samples([block], "left", "right", most=0.1)[0].a
    assert spoilt.invalid == "1 of 5 requests failed"
    assert {source: values.tolist() for source, values in spoilt.requests.items()} == {FAILED: [1, 0, 0, 0, 0]}
    assert not spoilt.totals
