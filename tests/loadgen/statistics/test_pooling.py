"""When cells share their scatter in a whole comparison, and what it is worth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import Metric
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.power import further_repeats
from loadgen.statistics.result import Settings
from loadgen.statistics.scatter import PROCESSES, shared_scatter
from loadgen.statistics.unpaired import compare_unpaired
from tests.loadgen.statistics.samples import cell

MEAN = Metric("tpot_ms.mean", "tpot_ms", "mean", "ms")
P95 = Metric("tpot_ms.p95", "tpot_ms", 95, "ms")
HEADLINE = Settings(headline=("tpot_ms.mean",))


def cells(number, repeats=2, ratio=1.2, seed=1):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(number):
        a, b = (
            10 * scale * np.exp(rng.normal(0, 0.01, (repeats, 1)) + rng.normal(0, 0.1, (repeats, 40)))
            for scale in (1.0, ratio)
        )
        found.append(cell(a, b, id=f"p{i:02}"))
    return found


def width(one):
    low, high = one.ratio.ci95
    return math.log(high / low)


@pytest.mark.parametrize("judge", [compare, compare_unpaired])
@pytest.mark.parametrize("metric", [MEAN, P95])
def test_sixteen_cells_of_two_repeats_decide_what_each_alone_does_not(judge, metric):
    options = Settings(headline=(metric.key,))
    together = judge("l", "r", cells(16, ratio=1.5), options, [metric])
    alone = [judge("l", "r", [one], options, [metric]).cells[0].metrics[metric.key] for one in cells(16, ratio=1.5)]
    found = [one.metrics[metric.key] for one in together.cells]
    assert together.scatter == "shared"
    assert [one.ratio.estimate for one in found] == pytest.approx([one.ratio.estimate for one in alone])
    assert np.median([width(one) for one in found]) < 0.5 * np.median([width(one) for one in alone])
    assert np.mean([one.verdict == "a" for one in found]) > 0.7
    assert {one.scatter for one in found} == {"shared"}
    assert {one.scatter for one in alone} == {"own"}
    assert all(one.freedom > 1 for one in found)


def test_few_cells_or_one_repeat_are_each_by_itself():
    three = compare("l", "r", cells(3), HEADLINE, [MEAN])
    single = compare("l", "r", cells(8, repeats=1), HEADLINE, [MEAN])
    assert (three.scatter, single.scatter) == ("own", "own")
    assert [one.metrics[MEAN.key].freedom for one in three.cells] == [1, 1, 1]
    assert {one.metrics[MEAN.key].reason for one in single.cells} == {"one_repeat"}


def test_a_cell_that_lost_a_repeat_has_no_verdict_and_the_others_keep_theirs():
    all_cells = cells(8, repeats=2)
    lost = dataclasses.replace(all_cells[3], b=all_cells[3].b[:1])
    found = compare("l", "r", [*all_cells[:3], lost, *all_cells[4:]], HEADLINE, [MEAN])
    reasons = [one.metrics[MEAN.key].scatter for one in found.cells]
    assert reasons == ["shared"] * 3 + ["own"] + ["shared"] * 4
    assert found.cells[3].metrics[MEAN.key].reason == "one_repeat"
    assert found.overall[MEAN.key].cells == 7


def test_the_difference_moves_with_the_ratio():
    one = compare("l", "r", cells(6), HEADLINE, [MEAN]).cells[0].metrics[MEAN.key]
    low, high = one.difference.ci95
    middle = (one.a.estimate + one.b.estimate) / 2
    assert (high - low) / middle == pytest.approx(width(one), rel=0.01)
    assert (low + high) / 2 == pytest.approx(one.b.estimate - one.a.estimate)


def test_what_does_not_scatter_at_all_is_by_itself():
    flat = [cell(np.full((2, 20), 10.0), np.full((2, 20), 11.0), id=f"p{i}") for i in range(6)]
    found = compare("l", "r", flat, HEADLINE, [MEAN])
    assert (found.scatter, found.verdict) == ("own", "a")


def test_the_further_repeats_told_would_do():
    rng, level = np.random.default_rng(3), 0.05 / 51
    decided = []
    for _ in range(20):
        y = 0.018 * rng.standard_normal((16, 30)) + 0.06

        def first(units, y=y):
            found = shared_scatter(y[:, :units], None, PROCESSES)
            return Mixture(float(y[0, :units].mean()), found.variances[0] / units, found.weights[0])

        more = further_repeats(first(2), 2, alpha=level, reach=math.log(1.02))
        if first(2).p_value > level and more is not None and more <= 28:
            decided.append(first(2 + more).p_value <= level)
    assert len(decided) >= 10
    assert np.mean(decided) >= 0.6  # it is planned for 80%
