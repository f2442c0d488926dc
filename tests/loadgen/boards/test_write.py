"""`bakeoff dashboards`: which range, which Prometheus, where the page goes, and what is never written over."""

from __future__ import annotations

import io
import json
import os
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loadgen.boards.page import covered_by
from loadgen.boards.write import NAME, dashboards_of_range, dashboards_of_run, show_dashboards, stack_prometheus
from loadgen.cli.app import app
from loadgen.errors import UserError
from tests.fake_prometheus import matrix, success
from tests.loadgen.boards.boards import board, panel
from tests.loadgen.report.synthetic_run import SyntheticRun

GONE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def one_board(monkeypatch):
    """The boards are one of two panels."""
    monkeypatch.setattr("loadgen.boards.write.BOARDS", [board(panel("A", "a"), panel("B", "b"))])


@pytest.fixture
def checkout(tmp_path):
    """Where no stack runs."""
    return tmp_path / "checkout"


@pytest.fixture
def run(tmp_path):
    made = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all()
    return made.write(tmp_path / "runs")


def holds(fake, points):
    """The Prometheus has so many values of each series, from the start of the range on."""

    def answer(query):
        if query["path"].endswith("/config"):
            return success({"yaml": "global:\n  scrape_interval: 1s\n"})
        if query["path"].endswith("query_range") and query["query"] in ("a", "b") and points:
            start, step = float(query["start"]), float(query["step"])
            return matrix(({"engine": "vllm"}, [(start + i * step, i) for i in range(points)]))
        return matrix()

    fake.answer = answer
    return fake.url


def test_a_runs_page_goes_into_its_folder_and_covers_the_run(checkout, run, fake):
    line = dashboards_of_run(checkout, run, holds(fake, 5))
    path = run.path / NAME
    assert line == f"Dashboards: {path} (2 of 2 panels have data)"
    assert covered_by(path) == 10
    manifest = json.loads(run.manifest_path.read_text())
    asked = next(query for query in fake.asked if query.get("query") == "a")
    assert float(asked["start"]) < manifest["started_at"]
    assert float(asked["end"]) > manifest["ended_at"]
    assert run.path.name in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("points", "words"), [(None, "does not answer"), (0, "has nothing from"), (4, "only 80.0%")])
def test_a_page_that_shows_more_is_kept(points, words, checkout, run, fake):
    dashboards_of_run(checkout, run, holds(fake, 5))
    before = (run.path / NAME).read_bytes()
    url = GONE if points is None else holds(fake, points)
    with pytest.raises(UserError) as refused:
        dashboards_of_run(checkout, run, url)
    assert words in str(refused.value) and "kept as it was" in str(refused.value)
    assert (run.path / NAME).read_bytes() == before


def test_a_page_that_shows_as_much_or_more_replaces_it(checkout, run, fake):
    for points in (5, 5, 7):
        dashboards_of_run(checkout, run, holds(fake, points))
        assert covered_by(run.path / NAME) == 2 * points


def test_a_page_elsewhere_leaves_the_runs_own_alone(checkout, run, fake, tmp_path):
    dashboards_of_run(checkout, run, holds(fake, 5))
    dashboards_of_run(checkout, run, holds(fake, 2), tmp_path / "other.html")
    assert covered_by(tmp_path / "other.html") == 4
    assert covered_by(run.path / NAME) == 10


@pytest.mark.parametrize("points", [None, 0])
def test_nothing_is_written_of_nothing(points, checkout, run, fake):
    with pytest.raises(UserError) as refused:
        dashboards_of_run(checkout, run, GONE if points is None else holds(fake, points))
    assert "nothing was written" in str(refused.value) and "kept" not in str(refused.value)
    assert not (run.path / NAME).exists()


def test_a_page_that_cannot_be_written_is_an_error(checkout, run, fake):
    with pytest.raises(UserError, match="cannot be written"):
        dashboards_of_run(checkout, run, holds(fake, 5), run.manifest_path / "x.html")  # a file, and no folder


def test_the_prometheus_is_the_given_one_or_the_stacks_and_none_that_a_folder_names(checkout, run, fake):
    url = holds(fake, 5)
    manifest = json.loads(run.manifest_path.read_text())
    manifest["prometheus_url"] = None
    run.manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="No Prometheus is known"):
        dashboards_of_run(checkout, run, None)
    stack = checkout / ".bakeoff" / "stack" / "stack.json"
    stack.parent.mkdir(parents=True)
    stack.write_text(json.dumps({"socket": "/x", "urls": {"prometheus": url}, "engines": {}}))
    assert stack_prometheus(checkout) == url
    assert "Dashboards:" in dashboards_of_run(checkout, run, None)
    manifest["prometheus_url"] = GONE
    run.manifest_path.write_text(json.dumps(manifest))
    assert "Dashboards:" in dashboards_of_run(checkout, run, None)
    with pytest.raises(UserError, match=GONE):
        dashboards_of_run(checkout, run, GONE)


def test_a_time_range(checkout, fake, tmp_path):
    url, output = holds(fake, 3), tmp_path / "x.html"
    dashboards_of_range(checkout, "2026-01-02T03:04:05", "2026-01-02T04:04:05", None, url, output)
    text = output.read_text(encoding="utf-8")
    assert "2026-01-02 03:04:05 to 2026-01-02 04:04:05 UTC" in text
    fake.asked.clear()
    dashboards_of_range(checkout, None, None, "30m", url, output)
    asked = next(query for query in fake.asked if query.get("query") == "a")
    assert float(asked["end"]) == pytest.approx(time.time(), abs=60)
    assert float(asked["end"]) - float(asked["start"]) == pytest.approx(1800, abs=5)


@pytest.mark.parametrize(
    ("begin", "end", "last", "words"),
    [
        ("now", None, "5m", "--last goes without"),
        (None, "now", None, "--to goes with --from"),
        ("2026-01-02T05:00:00", "2026-01-02T04:00:00", None, "before it begins"),
        (None, None, "soon", "length of time"),
        ("soon", None, None, "not a time"),
    ],
)
def test_a_range_that_makes_no_sense(begin, end, last, words, checkout, fake, tmp_path):
    with pytest.raises(UserError, match=words):
        dashboards_of_range(checkout, begin, end, last, holds(fake, 1), tmp_path / "x.html")


def said(checkout, run, url):
    console = Console(file=io.StringIO(), width=200)
    show_dashboards(checkout, run, url, console)
    return console.file.getvalue()


def test_at_the_end_of_a_race_a_line_says_where_it_is_or_why_not(checkout, run, fake):
    assert "does not answer" in said(checkout, run, GONE)
    assert "2 of 2 panels" in said(checkout, run, holds(fake, 5))
    fake.asked.clear()
    assert said(checkout, run, GONE) == f"Dashboards: {run.path / NAME}\n"
    assert fake.asked == []
    # A run that went on since has a new page.
    old = (run.path / NAME).stat().st_mtime - 60
    os.utime(run.path / NAME, (old, old))
    assert "panels" in said(checkout, run, fake.url)


def test_the_command_line(run, checkout, tmp_path, monkeypatch):
    monkeypatch.setattr("loadgen.cli.dashboards.HOME", checkout)
    runner = CliRunner()
    both = runner.invoke(app, ["dashboards", run.path.name, "--last", "5m", "--runs-dir", str(tmp_path / "runs")])
    assert isinstance(both.exception, UserError) and "not both" in str(both.exception)
    none = runner.invoke(app, ["dashboards", "--runs-dir", str(tmp_path / "empty")])
    assert isinstance(none.exception, UserError) and "no run" in str(none.exception)
    gone = runner.invoke(app, ["dashboards", str(run.path), "--prometheus", GONE])
    assert isinstance(gone.exception, UserError) and "does not answer" in str(gone.exception)


def test_a_run_that_was_resumed_gets_the_page_of_all_its_time(checkout, run, fake):
    """Its step is coarser and its values fewer, though they cover more."""
    manifest = json.loads(run.manifest_path.read_text())
    dashboards_of_run(checkout, run, holds(fake, 100))
    manifest["ended_at"] = manifest["started_at"] + 7200
    run.manifest_path.write_text(json.dumps(manifest))
    dashboards_of_run(checkout, run, holds(fake, 30))
    assert covered_by(run.path / NAME) == 2 * 30 * 10


def test_a_report_brings_the_page_along_and_does_not_fail_without_it(run, checkout, fake, monkeypatch):
    monkeypatch.setattr("loadgen.cli.report.HOME", checkout)
    command = ["report", str(run.path), "--brief", "--prometheus-url"]
    gone = CliRunner().invoke(app, [*command, GONE])
    assert gone.exit_code == 0 and "Report:" in gone.output and "does not answer" in gone.output
    made = CliRunner().invoke(app, [*command, holds(fake, 5)])
    assert made.exit_code == 0 and "2 of 2 panels" in made.output
    again = CliRunner().invoke(app, [*command, GONE])
    assert again.exit_code == 0 and f"Dashboards: {run.path / NAME}\n" in again.output
