"""A machine that moves: what the interleaved order cancels, what it cannot, and when the check speaks."""

from __future__ import annotations

import numpy as np
import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import Metric
from loadgen.statistics.result import Settings
from loadgen.statistics.words import drift_words
from tests.loadgen.statistics.samples import cell, places

MEAN = Metric("tpot_ms.mean", "tpot_ms", "mean", "ms")
SETTINGS = Settings(headline=("tpot_ms.mean",))


def run(repeats, drift, *, order="abba", only_b=False, scale=1.0, seed=1, block_effect=0.001):
    """A cell in which every block is slower by a share that grows linearly to `drift` over the run."""
    rng = np.random.default_rng(seed)
    turns = np.array(places(repeats, order), dtype=float)
    slow = 1 + drift * turns / (2 * repeats - 1)
    sides = []
    for column, factor in ((0, 1.0), (1, scale)):
        noise = np.exp(rng.normal(0, block_effect, (repeats, 1)) + rng.normal(0, 0.02, (repeats, 100)))
        moved = np.ones(repeats) if only_b and column == 0 else slow[:, column]
        sides.append(10 * factor * noise * moved[:, None])
    found = compare("left", "right", [cell(*sides, order=order)], SETTINGS, [MEAN])
    return found, found.cells[0].metrics[MEAN.key]


@pytest.mark.parametrize("repeats", [4, 6])
def test_a_drift_of_both_makes_a_winner_of_a_then_b_but_not_of_the_interleaved_run(repeats):
    _, plain = run(repeats, 0.2, order="aabb")
    assert plain.p_adjusted < 0.001 and plain.ratio.ci95[0] > 1.05  # equal engines, and b looks 10% slower
    assert (plain.verdict, plain.reason) == ("undecided", "order")  # the check says that the order did it
    assert plain.drift.order_bias == pytest.approx(plain.ratio.estimate, rel=0.03)
    found, woven = run(repeats, 0.2)
    assert woven.verdict in ("none", "undecided")
    assert woven.ratio.ci95[0] < 1 < woven.ratio.ci95[1]
    assert woven.drift.order_bias is None or woven.drift.order_bias == pytest.approx(1, abs=1e-9)
    assert woven.drift.moved == ["a", "b"]
    lines = drift_words(woven, found)
    assert len(lines) == 2
    assert lines[0].startswith("TPOT mean of left moved by +") and "difference" not in lines[0]  # none is claimed


@pytest.mark.parametrize("repeats", [3, 4, 6])
def test_one_engine_that_slows_down_is_called_no_loser(repeats):
    _, found = run(repeats, 0.2, only_b=True)
    assert found.verdict == "undecided"
    assert found.drift.moved == ["b"]
    assert found.drift.b.estimate > 1.09 and found.drift.b.ci95[0] > 1
    assert found.drift.a.estimate == pytest.approx(1, abs=0.02)


def test_six_repeats_of_one_engine_slowing_down_would_be_called_without_the_check():
    _, found = run(6, 0.2, only_b=True)
    assert found.p_adjusted < 0.05
    assert (found.reason, found.drift.trend_p < 0.05) == ("trend", True)


def test_a_real_difference_is_called_in_spite_of_drift():
    _, found = run(6, 0.2, scale=1.3)
    assert found.verdict == "a"
    assert found.ratio.ci95[0] < 1.3 < found.ratio.ci95[1]
    assert found.drift.moved == []


def test_a_winner_on_a_machine_that_moved_by_more_is_said_so():
    found, woven = run(6, 0.4, scale=1.1)
    assert woven.verdict == "a"
    assert woven.drift.moved == ["a", "b"]
    assert all("more than the difference found (9.9%)" in line for line in drift_words(woven, found))


@pytest.mark.parametrize(("repeats", "block_effect"), [(4, 0.0), (4, 0.05), (8, 0.05)])
def test_a_still_machine_is_said_to_move_by_chance_only(repeats, block_effect):
    """Two engines, each wrongly in 5% of runs: 9.75% together, of 300 runs at most 46 (0.1% by chance)."""
    spoke = sum(bool(run(repeats, 0.0, seed=seed, block_effect=block_effect)[1].drift.moved) for seed in range(300))
    assert spoke <= 46


def test_two_repeats_cannot_tell_a_move_from_chance():
    drift = run(2, 0.2)[1].drift
    assert drift.a.estimate > 1.1 and drift.a.ci95 is None
    assert drift.moved == []


def test_one_repeat_shows_no_drift():
    assert run(1, 0.2)[1].drift is None
