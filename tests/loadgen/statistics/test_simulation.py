"""Do the promises hold on data whose truth is known? Seeded; the larger study is benchmarks/truth/intervals.py."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.truth.intervals import LAWS, RATIO, Law, draw, holds, log_intervals
from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import METRICS, BlockSample, CellSample, Total
from loadgen.statistics.result import Settings
from tests.loadgen.statistics.samples import STEP, cell, places

TPOT = Settings(headline=("tpot_ms.mean",))
MEAN = next(metric for metric in METRICS if metric.key == "tpot_ms.mean")


@pytest.mark.parametrize("figure", ["mean", "50", "95", "99", "rate"])
def test_the_simulated_intervals_are_those_of_compare(figure):
    a, b = draw(np.random.default_rng(1), LAWS["small"], 1, 3, 100)
    key = "output_tokens_per_s" if figure == "rate" else f"tpot_ms.{'p' * figure.isdigit()}{figure}"
    metric = next(metric for metric in METRICS if metric.key == key)
    if figure == "rate":
        blocks = [
            [
                BlockSample(i, i, totals={"output_tokens": Total(100 * 128, float(x.sum()) / 8)})
                for i, x in enumerate(side[0])
            ]
            for side in (a, b)
        ]
        sample = CellSample("c", *blocks)
    else:
        sample = cell(a[0], b[0])
    found = compare("l", "r", [sample], metrics=[metric]).cells[0].metrics[key]
    low, high = log_intervals(a, b, figure)
    assert np.log(found.ratio.ci95) == pytest.approx([low[0], high[0]], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("blocks", [2, 3, 4, 6])
@pytest.mark.parametrize("effects", LAWS)
def test_coverage(blocks, effects):
    a, b = draw(np.random.default_rng([2, blocks]), LAWS[effects], 1500, blocks, 60)
    for figure in ("mean", "50", "95", "99", "rate"):
        covered = holds(log_intervals(a, b, figure), float(np.log(RATIO)) * (-1 if figure == "rate" else 1))
        assert 0.93 <= covered <= 0.97, f"{figure}: {covered:.1%}"


def matrix(rng, law, *, cells, repeats, requests, ratio):
    """A run of several cells: TTFT and TPOT of `law`, and the throughput that follows from them."""
    found = []
    for number in range(cells):
        ttft, tpot = (draw(rng, law, 1, repeats, requests, r) for r in (1.0, ratio))
        sides = []
        for side in (0, 1):
            blocks = []
            for i, place in enumerate(places(repeats)):
                wait, pace = 50 * ttft[side][0, i], 10 * tpot[side][0, i]
                seconds = float((wait + 127 * pace).sum()) / 1e3 / 8
                total = Total(128.0 * requests, seconds)
                blocks.append(
                    BlockSample(i + 1, STEP * place[side], {"ttft_ms": wait, "tpot_ms": pace}, {"output_tokens": total})
                )
            sides.append(blocks)
        found.append(CellSample(f"p{number}", *sides))
    return found


@pytest.mark.parametrize(("repeats", "block"), [(2, 0.0), (3, 0.02), (5, 0.1)])
def test_equal_engines_are_seldom_called_different(repeats, block):
    rng = np.random.default_rng([3, repeats])
    metrics = [metric for metric in METRICS if metric.key in Settings().headline]
    alarms = 0
    for _ in range(200):
        cells = matrix(rng, Law(block, request=0.2), cells=3, repeats=repeats, requests=40, ratio=1.0)
        found = compare("l", "r", cells, Settings(margin=0.0), metrics)
        judged = [*found.overall.values(), *(m for c in found.cells for m in c.metrics.values())]
        alarms += any(one.verdict in ("a", "b") for one in judged)
    assert alarms <= 21  # over the whole family of 12; more than 21 of 200 come once in 1,000 at a rate of 5%


def test_a_true_difference_of_three_percent_is_found():
    rng = np.random.default_rng(4)
    law = Law(0.003, request=0.05)
    metrics = [metric for metric in METRICS if metric.key in Settings().headline]
    called = held = wrong = 0
    for _ in range(60):
        found = compare("l", "r", matrix(rng, law, cells=4, repeats=6, requests=100, ratio=1.03), metrics=metrics)
        one = found.overall["tpot_ms.mean"]
        called += one.verdict == "a"
        held += one.ratio.ci95[0] <= 1.03 <= one.ratio.ci95[1]
        wrong += found.overall["ttft_ms.p50"].verdict in ("a", "b")
    assert called >= 57
    assert held >= 54
    assert wrong <= 3


def test_more_repeats_as_told_decide_it():
    rng = np.random.default_rng(5)
    law = Law(0.02, request=0.1)
    decided = told = 0
    for _ in range(150):
        a, b = draw(rng, law, 1, 60, 50, 1.04)
        first = compare("l", "r", [cell(a[0, :5], b[0, :5])], TPOT, [MEAN]).cells[0].metrics["tpot_ms.mean"]
        more = first.further_repeats
        if first.verdict != "undecided" or more is None or more > 55:
            continue
        told += 1
        second = compare("l", "r", [cell(a[0, : 5 + more], b[0, : 5 + more])], TPOT, [MEAN])
        decided += second.cells[0].verdict in ("a", "b", "none")
    assert told >= 30
    assert decided >= 0.7 * told  # it is planned for 80%
