"""Figures of experiments against blocks written down by hand, and verdicts."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from loadgen.explain import block_figures as figures
from loadgen.explain.block_figures import Seen
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.record import TpotBasis
from loadgen.report.experiment import Finding
from loadgen.scenario.cell import Cell
from loadgen.scenario.script import Part
from loadgen.scenario.shapes import Prefixes
from tests.loadgen.records import MS, record


def request(at_ms: float, gaps_ms: list[float], prompt: int = 100, index: int = 0, output: int | None = None):
    """One whose tokens come after these gaps, an event each."""
    offsets = itertools.accumulate(round(gap * MS) for gap in gaps_ms)
    return record(
        round(at_ms * MS),
        offsets,
        index=index,
        prompt_tokens_wanted=prompt,
        output_tokens_wanted=len(gaps_ms) if output is None else output,
        output_tokens=len(gaps_ms),
        tpot_tokens=len(gaps_ms) - 1,
        tpot_basis=TpotBasis.EVENTS,
    )


def told(**ends: float) -> BlockSamples:
    return BlockSamples("b", [(0.0, dict.fromkeys(ends, 5.0)), (1.0, {name: 5 + end for name, end in ends.items()})])


CIRCLE = Cell(100, 1, 1, prefixes=Prefixes(count=2, tokens=80, visits=2))
FOUR = [request(at, [1]) for at in range(4)]


@pytest.mark.parametrize(("hits", "found", "again"), [(0, 0.0, 80.0), (80, 0.5, 40.0), (160, 1.0, 0.0)])
def test_what_was_sent_before_and_found_again(hits, found, again):
    seen = Seen(FOUR, told(queries=400, hits=hits), CIRCLE)
    assert figures.found_again(seen) == found
    assert figures.computed_again(seen) == again


def test_counts_of_other_requests_tell_nothing():
    for samples in (None, told(queries=450, hits=0), told(queries=100, hits=0), told(queries=-1, hits=0)):
        assert figures.found_again(Seen(FOUR, samples, CIRCLE)) is None
    cut_off = dataclasses.replace(request(9, []), error="aborted")
    assert figures.found_again(Seen([*FOUR, cut_off], told(queries=400, hits=160), CIRCLE)) == 1.0


def test_equal_prompts_and_steps():
    script = [Part(requests=1, prompt_tokens=50, output_tokens=1)]
    script += [Part(requests=3, prompt_tokens=100, output_tokens=1, same=True)]
    asked = [request(0, [1], 50), *FOUR[:3]]
    seen = Seen(asked, told(queries=350, hits=180, steps=2), Cell(87, 1, 0, 1.0), script)
    assert figures.copies_computed(seen) == pytest.approx(1.2)
    assert figures.requests_a_step(seen) == 2
    assert figures.prompt_tokens_a_step(seen) == 85
    pushed = Seen(asked, told(queries=350, hits=180, running_n=4), Cell(87, 1, 0, 1.0), script)
    assert figures.requests_a_step(pushed) == 1


def test_preemptions_of_both_kinds():
    assert figures.preemptions(Seen(FOUR, told(recomputed=2, swapped=3), CIRCLE)) == 5
    assert figures.preemptions(Seen(FOUR, told(recomputed=0), CIRCLE)) == 0
    assert figures.preemptions(Seen(FOUR, told(queries=0), CIRCLE)) is None


def test_who_suffers():
    rising = [request(at, [1, 1, 1 + at], index=at) for at in range(12)]
    falling = [request(at, [1, 1, 20 - at], index=at) for at in range(12)]
    assert figures.gap_by_arrival(Seen(rising, None, CIRCLE)) == pytest.approx(1.0)
    assert figures.gap_by_arrival(Seen(falling, None, CIRCLE)) == pytest.approx(-1.0)
    assert figures.gap_by_arrival(Seen(rising[:5], None, CIRCLE)) is None
    probes = [request(at, [wait], 10) for at, wait in enumerate([2, 2, 40])]
    assert figures.longest_wait(Seen([*rising, *probes], None, CIRCLE)) == 20
    assert figures.longest_wait(Seen(rising, None, CIRCLE)) is None


def test_gaps_during_bursts():
    script = [Part(requests=1, prompt_tokens=9, output_tokens=30)]
    script += [Part(at_s=at, requests=1, prompt_tokens=99, output_tokens=1) for at in (0.005, 0.020)]
    stream = request(0, [1] * 10 + [2] * 5 + [4] * 15, 9, 0, 30)
    bursts = [request(5, [4], 99, 1), request(20, [4], 99, 2)]
    seen = Seen([stream, *bursts], None, Cell(69, 11, 0, 1.0), script)
    assert figures.burst_gap_growth(seen) == pytest.approx(4.0)
    assert figures.burst_gap_growth(dataclasses.replace(seen, records=[stream, bursts[0]])) is None


def test_answers_that_slow_down_and_events_of_several_tokens():
    slow = request(0, [1] * 41 + [2] * 40)
    assert figures.slowing_down(Seen([slow], None, CIRCLE)) == pytest.approx(2.0)
    merged = dataclasses.replace(slow, output_tokens=200)
    assert figures.slowing_down(Seen([merged], None, CIRCLE)) is None
    assert figures.events_a_token(Seen([merged], None, CIRCLE)) == pytest.approx(81 / 200)


def test_tpot_beside_the_first_engine():
    assert figures.tpot_to_first(Seen([request(0, [1, 3, 3])], None, CIRCLE, first=[request(0, [1, 2, 2])])) == 1.5
    assert figures.tpot_to_first(Seen(FOUR, None, CIRCLE, first=FOUR)) is None


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.5, 1.0), "as predicted"),
        ((0.4, 1.1), "not as predicted"),
        ((0.5, 1.1), "cannot tell"),
        ((0.5, None), "cannot tell"),
        ((), "cannot tell"),
    ],
)
def test_blocks_that_do_not_agree_or_are_not_known_decide_nothing(values, verdict):
    assert Finding("a", "found_again", 0.5, 1.0, values).verdict == verdict
    assert Finding("a", "found_again", None, None, values[:1]).verdict == ("as predicted" if values else "cannot tell")
