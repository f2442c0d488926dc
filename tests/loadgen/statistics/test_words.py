"""Metrics, shares and families in words."""

from __future__ import annotations

import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.words import family_words, metric_words, percent
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


def test_metric_words():
    assert metric_words("e2e_ms.p99") == "E2E p99"
    assert metric_words("output_tokens_per_s") == "output throughput"
    assert metric_words("new.p50") == "new p50"
