"""Which requests met an SLO, and goodput, by hand and against plain arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loadgen.metrics.slo import Slo, keeps, meets, needed
from loadgen.metrics.summary import summarise
from loadgen.metrics.window import Window
from tests.loadgen.records import MS, record

SLO = Slo(ttft_ms=100, tpot_ms=10, e2e_ms=200, percentile=75)


def request(ttft=50, tpot=5.0, tokens=11, send=0, late=0, **fields):
    """A request sent at `send` ms, `late` ms after it was due; times in ms."""
    first, last = round(ttft * MS), round((ttft + tpot * (tokens - 1)) * MS)
    made = record(send * MS, [first, last], output_tokens=tokens, **fields)
    made.t_intended = (send - late) * MS
    return made


@pytest.mark.parametrize(
    ("made", "ttft", "tpot", "e2e"),
    [
        (request(), True, True, True),
        (request(ttft=100), True, True, True),  # a limit may be reached
        (request(ttft=100.001), False, True, True),
        (request(tpot=10), True, True, True),
        (request(tpot=10.001), True, False, True),
        (request(ttft=90, tpot=10, tokens=12), True, True, True),
        (request(ttft=90, tpot=10, tokens=13), True, True, False),
        (request(late=51), False, True, True),  # waiting to be sent is waiting
        (request(late=100), False, True, True),
        (request(late=101), False, True, False),
        (request(error="http_500"), False, False, False),
        (record(0, [50 * MS], output_tokens=1), True, True, True),  # no second token
        (record(0, []), False, True, False),
    ],
)
def test_a_request_and_each_limit(made, ttft, tpot, e2e):
    limits = SLO.limits()
    assert [keeps(made, name, limits[name]) for name in ("ttft_ms", "tpot_ms", "e2e_ms")] == [ttft, tpot, e2e]
    assert meets(made, SLO) == (ttft and tpot and e2e)


def test_limits_that_are_not_set_do_not_count():
    slow = request(ttft=5000)
    assert meets(slow, Slo(tpot_ms=10))
    assert not meets(slow, Slo(tpot_ms=10, ttft_ms=4999))
    assert not meets(request(error="stall_timeout"), Slo(tpot_ms=10))


def test_goodput_of_a_cell_by_hand():
    # A window of 2 s. Five end inside it without an error, four of them in time; one in time ends behind it.
    ended = [request(send=100 * n) for n in range(4)] + [request(send=500, ttft=101)]
    failed, behind = request(send=600, error="http_500"), request(send=1950)
    measured = [*ended, failed]
    summary = summarise([([*measured, behind], measured, Window(0, 2_000 * MS))], SLO)
    figures = summary.slo
    assert figures is not None
    assert summary.requests_per_s == 2.5
    assert figures.goodput_per_s == 2.0
    assert (figures.met, figures.requests) == (4, 6)
    assert figures.met_share == pytest.approx(4 / 6)
    assert figures.holds is False
    assert figures.met_share_by_limit == {"ttft_ms": 4 / 6, "tpot_ms": 5 / 6, "e2e_ms": 5 / 6}


def test_an_slo_holds_at_exactly_its_share():
    measured = [request(send=n) for n in range(3)] + [request(send=4, ttft=150)]
    figures = summarise([(measured, measured, Window(0, 1_000 * MS))], SLO).slo
    assert figures is not None
    assert figures.holds is True


def test_without_requests_nothing_is_said():
    figures = summarise([([], [], None)], SLO).slo
    assert figures is not None
    assert (figures.goodput_per_s, figures.met_share, figures.holds) == (None, None, None)
    assert set(figures.met_share_by_limit.values()) == {None}
    assert summarise([([], [], None)]).slo is None


@given(st.integers(1, 5000), st.integers(1, 999))
def test_how_many_are_needed(total, permille):
    least = needed(total, permille / 1000)
    assert Fraction(least, total) >= Fraction(permille, 1000) > Fraction(least - 1, total)


@pytest.mark.parametrize(
    "fields",
    [{}, {"percentile": 95}, {"ttft_ms": 0}, {"ttft_ms": 1, "percentile": 100}, {"ttft_ms": 1, "percentile": 0}],
)
def test_what_is_no_slo(fields):
    with pytest.raises(ValidationError):
        Slo.model_validate(fields)
