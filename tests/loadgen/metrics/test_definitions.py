"""What one request's metrics are, against hand-computed values."""

from __future__ import annotations

import pytest

from loadgen.metrics import definitions as d
from loadgen.metrics.summary import itl_ms
from tests.loadgen.records import MS, record

# Sent at 100 ms though wanted at 80; events at 150, 160, 190, 250 ms; 7 tokens.
GOLDEN = record(
    100 * MS, [50 * MS, 60 * MS, 90 * MS, 150 * MS], t_intended=80 * MS, output_tokens=7, prompt_tokens=4, done=251 * MS
)


def test_golden_request():
    assert d.ttft_ms(GOLDEN) == 50
    assert d.ttft_from_intended_ms(GOLDEN) == 70
    assert d.tpot_ms(GOLDEN) == pytest.approx(100 / 6)
    assert d.e2e_ms(GOLDEN) == 150, "to the last content event, not to the end of the stream"
    assert itl_ms(GOLDEN).tolist() == [10, 30, 60]
    assert d.tokens_per_event([GOLDEN]) == 7 / 4


def test_what_did_not_happen_has_no_value():
    nothing = record(0, done=5, error="connect")
    assert [f(nothing) for f in (d.ttft_ms, d.ttft_from_intended_ms, d.tpot_ms, d.e2e_ms)] == [None] * 4
    assert itl_ms(nothing).size == 0
    assert d.tpot_ms(record(0, [5], output_tokens=1)) is None, "one token has no gap"
    assert d.tpot_ms(record(0, [5, 6], output_tokens=None)) is None, "tokens are not guessed from events"
    assert d.tokens_per_event([nothing]) is None
    assert d.tokens_per_event([]) is None


def test_every_metric_has_a_definition():
    for name in ("TTFT", "TPOT", "ITL", "E2E", "output throughput", "window", "measured request"):
        assert d.DEFINITIONS[name]
