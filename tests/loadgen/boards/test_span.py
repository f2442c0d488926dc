"""Time ranges and their steps."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.boards.span import POINTS, make_span, parse_duration, parse_moment, run_range
from loadgen.errors import UserError
from tests.loadgen.report.synthetic_run import SyntheticRun

NOW = 1_790_000_000.0


@given(st.floats(1e9, 2e9), st.floats(0.5, 5e7), st.sampled_from([0.5, 1.0, 15.0, 60.0]))
def test_no_more_points_than_a_picture_shows_and_no_finer_than_scrapes(start, seconds, interval):
    span = make_span(start, start + seconds, interval)
    assert 1 <= span.count <= POINTS
    assert span.step >= interval
    assert span.start <= start < span.start + span.step
    assert span.end <= start + seconds < span.end + span.step + 1e-3
    assert span.start % span.step == pytest.approx(0, abs=1e-6)
    assert span.index(span.start) == 0
    assert span.index(span.start + (span.count - 1) * span.step) == span.count - 1
    assert span.index(span.start + span.count * span.step) is None
    assert span.index(span.start - span.step) is None


def test_the_step_is_one_that_a_person_would_choose():
    assert [make_span(NOW, NOW + seconds, 1.0).step for seconds in (300, 900, 1800, 3600, 86400)] == [1, 1, 2, 5, 120]
    assert make_span(NOW, NOW + 300, 15.0).step == 15


def test_a_range_goes_forward():
    with pytest.raises(UserError, match="before it begins"):
        make_span(NOW, NOW - 1, 1.0)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1790000000", NOW),
        ("2026-09-21T14:13:20", NOW),
        ("2026-09-21 14:13:20Z", NOW),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("now", 5.0),
    ],
)
def test_moments_of_the_command_line(text, moment):
    assert parse_moment(text, 5.0) == moment


@pytest.mark.parametrize("text", ["yesterday", "12", "", "2026-13-01"])
def test_what_is_no_moment(text):
    with pytest.raises(UserError, match="is not a time"):
        parse_moment(text, NOW)


def test_lengths_of_time():
    assert parse_duration("1h30m") == 5400
    for text in ("30", "", "0s", "-5m", "half an hour"):
        with pytest.raises(UserError, match="length of time"):
            parse_duration(text)


def test_a_run_has_a_margin_that_does_not_reach_into_the_future(tmp_path):
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all()
    folder = run.write(tmp_path)
    begin, finish = run.manifest.started_at, run.manifest.ended_at
    start, end = run_range(folder)
    margin = max(5.0, 0.02 * (finish - begin))
    assert (start, end) == (pytest.approx(begin - margin), pytest.approx(finish + margin))
    assert run_range(folder, now=finish + 1)[1] == finish + 1


def test_a_run_without_an_end_goes_as_far_as_its_records(tmp_path):
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all()
    folder = run.write(tmp_path)
    manifest = folder.manifest_path.read_text()
    ended = run.manifest.ended_at
    folder.manifest_path.write_text(manifest.replace(f'"ended_at": {ended}', '"ended_at": null'))
    os.utime(folder.records_path, (ended + 100, ended + 100))
    assert run_range(folder)[1] >= ended + 105


def test_a_run_before_its_first_block_has_no_time_to_show(tmp_path):
    run = SyntheticRun(engines=["a"])
    with pytest.raises(UserError, match="nothing of this run was measured yet"):
        run_range(run.write(tmp_path))
