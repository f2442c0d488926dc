"""Each mechanism on a block written down by hand: where it shows, where it does not, and where nobody knows."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from loadgen.explain.block_figures import Seen
from loadgen.explain.findings import MECHANISMS, of_engine
from loadgen.monitoring.engine_figures import EngineFigures
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.presentation.language import language_of
from loadgen.scenario.cell import Cell
from loadgen.scenario.script import Part
from loadgen.scenario.shapes import Prefixes
from tests.loadgen.records import MS, record

TOP = Path(__file__).resolve().parents[3]
CELL = Cell(100, 10, 1)
OWN = EngineFigures(seconds=10.0, ttft_ms=100.0, queue_ms=3.0, waiting=0.1, kv_used_peak=0.5)


def request(at_ms, gaps_ms, prompt=100, index=0, tokens=None, **more):
    """One whose events come after these gaps."""
    offsets = itertools.accumulate(round(gap * MS) for gap in gaps_ms)
    count = len(gaps_ms) if tokens is None else tokens
    lengths = {"prompt_tokens_wanted": prompt, "output_tokens_wanted": count, "output_tokens": count}
    return record(round(at_ms * MS), offsets, **{**lengths, "index": index, **more})


def samples(*rows, **counters):
    """Readings: rows of (second, values), or counters by what they rise over the block."""
    known = rows or [(0.0, dict.fromkeys(counters, 0.0)), (60.0, {name: float(v) for name, v in counters.items()})]
    return BlockSamples("block", list(known))


def block(records=(), read=None, cell=CELL, kind="vllm", asked=None, **more):
    """All that is known of a block; its records need no order."""
    return Seen(list(records) or [request(0, [10])], read, cell, kind=kind, asked=asked or {}, **more)


def shown(*blocks, kind=None):
    """What shows in the blocks of one cell: mechanisms and words."""
    kind = blocks[0].kind if kind is None else kind
    found = of_engine("a", kind, [(CELL.id, f"b{n}", seen) for n, seen in enumerate(blocks)]).found
    return {one.mechanism: str(one.places[0].words) for one in found}


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ({"recomputed": 1}, "1 request was preempted and computed again"),
        ({"recomputed": 18}, "18 requests were preempted and computed again"),
        ({"swapped": 2}, "2 requests were moved to host memory"),
        (
            {"recomputed": 2, "swapped": 1},
            "2 requests were preempted and computed again, 1 request was moved to host memory",
        ),
        ({"recomputed": 0}, None),
        ({"queries": 100}, None),
    ],
)
def test_preemption(counted, said):
    assert shown(block(read=samples(**counted))).get("preemption") == said


def test_preemption_adds_up_over_blocks_and_tells_which():
    blocks = [block(read=samples(recomputed=count)) for count in (3, 0, 4)]
    (finding,) = of_engine("a", "vllm", [(CELL.id, f"b{n}", seen) for n, seen in enumerate(blocks)]).found
    (place,) = finding.places
    assert (place.figures, place.blocks, place.of) == ({"recomputed": 7.0}, ("b0", "b2"), 3)


def test_what_ksana_pushes_late_is_not_taken_for_this_blocks():
    late = [(0.0, {"recomputed": 0.0, "queries": 0.0}), (2.0, {"recomputed": 9.0, "queries": 500.0})]
    late += [(at, {"recomputed": 9.0, "queries": 600.0}) for at in (3.0, 60.0)]
    assert shown(block(read=samples(*late), kind="ksana")) == {}
    assert "preemption" in shown(block(read=samples(*late), kind="vllm"))
    after = [*late[:3], (60.0, {"recomputed": 11.0, "queries": 600.0})]
    assert shown(block(read=samples(*after), kind="ksana"))["preemption"].startswith("2 requests")


def test_an_engine_that_was_started_anew_tells_nothing():
    rows = [(0.0, {"recomputed": 5.0}), (30.0, {"recomputed": 0.0}), (60.0, {"recomputed": 9.0})]
    assert shown(block(read=samples(*rows))) == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, {}),
        ({"queue_ms": 25.0}, {"queueing": "requests waited 25.0 ms in its queue, of a TTFT of 100 ms"}),
        ({"queue_ms": 24.0}, {}),
        ({"queue_ms": 4.0, "ttft_ms": 8.0}, {}),
        ({"queue_ms": None, "waiting": 0.5}, {"queueing": "0.500 requests waited in its queue on average"}),
        ({"queue_ms": None, "waiting": 0.4}, {}),
        ({"queue_ms": None, "waiting": None}, {}),
        ({"queue_ms": 1.0, "waiting": 5.0}, {}),
        ({"kv_used_peak": 0.95}, {"kv_cache_full": "its KV cache was 95% full"}),
        ({"kv_used_peak": 0.94}, {}),
        ({"kv_used_peak": None}, {}),
    ],
)
def test_what_an_engine_says_of_its_queue_and_its_cache(changed, said):
    assert shown(block(own=dataclasses.replace(OWN, **changed))) == said


def test_to_wait_for_the_step_under_way_is_no_queueing():
    own = dataclasses.replace(OWN, queue_ms=50.0)
    assert shown(block([request(0, [60, 20, 20])], own=own)) == {}
    assert "queueing" in shown(block([request(0, [60, 15, 15])], own=own))


def test_queue_limits():
    served = [request(n, [10 * n + 1]) for n in range(10)]
    refused = [request(50, [], error="http_503"), request(50, [], error="http_429")]
    assert shown(block([*served, *refused])) == {"queue_limits": "it refused 2 of 12 requests"}
    given_up = request(0, [], done=600_000 * MS, error="stream_error")
    assert shown(block([*served, given_up]))["queue_limits"].startswith("1 of 11 requests ended without a token after")
    soon = request(0, [], done=50 * MS, error="stream_error")
    gone = request(0, [], done=600_000 * MS, error="connection_cut")
    begun = request(0, [5], done=600_000 * MS, error="finish_abort")
    assert shown(block([*served, soon, gone, begun])) == {}
    full = dataclasses.replace(OWN, waiting=58.0)
    assert (
        "58.0 requests on average, of 64"
        in shown(block(served, own=full, kind="ksana", asked={"max_batch_size": 64}))["queue_limits"]
    )
    assert shown(block(served, own=full, kind="ksana")) == {}
    assert shown(block(served, own=full, kind="vllm", asked={"max_batch_size": 64})) == {}


BUDGET = {"max_tokens_per_step": 400, "prefix_caching": True}


@pytest.mark.parametrize(
    ("steps", "hits", "asked", "there"),
    [
        (10, 3600, BUDGET, True),
        (2, 3600, BUDGET, False),  # 20 a step
        (10, 0, BUDGET, False),
        (10, 3600, {}, False),
        (None, 3600, BUDGET, False),
    ],
)
def test_cached_tokens_that_take_budget(steps, hits, asked, there):
    counted = {"queries": 4000, "hits": hits} | ({} if steps is None else {"steps": steps})
    records = [request(n, [1]) for n in range(40)]
    found = shown(block(records, samples(**counted), Cell(100, 1, 16), "ksana", asked))
    assert ("whole_prompts_in_a_step" in found) is there


def again(hits, queries=1000, **more):
    """Ten prompts of 100 tokens, of which five prefixes of 80 tokens come twice."""
    cell = Cell(100, 10, 1, prefixes=Prefixes(count=5, tokens=80, visits=2))
    records = [request(n, [10], index=n) for n in range(10)]
    return block(records, samples(queries=queries, hits=hits), cell, **more)


CACHING = {"prefix_caching": True}


def test_prefixes_that_were_forgotten():
    assert shown(again(40, asked=CACHING)) == {
        "prefixes_evicted": "its prefix cache had 10% of what was sent before",
    }
    small = shown(again(40, asked={**CACHING, "kv_cache_tokens": 300}))
    assert small["prefixes_evicted"].endswith("the prefixes have 400 tokens, the cache 300")
    assert shown(again(370, asked=CACHING)) == {"prefix_cache_used": "its prefix cache had 37% of the prompts' tokens"}
    assert shown(again(0)) == {}, "nobody knows whether it has a prefix cache"
    assert shown(again(0, asked={"prefix_caching": False})) == {}
    assert shown(again(0, queries=900, asked=CACHING)) == {}, "its figures came late"


def test_a_cache_that_missed_what_all_prompts_share():
    def common(hits, queries=2000, asked=None, **more):
        records = [request(n, [10]) for n in range(20)]
        read = samples(queries=queries, hits=hits)
        return block(records, read, asked={"kv_block_size": 16, **(asked or {})}, shared_tokens=80, **more)

    assert shown(common(0)) == {
        "prefix_cache_missed": "it missed its prefix cache: that had 0% of the prompts' tokens, of which 76% were sent "
        "before"
    }
    assert "prefix_cache_missed" not in shown(common(800))
    assert shown(common(6, queries=1800)) == {}, "its figures came late"
    assert shown(common(0, asked={"prefix_caching": False})) == {}
    assert shown(common(800, best=("b", 0.6)))["prefix_cache_missed"].endswith("another engine's 60%")
    assert "prefix_cache_missed" not in shown(common(800, best=("b", 0.45)))


def test_equal_prompts_computed_several_times():
    def copies(hits, asked=CACHING):
        script = (Part(requests=10, prompt_tokens=100, output_tokens=1, same=True),)
        records = [request(0, [10], index=n) for n in range(10)]
        return block(records, samples(queries=1000, hits=hits), Cell(100, 1, 0, rate=1.0), asked=asked, script=script)

    assert shown(copies(600))["computed_twice"] == "of equal prompts that came together 4.00 were computed"
    assert "computed_twice" not in shown(copies(890))
    assert "computed_twice" not in shown(copies(0, {"prefix_caching": False}))


def mixed(waits_ms, long_ms=500):
    """A long prompt each second from 1 s on, a short one 10 ms behind each, and a short one half a second before it."""
    records = [request(500 + 1000 * n, [10], prompt=100) for n in range(4)]
    records += [request(1000 + 1000 * n, [long_ms], prompt=4000) for n in range(4)]
    return records + [request(1010 + 1000 * n, [wait], prompt=100) for n, wait in enumerate(waits_ms)]


def test_head_of_line():
    found = shown(block(mixed([495] * 4)))
    assert found == {"head_of_line": "short prompts sent behind long ones had a TTFT of 495 ms, others of 10.0 ms"}
    assert shown(block(mixed([40] * 4))) == {}, "they overtook the long ones"
    assert shown(block(mixed([25] * 4, long_ms=30))) == {}, "a step that both share"
    assert shown(block(mixed([495] * 2))) == {}, "too few"
    assert shown(block([request(100 * n, [500]) for n in range(20)])) == {}, "one length"


def test_small_requests_held_back_behind_those_preempted():
    small = [request(100 * n, [10] * 4) for n in range(9)]
    held = [*small, request(950, [2000, 10, 10, 10]), request(0, [50] * 100)]
    assert shown(block(held, samples(recomputed=5)))["head_of_line"] == (
        "the smallest requests waited up to 2,000 ms behind those preempted, 10.0 ms as a rule"
    )
    assert "head_of_line" not in shown(block(held, samples(recomputed=0)))
    assert shown(block(held)) == {}


def chunked(after_ms, rows=None, **more):
    """Streams with long prompts at 1 s and at 31 s that stop them, and a shortage between the two."""
    stream = [5] * 200 + [50] + [5] * 5800 + [after_ms] + [5] * 200
    records = [request(0, stream), request(1000, [60], prompt=4096), request(30_045, [after_ms + 10], prompt=4096)]
    rows = rows or [
        (0.0, {"swapped": 0.0}),
        (10.0, {"swapped": 0.0}),
        (12.0, {"swapped": 3.0}),
        (60.0, {"swapped": 3.0}),
    ]
    asked = {"chunked_prefill": True}
    return block(records, samples(*rows), Cell(100, 10, 0, rate=1.0), **{"kind": "ksana", "asked": asked, **more})


def test_chunked_prefill_lost():
    assert shown(chunked(200))["chunked_prefill_lost"] == (
        "long prompts stopped streams for 200 ms after the first shortage of blocks, for 50.0 ms before"
    )
    for other in (
        chunked(60),
        chunked(200, [(0.0, {"swapped": 0.0}), (60.0, {"swapped": 0.0})]),
        chunked(200, [(0.0, {"queries": 0.0}), (60.0, {"queries": 1.0})]),
        chunked(200, kind="vllm"),
        chunked(200, asked={}),
        chunked(200, [(0.0, {"swapped": 0.0}), (60.0, {"swapped": 3.0})]),  # nobody knows when
    ):
        assert "chunked_prefill_lost" not in shown(other)


def slowing(growth, tokens=1000, **more):
    """Answers whose tokens take longer and longer."""
    gaps = [2 * (1 + (growth - 1) * n / 1000) for n in range(1000)]
    return block([request(3000 * n, gaps, tokens=tokens) for n in range(4)], **{"kind": "ksana", **more})


def test_detokenisation_cost():
    assert shown(slowing(1.3))["detokenisation"].startswith("an answer's last quarter takes 1.2")
    assert shown(slowing(1.3, tokens=4000))["detokenisation"].startswith("several tokens share an event (0.250 events")
    assert shown(slowing(1.02)) == {}
    assert shown(slowing(1.3, kind="vllm")) == {}, "there it would be the model"
    assert shown(slowing(1.3, cell=Cell(100, 10, 0, rate=1.0))) == {}, "the load may have grown"
    assert "detokenisation" not in shown(slowing(1.3, read=samples(swapped=4)))
    short = [request(0, [2 * (1 + n / 100) for n in range(100)]) for _ in range(4)]
    assert shown(block(short, kind="ksana")) == {}, "such short answers show nothing of it"


def test_what_times_tell_must_show_in_most_blocks():
    there, not_there = slowing(1.3), slowing(1.0)
    assert shown(there, not_there) == {}
    assert "detokenisation" in shown(there, there, not_there)
    disturbed = dataclasses.replace(there, disturbed=True)
    assert shown(disturbed) == {}, "the machine was shared, or the load generator was the limit"
    assert "detokenisation" in shown(there, disturbed, disturbed)
    preempted = block(read=samples(recomputed=3), disturbed=True)
    assert "preemption" in shown(preempted), "counts stay what they are"


def test_every_mechanism_has_its_pages_and_its_chinese():
    chinese = language_of("zh")
    assert len({mechanism.name for mechanism in MECHANISMS}) == len(MECHANISMS)
    for mechanism in MECHANISMS:
        assert chinese(mechanism.title) != mechanism.title
        for kind in ("vllm", "ksana", "llamacpp"):
            page, _, anchor = mechanism.page(kind).partition("#")
            text = (TOP / page).read_text(encoding="utf-8")
            headings = [
                re.sub(r"[^a-z0-9 -]", "", line.lower()).strip() for line in text.splitlines() if line[:1] == "#"
            ]
            assert anchor in [heading.replace(" ", "-") for heading in headings], mechanism.page(kind)
            assert (TOP / page.replace(".md", ".zh.md")).is_file()
