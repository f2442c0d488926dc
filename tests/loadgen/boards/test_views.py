"""What the page shows of each kind of panel."""

from __future__ import annotations

from loadgen.boards.answers import Answer, Line, Sample
from loadgen.boards.colours import ENGINES, NAMED, TEXT
from loadgen.boards.dashboard import load_board
from loadgen.boards.macros import Value
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span
from loadgen.boards.views import view_of
from tests.loadgen.boards.boards_json import board, override, panel, target, write

SPAN = Span(1000.0, 1003.0, 1.0)
A = Line("a", "A", {"engine": "a"}, [0.001, 0.003, None, 0.002])
B = Line("b", "A", {"engine": "b"}, [0.004, None, None, None])


def sample(value, ref="A", **labels):
    return Sample(" ".join(labels.values()), ref, labels, value, 1003.0)


def view(tmp_path, answer, values=None, **more):
    made = load_board(write(tmp_path, board(panel(more.pop("kind", "timeseries"), **more)))).panels[0]
    return view_of(made, answer, values or {}, SPAN, Paint([], ["a", "b"]))


def test_a_plot_has_a_legend_with_the_figures_that_the_board_wants(tmp_path):
    legend = {"showLegend": True, "displayMode": "table", "calcs": ["mean", "max", "lastNotNull", "p42"]}
    shown = view(tmp_path, Answer((A, B)), options={"legend": legend})
    assert shown.plot.columns == ["mean", "max", "last"]
    assert [(key.name, key.figures, key.trace) for key in shown.plot.keys] == [
        ("a", ("2 ms", "3 ms", "2 ms"), 0),
        ("b", ("4 ms", "4 ms", "4 ms"), 1),
    ]
    assert [key.colour for key in shown.plot.keys] == [ENGINES[0], ENGINES[1]]
    assert shown.points == 4 and shown.reason is None
    hidden = view(tmp_path, Answer((A,)), options={"legend": {"showLegend": False}})
    assert hidden.plot.keys == []


def test_a_panel_without_data_says_why(tmp_path):
    shown = view(tmp_path, Answer(problems=("Query A: no.",)), defaults={"noValue": "No GPU is watched here"})
    assert (shown.reason, shown.problems, shown.plot) == ("No GPU is watched here", ("Query A: no.",), None)
    assert "No data" in view(tmp_path, Answer()).reason
    for kind in ("stat", "gauge", "bargauge", "table", "state-timeline"):
        assert view(tmp_path, Answer(), kind=kind).reason


def test_title_and_description_have_their_variables(tmp_path):
    shown = view(tmp_path, Answer(), {"cell": Value(("c1",))}, title="TTFT in $cell", description="Of `$cell` <b>.")
    assert (shown.title, shown.about) == ("TTFT in c1", "Of <code>c1</code> &lt;b&gt;.")


def test_a_stat_shows_the_figure_that_the_board_wants(tmp_path):
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 0.003}]
    options = {"reduceOptions": {"calcs": ["max"]}, "colorMode": "value"}
    shown = view(tmp_path, Answer((A, B)), kind="stat", options=options, defaults={"thresholds": {"steps": steps}})
    assert [(t.name, t.text, t.colour, t.share) for t in shown.tiles] == [
        ("a", "3 ms", NAMED["red"], None),
        ("b", "4 ms", NAMED["red"], None),
    ]
    plain = view(tmp_path, Answer(samples=(sample(0.5, engine="a"),)), kind="stat", options={"colorMode": "none"})
    assert [(t.name, t.text, t.colour) for t in plain.tiles] == [("", "500 ms", TEXT)]


def test_bars_are_shares_of_the_largest_or_of_what_the_board_says(tmp_path):
    answer = Answer(samples=(sample(0.1, engine="a"), sample(0.4, engine="b")))
    shown = view(tmp_path, answer, kind="bargauge", defaults={"unit": "percentunit", "min": 0})
    assert [(t.name, t.text, t.share) for t in shown.tiles] == [("a", "10%", 0.25), ("b", "40%", 1.0)]
    shown = view(tmp_path, answer, kind="gauge", defaults={"unit": "percentunit", "min": 0, "max": 0.2})
    assert [t.share for t in shown.tiles] == [0.5, 1.0]
    nothing = view(tmp_path, Answer(samples=(sample(0.0, engine="a"),)), kind="bargauge")
    assert nothing.tiles[0].share == 0


def test_an_instant_value_in_a_panel_over_time_stands_at_its_end(tmp_path):
    shown = view(tmp_path, Answer(samples=(sample(1.0, engine="a"),)))
    assert shown.plot.figure["data"][0]["y"] == [None, None, None, 1]


def test_a_text_is_markdown_without_html(tmp_path):
    content = "## Read me\n\n*$cell* <script>alert(1)</script>"
    shown = view(tmp_path, Answer(), {"cell": Value(("c1",))}, kind="text", options={"content": content})
    assert "<h2>Read me</h2>" in shown.text and "<em>c1</em>" in shown.text
    assert "<script" not in shown.text


def table(tmp_path, answer, refs="A", **more):
    targets = [target("x", ref, instant=True, format="table") for ref in refs]
    return view(tmp_path, answer, kind="table", targets=targets, **more).table


def texts(found):
    return [[cell.text for cell in row] for row in found.rows]


def test_a_table_joins_queries_by_their_labels(tmp_path):
    answer = Answer(
        samples=(
            sample(0.01, "A", engine="a", cell="c1"),
            sample(0.02, "A", engine="b", cell="c1"),
            sample(50, "B", engine="b", cell="c1"),
        )
    )
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "renameByName": {"Value #A": "TTFT", "Value #B": "Tokens/s", "engine": "Engine"},
            "indexByName": {"cell": 0, "engine": 1, "Value #A": 2, "Value #B": 3},
        },
    }
    found = table(
        tmp_path,
        answer,
        "AB",
        transformations=[{"id": "merge", "options": {}}, organize],
        overrides=[override("byName", "Tokens/s", unit="none"), override("byName", "cell", displayName="Cell")],
        options={"sortBy": [{"displayName": "TTFT", "desc": True}]},
    )
    assert found.columns == ["Cell", "Engine", "TTFT", "Tokens/s"]
    assert texts(found) == [["c1", "b", "20 ms", "50"], ["c1", "a", "10 ms", "–"]]
    assert [cell.numeric for cell in found.rows[0]] == [False, False, True, True]
    assert [row[1].engine for row in found.rows] == ["b", "a"]


def test_a_table_of_one_query_has_a_value_column(tmp_path):
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
    found = table(
        tmp_path,
        Answer(samples=(sample(2, engine="b"), sample(0.5, engine="a"))),
        defaults={
            "unit": "none",
            "thresholds": {"steps": steps},
            "custom": {"cellOptions": {"type": "color-text"}},
        },
        transformations=[{"id": "sortBy", "options": {"sort": [{"field": "engine"}]}}],
    )
    assert found.columns == ["engine", "Value"]
    assert texts(found) == [["a", "0.500"], ["b", "2"]]
    assert [row[1].colour for row in found.rows] == [NAMED["green"], NAMED["red"]]
    assert found.rows[0][0].colour is None


def test_a_table_of_a_query_over_time_has_its_last_values(tmp_path):
    found = view(tmp_path, Answer((A, B)), kind="table", targets=[target("x")]).table
    assert texts(found) == [["a", "2 ms"], ["b", "4 ms"]]
