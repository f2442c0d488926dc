"""Metrics, shares and families in words."""

from __future__ import annotations

import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.words import family_words, metric_words, percent, verdict_words
from tests.loadgen.statistics.samples import paced


def test_what_is_said_of_many_comparisons():
    text = family_words(compare("x", "y", [paced(1.1, id="p1"), paced(1.1, id="p2")]))
    assert text.startswith("Holm's correction over 9 comparisons (TTFT p50, TPOT mean, output throughput of every cell")
    assert "at most 5% of runs" in text


@pytest.mark.parametrize(
    ("share", "text"), [(0.05, "5.0%"), (0.123, "12.3%"), (0.0012, "0.12%"), (0.0, "0.00%"), (-0.034, "-3.4%")]
)
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("share", "repeats", "said"),
    [
        (0.55, 1, "; a difference of 55.0% would have been found (1 further repeat would probably decide it)"),
        (0.99, 35, "; a difference of 99.0% would have been found (35 further repeats would probably decide it)"),
        (8.862, None, "; only a difference of more than a factor of two would have been found"),
        (4.4, 604, " of two would have been found (more than 100 further repeats would be needed to decide it)"),
    ],
)
def test_figures_that_are_too_rough_to_mean_anything_are_said_in_words(share, repeats, said):
    statistics = compare("x", "y", [paced(1.1, id="p1")])
    judged = statistics.cells[0].metrics["ttft_ms.p50"]
    noisy = {"verdict": "undecided", "reason": "too_noisy", "detectable": share, "further_repeats": repeats}
    assert str(verdict_words(judged.model_copy(update=noisy), statistics)).endswith(said)


def test_metric_words():
    assert metric_words("e2e_ms.p99") == "E2E p99"
    assert metric_words("output_tokens_per_s") == "output throughput"
    assert metric_words("new.p50") == "new p50"
