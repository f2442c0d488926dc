"""Whatever is measured, a comparison gives figures or a reason, never a traceback."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadgen.presentation.figures import brief
from loadgen.presentation.headline import headline
from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import METRICS, CellSample, Load
from loadgen.statistics.unpaired import compare_unpaired
from loadgen.statistics.words import verdict_words
from tests.loadgen.statistics.samples import block, cell, paced

CHOSEN = [metric for metric in METRICS if metric.key in ("tpot_ms.mean", "tpot_ms.p50", "output_tokens_per_s")]
LOADS = [None, Load("users", 1.0), Load("users", 16.0), Load("req/s", 2.0)]
FEW = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0, 1e-9, 1e9])


@st.composite
def matrices(draw):
    """One to six cells of one to four repeats, of few different values."""
    pool = st.sampled_from(draw(st.lists(FEW, min_size=1, max_size=4)))
    repeats, requests = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 20]))
    cells = []
    for number in range(draw(st.integers(1, 6))):
        sides = [
            [
                block(
                    repeat,
                    [draw(pool)] * requests,
                    at=draw(st.integers(0, 3)),
                    rate=draw(pool),
                    invalid=draw(st.sampled_from([None, None, None, "it failed"])),
                )
                for repeat in range(1, repeats + 1)
            ]
            for _ in range(2)
        ]
        cells.append(CellSample(f"p{number}", *sides, draw(st.sampled_from(LOADS))))
    return cells


def numbers(data):
    """Every number in what came out."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list | tuple):
        return [number for value in data for number in numbers(value)]
    return [data] if isinstance(data, float) else []


@pytest.mark.parametrize("judge", [compare, compare_unpaired])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(cells=matrices())
def test_any_input_has_finite_figures_and_words(judge, cells):
    found = judge("l", "r", cells, metrics=CHOSEN)
    assert all(math.isfinite(number) for number in numbers(found.model_dump()))
    assert headline(found).sentence
    judged = [*found.overall.values(), *(one for cell in found.cells for one in cell.metrics.values())]
    judged += [one for load in found.loads for one in load.metrics.values()]
    for one in judged:
        assert verdict_words(one, found)
        assert len(brief(one)) <= 10 or one.ratio.ci95 is None
        if one.ratio is not None and one.ratio.ci95 is not None:
            low, high = one.ratio.ci95
            assert low <= one.ratio.estimate * (1 + 1e-9) and high >= one.ratio.estimate * (1 - 1e-9)


@pytest.mark.parametrize("judge", [compare, compare_unpaired])
def test_cells_that_all_move_alike_go_by_their_own_repeats(judge):
    """What is common to all cells is all that scatters, so the cells know no scatter of their own together."""
    cells = [paced(1.2, id=f"p{length}-o0128-c{load:03}") for length in (512, 1024) for load in (1, 16)]
    one, *others = [each.metrics["tpot_ms.mean"] for each in judge("l", "r", cells, metrics=CHOSEN).cells]
    assert (one.scatter, one.freedom) == ("own", pytest.approx(3, abs=3))
    alone = judge("l", "r", cells[:1], metrics=CHOSEN).cells[0].metrics["tpot_ms.mean"]
    assert one.ratio == alone.ratio
    assert all(other.ratio == one.ratio for other in others)


def test_values_that_are_all_equal_are_no_difference():
    same = [cell(np.full((2, 20), 7.0), np.full((2, 20), 7.0), id=f"p{i}") for i in range(5)]
    found = compare("l", "r", same, metrics=CHOSEN[:1])
    assert (found.cells[0].metrics[CHOSEN[0].key].verdict, found.scatter) == ("none", "own")
