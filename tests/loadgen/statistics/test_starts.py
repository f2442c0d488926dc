"""Which repeats are independent of each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import CellSample, Metric
from loadgen.statistics.starts import units
from loadgen.statistics.unpaired import compare_unpaired
from tests.loadgen.statistics.samples import block, cell

MEAN = Metric("tpot_ms.mean", "tpot_ms", "mean", "ms")


def started(a, b):
    """A cell whose blocks ran on these starts, by repeat."""
    sides = ([block(i + 1, [1.0], start=start) for i, start in enumerate(side)] for side in (a, b))
    return CellSample("c", *sides)


@pytest.mark.parametrize(
    ("a", "b", "starts", "of_repeat"),
    [
        ([1, 1, 1], [1, 1, 1], 1, {1: 1, 2: 2, 3: 3}),
        ([None, None], [None, None], 1, {1: 1, 2: 2}),
        ([1, 2, 3], [1, 2, 3], 3, {1: 1, 2: 2, 3: 3}),
        ([1, 1, 2, 2], [1, 1, 2, 2], 2, {1: 1, 2: 1, 3: 2, 4: 2}),
        ([1, 2, 3, 4], [1, 1, 2, 2], 2, {1: 1, 2: 1, 3: 2, 4: 2}),
        ([1, 1, 2], [1, 2, 2], 1, {1: 1, 2: 2, 3: 3}),
    ],
)
def test_repeats_that_share_a_start_are_one_unit(a, b, starts, of_repeat):
    found = units([started(a, b)])
    assert (found.starts, dict(found.of_repeat)) == (starts, of_repeat)


def test_an_engine_that_died_in_one_cell_links_that_repeat_in_all():
    broken = CellSample("d", [block(1, [1.0], start=1), block(2, [1.0], start=2)], [block(1, [1.0], start=1)])
    assert units([started([1, 1], [1, 1]), broken]).starts == 1
    lost = dataclasses.replace(broken, a=[dataclasses.replace(broken.a[1], invalid="it failed")])
    assert units([started([2, 3], [1, 2]), lost]).starts == 2


def on_starts(sample, starts):
    a, b = (
        [dataclasses.replace(x, start=s) for x, s in zip(side, starts, strict=True)] for side in (sample.a, sample.b)
    )
    return dataclasses.replace(sample, a=a, b=b)


@pytest.mark.parametrize("judge", [compare, compare_unpaired])
def test_with_several_starts_each_is_as_one_block(judge):
    """Four repeats on two starts give what two blocks of twice the length do."""
    a, b = np.random.default_rng(1).lognormal(2, 0.1, (2, 4, 20))
    several = judge("l", "r", [on_starts(cell(a, b), [1, 1, 2, 2])], metrics=[MEAN])
    long = judge("l", "r", [cell(a.reshape(2, 40), b.reshape(2, 40))], metrics=[MEAN])
    one, other = several.cells[0].metrics[MEAN.key], long.cells[0].metrics[MEAN.key]
    assert (several.scope, several.starts, long.scope, long.starts) == ("starts", 2, "processes", 1)
    assert one.ratio.ci95 == pytest.approx(other.ratio.ci95)
    assert (one.repeats, other.repeats, one.freedom) == (4, 2, other.freedom)
