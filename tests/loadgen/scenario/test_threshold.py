"""Thresholds as text: what is read, what is refused, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.scenario.threshold import LATENCIES, METRICS, RATES, Threshold, ThresholdError, parse_threshold

NUMBERS = st.decimals("0", "1000000", allow_nan=False, allow_infinity=False, places=3).map(float)
COMPARISONS = st.sampled_from("><")
STATISTICS = st.sampled_from(["mean", "p1", "p50", "p95", "p99", "p99.9"])


@st.composite
def written(draw):
    """A threshold as its parts and as a person may write it."""
    metric = draw(st.sampled_from(METRICS))
    difference = draw(st.booleans())
    if metric in LATENCIES:
        statistic, units = draw(STATISTICS), ["ms", "s", "%"] if difference else ["ms", "s"]
    elif metric in RATES:
        statistic, units = None, ["%", RATES[metric]] if difference else [RATES[metric]]
    else:
        statistic, units = None, ["pp"] if difference else ["%"]
    unit = draw(st.sampled_from(units))
    sign = draw(st.sampled_from("+-")) if difference else ""
    number = draw(NUMBERS if unit not in ("%", "pp") else NUMBERS.map(lambda value: value % 99))
    number += 0.001 if not difference else 0  # no limit is 0
    spaces = [draw(st.sampled_from(["", " ", "  ", "\t"])) for _ in range(5)]
    comparison = draw(COMPARISONS)
    text = f"{metric}.{statistic}" if statistic else metric
    shown = f"{number:.3f}" if draw(st.booleans()) else f"{number:.3f}".rstrip("0").rstrip(".")
    text = f"{spaces[0]}{text}{spaces[1]}{comparison}{spaces[2]}{sign}{shown}{spaces[3]}{unit}{spaces[4]}"
    amount = -float(shown) if sign == "-" else float(shown)
    return text, Threshold(metric, statistic, comparison == ">", difference, amount, unit)


@given(written())
def test_what_is_written_is_read(example):
    text, threshold = example
    assert parse_threshold(text) == threshold


@given(written())
def test_what_is_shown_is_read_as_the_same(example):
    _, threshold = example
    assert parse_threshold(str(threshold)) == threshold


@given(st.text(st.sampled_from("ttft.p95mean><+-0123456789.%ps \t/errors_output_tokens_per_s\n\x00é"), max_size=40))
def test_other_text_is_refused_with_its_place(text):
    try:
        threshold = parse_threshold(text)
    except ThresholdError as error:
        assert 0 <= error.position <= len(text)
        caret = str(error).splitlines()[2]
        assert caret[: error.position + 3] == "  " + " " * error.position + "^"
    else:
        assert parse_threshold(str(threshold)) == threshold


@given(written(), st.data())
def test_a_threshold_with_a_part_cut_out_is_refused_or_still_whole(example, data):
    text, _ = example
    cut = data.draw(st.integers(0, len(text)))
    try:
        found = parse_threshold(text[:cut])
    except ThresholdError as error:
        assert error.position <= cut
    else:
        assert parse_threshold(str(found)) == found


@pytest.mark.parametrize(
    ("text", "at", "hint"),
    [
        ("", 0, "known metrics"),
        ("tfft.p95 > +5%", 0, "did you mean ttft"),
        ("ttft > +5%", 4, "ttft.p95"),
        ("ttft.p95.9.9 > +5%", 5, "percentile"),
        ("ttft.p100 > +5%", 5, "percentile"),
        ("ttft.p0 > +5%", 5, "percentile"),
        ("ttft.median > +5%", 5, "percentile"),
        ("errors.mean > 1%", 6, "leave this out"),
        ("ttft.p95 = 5", 9, "'>' or '<'"),
        ("ttft.p95 >> +5%", 10, "a number"),
        ("ttft.p95 > five", 11, "a number"),
        ("ttft.p95 > + 5%", 12, "a number"),
        ("ttft.p95 > 5%", 11, "give it a sign"),
        ("ttft.p95 > +5", 13, "ms, s or %"),
        ("ttft.p95 > 800 tok/s", 15, "ms, s or %"),
        ("ttft.p95 > 800ms or", 17, "must end"),
        ("ttft.p95 < -100%", 11, "100%"),
        ("errors > 150%", 9, "no more than 100% of the requests can fail"),
        ("errors > 100%", 9, "below 100%"),
        ("errors < 0%", 9, "no less than 0%"),
        ("errors > +100pp", 9, "less than 100pp"),
        ("errors < -250pp", 9, "less than 100pp"),
        ("ttft.p95 < 0ms", 11, "always more than 0"),
        ("ttft.p95 > 0s", 11, "always more than 0"),
        ("output_tokens_per_s < 0", 22, "always more than 0"),
        ("errors > +1%", 11, "+1pp"),
        ("errors > 1", 10, "percent"),
        ("errors > 1ms", 10, "percent"),
        ("output_tokens_per_s < 5%", 22, "give it a sign"),
        ("output_tokens_per_s < 5ms", 23, "tok/s"),
        ("ttft.p95 > " + "9" * 40 + "ms", 11, "more than can be"),
    ],
)
def test_mistakes_are_shown_where_they_are(text, at, hint):
    with pytest.raises(ThresholdError) as caught:
        parse_threshold(text)
    assert caught.value.position == at
    assert hint in str(caught.value)


def test_seconds_are_milliseconds_in_the_end():
    assert parse_threshold("e2e.mean > 1.5s").limit == 1500
    assert parse_threshold("ttft.p95 > +0.2s").limit == 200


def test_a_rate_needs_no_unit():
    assert parse_threshold("output_tokens_per_s < 1000") == parse_threshold("output_tokens_per_s < 1000 tok/s")
