"""Cells whose answers differ in length, and what of them is not compared."""

import numpy as np
import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.lengths import LENGTH_SHARE, length_differs, lengths_apart
from loadgen.statistics.metrics import BlockSample, CellSample, Total
from loadgen.statistics.unpaired import compare_unpaired

DEPENDENT = {"e2e_ms.mean", "e2e_ms.p50", "e2e_ms.p95", "e2e_ms.p99", "output_tokens_per_s", "requests_per_s"}


def cell(name: str, a: float | np.ndarray, b: float | np.ndarray, repeats: int = 3, requests: int = 40) -> CellSample:
    """Two engines of one speed whose answers have these shares of the length asked for."""
    rng = np.random.default_rng(7)

    def block(repeat: int, share: float | np.ndarray, start: float) -> BlockSample:
        lengths = np.broadcast_to(share, requests).astype(float)
        scatter = 1 + 0.01 * rng.standard_normal()
        return BlockSample(
            repeat,
            start,
            requests={
                LENGTH_SHARE: lengths,
                "ttft_ms": 20 * scatter * (1 + 0.01 * rng.standard_normal(requests)),
                "tpot_ms": 10 * scatter * (1 + 0.01 * rng.standard_normal(requests)),
                "e2e_ms": 20 + 1000 * lengths * scatter,
            },
            totals={
                "output_tokens": Total(float(lengths.sum()) * scatter, 10 * float(lengths.mean()) + 0.5),
                "requests": Total(requests * scatter, 10 * float(lengths.mean()) + 0.5),
            },
        )

    return CellSample(
        name,
        [block(repeat, a, 2.0 * repeat) for repeat in range(1, repeats + 1)],
        [block(repeat, b, 2.0 * repeat + 1) for repeat in range(1, repeats + 1)],
    )


@pytest.mark.parametrize("judge", [compare, compare_unpaired], ids=["paired", "unpaired"])
def test_a_server_that_stops_at_half_is_no_winner(judge):
    found = judge("ok", "short", [cell("p0032-o0128-c001", 1.0, 0.5), cell("p0032-o0128-c004", 1.0, 0.5)])
    assert found.verdict in ("none", "undecided"), found.reason
    for metrics in (found.overall, *(one.metrics for one in found.cells)):
        left_out = {key for key, one in metrics.items() if one.reason == "answer_lengths"}
        assert left_out == DEPENDENT
        for key in DEPENDENT:
            one = metrics[key]
            assert (one.verdict, one.ratio, one.faster, one.p_value) == ("invalid", None, None, None)
        assert metrics["ttft_ms.p50"].ratio and metrics["tpot_ms.mean"].ratio
    assert found.cells[0].metrics["e2e_ms.p50"].a, "each side's own figure is still told"


def test_equal_lengths_are_compared_as_ever():
    found = compare("a", "b", [cell("one", 1.0, 1.0)])
    assert all(one.reason != "answer_lengths" for one in found.overall.values())


def test_only_the_cells_that_differ_are_left_out():
    cells = [cell("same", 1.0, 1.0), cell("other", 1.0, 0.5), cell("third", 1.0, 1.0)]
    found = compare("a", "b", cells)
    assert [one.metrics["e2e_ms.p50"].reason == "answer_lengths" for one in found.cells] == [False, True, False]
    assert found.overall["e2e_ms.p50"].cells == 2


def test_chance_alone_leaves_out_what_it_may():
    rng = np.random.default_rng(1)
    alarms = sum(
        bool(length_differs([cell(str(k), rng.normal(0.6, 0.2, 40), rng.normal(0.6, 0.2, 40), 1) for k in range(4)]))
        for _ in range(400)
    )
    assert alarms <= 30, "5% of 400, and 2.3 standard deviations"


def test_a_small_difference_of_every_cell_is_found_in_all_together():
    rng = np.random.default_rng(2)
    cells = [cell(str(k), rng.normal(0.6, 0.2, 40), rng.normal(0.52, 0.2, 40), 1) for k in range(16)]
    assert length_differs(cells) == {str(k) for k in range(16)}


def test_lengths_of_another_shape_differ_at_equal_means():
    rng = np.random.default_rng(3)
    assert lengths_apart(rng.choice([0.4, 0.8], 100).tolist(), [0.6] * 100)


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [([], [], False), ([1.0], [], False), ([1.0], [1.0], False), ([1.0] * 9, [0.5] * 9, True), ([1.0], [0.5], True)],
    ids=["none", "one side", "equal", "half", "one request each"],
)
def test_few_answers(a, b, apart):
    assert lengths_apart(a, b) is apart
