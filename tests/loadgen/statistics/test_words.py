"""The sentences that a manager reads."""

from __future__ import annotations

import numpy as np
import pytest

from loadgen.presentation.language import CHINESE
from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import BlockSample, CellSample, Total
from loadgen.statistics.result import Settings
from loadgen.statistics.words import family_words, metric_words, percent, sentence
from tests.loadgen.statistics.samples import block, cell


def samples(scale, ttft_scale=1.0, *, id="p1", jitter=(0.0, 0.001, -0.001, 0.0005)):
    sides = []
    for pace, wait in ((1.0, 1.0), (scale, ttft_scale)):
        sides.append(
            [
                BlockSample(
                    i + 1,
                    100.0 * i,
                    {
                        "ttft_ms": np.full(20, 50 * wait),
                        "tpot_ms": np.full(20, 10 * pace * np.exp(x if pace != 1 else 0)),
                    },
                    {"output_tokens": Total(100 / pace, 1.0)},
                )
                for i, x in enumerate(jitter)
            ]
        )
    return CellSample(id, sides[0], sides[1])


def test_a_winner():
    found = compare("vllm", "ksana", [samples(1.1)])
    assert sentence(found) == (
        "vllm is faster than ksana: TTFT p50: no difference beyond 2%; "
        "TPOT mean: vllm is faster by 10.0% [9.9%, 10.2%]; output throughput: vllm is faster by 10.0% [10.0%, 10.0%]."
    )
    assert sentence(found, found.cells[0]) == sentence(found)


def test_over_several_cells_and_against_one_of_them():
    cells = [samples(1.1, id="p1"), samples(1.2, id="p2"), samples(0.95, id="p3")]
    text = sentence(compare("vllm", "ksana", cells))
    assert "vllm is faster by 7.8%" in text and "on average over 3 cells (but slower in 1 of them)" in text


def test_equal_and_undecided_and_incomparable():
    assert sentence(compare("x", "y", [samples(1.0)])).startswith("No difference that matters between x and y: ")
    rng = np.random.default_rng(1)
    noisy = cell(10 * np.exp(rng.normal(0, 0.5, (3, 50))), 10.3 * np.exp(rng.normal(0, 0.5, (3, 50))))
    text = sentence(compare("x", "y", [noisy], Settings(headline=("tpot_ms.mean",))))
    assert text.startswith("Undecided between x and y: TPOT mean: undecided, because the blocks scatter too much; ")
    assert "would have been found (" in text and "further repeats would probably decide it)." in text
    text = sentence(compare("x", "y", [CellSample("c", [block(1, [1.0], invalid="it failed")], [])]))
    assert text.startswith("x and y cannot be compared: TTFT p50: no repeat has a valid block of both engines; ")


def test_each_engine_ahead_in_one():
    assert sentence(compare("x", "y", [samples(1.1, 0.5)])).startswith(
        "Undecided between x and y: TTFT p50: y is faster by 100.0%"
    )


def test_another_language_is_another_table():
    assert CHINESE(sentence(compare("甲", "乙", [samples(1.1)]))).startswith("甲 比 乙 快。首 Token 延迟 (TTFT) p50：")


def test_what_is_said_of_many_comparisons():
    text = family_words(compare("x", "y", [samples(1.1, id="p1"), samples(1.1, id="p2")]))
    assert text.startswith("Holm's correction over 9 comparisons (TTFT p50, TPOT mean, output throughput of every cell")
    assert "at most 5% of runs" in text


@pytest.mark.parametrize(
    ("share", "text"), [(0.05, "5.0%"), (0.123, "12.3%"), (0.0012, "0.12%"), (0.0, "0.00%"), (-0.034, "-3.4%")]
)
def test_percent(share, text):
    assert percent(share) == text


def test_metric_words():
    assert metric_words("e2e_ms.p99") == "E2E p99"
    assert metric_words("output_tokens_per_s") == "output throughput"
    assert metric_words("new.p50") == "new p50"
