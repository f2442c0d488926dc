"""Two events that share the first arrival: chance in one answer, a habit in a block of them."""

import pytest

from loadgen.metrics.definitions import tpot_ms
from loadgen.metrics.slo import Slo
from loadgen.metrics.summary import summarise
from loadgen.metrics.window import CutRule
from loadgen.record import TpotBasis
from tests.loadgen.records import MS, record

GAP = 20


def answer(number, tokens=16, pair=True, each=1, **fields):
    """An answer of a server that makes a token each 20 ms and hands on the first event with the second, or does not."""
    first = 100.0 + GAP * each * pair
    later = [100.0 + GAP * each * place for place in range(1 + pair, tokens // each)]
    offsets = [first] * (1 + pair) + later
    told = {"output_tokens": tokens, "tpot_basis": TpotBasis.EVENTS, "tpot_tokens": tokens - each}
    return record(number * 1000 * MS, [round(at * MS) for at in offsets], **told | fields)


def measured(records):
    return CutRule(1, 0, None).cut(records).measured(records)


BLOCKS = {
    "every answer": ([True] * 8, 20.0),
    "nearly every answer": ([True] * 7 + [False], 20.0),
    "three of three": ([True] * 3, 20.0),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_pair_in_every_answer_is_no_chance(name):
    pairs, true = BLOCKS[name]
    block = [answer(number, pair=pair) for number, pair in enumerate(pairs)]
    assert [tpot_ms(r) for r in measured(block)] == pytest.approx([true] * len(block))
    assert tpot_ms(block[0]) == pytest.approx(20 * 14 / 15), "the record of one answer is by the definition"


@pytest.mark.parametrize("pairs", [[True], [True] * 2, [True, False] * 4, [False] * 8, [True] * 5 + [False] * 2])
def test_a_pair_in_some_answers_is_taken_for_chance(pairs):
    block = [answer(number, pair=pair) for number, pair in enumerate(pairs)]
    assert measured(block) == block


def test_several_tokens_an_event_leave_out_as_many():
    block = [answer(number, tokens=64, each=4) for number in range(4)]
    assert [tpot_ms(r) for r in measured(block)] == pytest.approx([20.0] * 4)


def test_figures_and_the_slo_go_by_what_the_block_tells():
    block = [answer(number) for number in range(8)]
    cut = CutRule(1, 0, None).cut(block)
    figures = summarise([(block, cut.measured(block), cut.window)], Slo(tpot_ms=19))
    assert figures.tpot_ms.mean == pytest.approx(20) and figures.slo is not None
    assert (figures.slo.met, figures.slo.goodput_per_s) == (0, 0)


@pytest.mark.parametrize(
    "odd", [{"error": "no_finish"}, {"tpot_tokens": None, "tpot_basis": TpotBasis.CLUMPS}, {"tpot_basis": None}]
)
def test_answers_without_a_tpot_tell_nothing(odd):
    told = odd if "error" in odd or "tpot_tokens" in odd else {**odd, "tpot_tokens": None}
    block = [answer(number, **told) for number in range(4)]
    assert CutRule(1, 0, None).cut(block).measured(block) == block
