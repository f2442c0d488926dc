"""What the page shows of each kind of panel."""

from __future__ import annotations

import pytest

from loadgen.boards.answers import Answer, Line, Sample
from loadgen.boards.colours import BAD, ENGINES, TEXT
from loadgen.boards.model import Place
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span
from loadgen.boards.views import view_of
from tests.loadgen.boards.boards import panel

SPAN = Span(1000.0, 1003.0, 1.0)
PLACE = Place(0, 0, 12, 8)
A = Line("a", "A", {"engine": "a"}, [0.001, 0.003, None, 0.002])
B = Line("b", "A", {"engine": "b"}, [0.004, None, None, None])


def sample(value, ref="A", **labels):
    return Sample(" ".join(labels.values()), ref, labels, value)


def view(answer, **more):
    return view_of(panel("A panel", **more), PLACE, answer, SPAN, Paint(["a", "b"]))


def test_a_plot_has_a_legend_with_the_last_and_the_greatest_figure():
    shown = view(Answer((A, B)))
    assert [(key.name, key.last, key.max) for key in shown.plot.keys] == [("a", "2 ms", "3 ms"), ("b", "4 ms", "4 ms")]
    assert [key.colour for key in shown.plot.keys] == [ENGINES[0], ENGINES[1]]
    assert shown.points == 4 and shown.reason is None


def test_states_say_themselves_what_they_are():
    shown = view(Answer((Line("a", "A", {"engine": "a"}, [1.0, 1.0, 0.0, None]),)), kind="state-timeline")
    assert shown.plot.keys == [] and len(shown.plot.figure["data"]) == 2


@pytest.mark.parametrize("kind", ["timeseries", "stat", "bargauge", "table", "state-timeline"])
def test_a_panel_without_data_says_why(kind):
    shown = view(Answer(problems=("Query A: no.",)), kind=kind, no_data="No GPU is watched here")
    assert (shown.reason, shown.problems, shown.plot) == ("No GPU is watched here", ("Query A: no.",), None)


def test_a_description_is_markdown_without_html():
    assert view(Answer(), about="Of `c1` <b>.").about == "Of <code>c1</code> &lt;b&gt;."


def test_a_stat_shows_the_newest_figures():
    shown = view(Answer((A, B)), kind="stat")
    assert [(t.name, t.text, t.colour, t.share) for t in shown.tiles] == [
        ("a", "2 ms", TEXT, None),
        ("b", "4 ms", TEXT, None),
    ]
    alone = view(Answer(samples=(sample(0.5, engine="a"),)), kind="stat", bad_from=0.1)
    assert [(t.name, t.text, t.colour) for t in alone.tiles] == [("", "500 ms", TEXT)]
    state = view(Answer(samples=(sample(1.0, gpu="0"), sample(0.0, gpu="1"))), kind="stat", states={0: "down", 1: "up"})
    assert [t.text for t in state.tiles] == ["up", "down"]


def test_bars_are_shares_of_the_largest_or_of_what_the_board_says():
    answer = Answer(samples=(sample(0.1, engine="a"), sample(0.4, engine="b")))
    shown = view(answer, kind="bargauge", unit="percentunit", decimals=1)
    assert [(t.name, t.text, t.share) for t in shown.tiles] == [("a", "10.0%", 0.25), ("b", "40.0%", 1.0)]
    assert [t.colour for t in shown.tiles] == [ENGINES[0], ENGINES[1]]
    assert [t.share for t in view(answer, kind="bargauge", maximum=0.2).tiles] == [0.5, 1.0]
    (nothing,) = view(Answer(samples=(sample(0.0, engine="a"),)), kind="bargauge").tiles
    assert nothing.share == 0
    (state,) = view(Answer(samples=(sample(1.0, engine="a"),)), kind="bargauge", states={1: "fires"}, bad_from=1).tiles
    assert (state.text, state.colour) == ("fires", BAD)


def test_a_value_that_is_not_finite_is_a_dash():
    (tile,) = view(Answer(samples=(sample(float("inf"), engine="a"),)), kind="stat", states={1: "up"}).tiles
    assert tile.text == "–"


def texts(found):
    return [[cell.text for cell in row] for row in found.rows]


def test_a_table_has_a_row_a_series_with_its_labels_and_its_value():
    answer = Answer(samples=(sample(2, engine="b", model="m"), sample(0.5, engine="a", __name__="x")))
    found = view(answer, kind="table", unit="none", no_data="not told").table
    assert found.columns == ["engine", "model", "Value"]
    assert texts(found) == [["b", "m", "2"], ["a", "not told", "0.500"]]
    assert [cell.numeric for cell in found.rows[0]] == [False, False, True]
    assert [row[0].engine for row in found.rows] == ["b", "a"]
    assert view(answer, kind="table", hidden=("Value", "model")).table.columns == ["engine"]


def test_a_table_of_a_query_over_time_has_its_last_values():
    assert texts(view(Answer((A, B)), kind="table").table) == [["a", "2 ms"], ["b", "4 ms"]]
