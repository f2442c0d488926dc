"""Lines and states over time: gaps, dots, scales, colours, all of it valid for plotly."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
import pytest

from loadgen.boards.answers import Line
from loadgen.boards.colours import BAD, ENGINES, GRAY, KNOWN, OTHERS
from loadgen.boards.figures import blocks_figure, lines_figure, mark_shapes, moment, outage_shapes, states_figure
from loadgen.boards.marks import Mark
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span
from tests.loadgen.boards.boards import panel

SPAN = Span(1_790_000_000.0, 1_790_000_009.0, 1.0)
VALUES = [1.0, 2.0, None, None, 5.0, None, 7.0, 8.0, 9.0, None]


def line(name, values, ref="A"):
    return Line(name, ref, {"engine": name}, values)


def valid(figure, paint):
    """The figure as plotly checks it, with colours in place of their tokens."""
    text = re.sub(r"@colour-(\d+)", lambda found: paint.palette[int(found[1])].light, json.dumps(figure))
    assert "@colour" not in text
    return go.Figure(json.loads(text))


def drawn(*lines, background=(), paint=None, **more):
    paint, shown = paint or Paint([]), panel("A", **more)
    figure = lines_figure(shown, lines, paint.lines(shown, lines), SPAN, paint, background)
    valid(figure, paint)
    return figure, paint


def test_a_gap_stays_a_gap_and_a_lone_value_is_a_dot():
    figure, _ = drawn(line("a", VALUES))
    (trace,) = figure["data"]
    assert trace["y"] == VALUES
    assert trace["connectgaps"] is False
    assert (trace["x0"], trace["dx"]) == ("2026-09-21 14:13:20.000", 1000)
    assert "fill" not in trace  # plotly fills across gaps
    sizes = trace["marker"]["size"]
    assert [i for i, size in enumerate(sizes) if size] == [4]


def test_a_whole_line_has_no_dots():
    figure, _ = drawn(line("a", [1.0] * 10))
    assert figure["data"][0]["mode"] == "lines"


def test_an_axis_has_one_scale_and_says_by_what_it_divided():
    figure, _ = drawn(line("a", [0.001, 0.002, *[None] * 8]), line("b", [0.0123456789, *[None] * 9]))
    assert figure["layout"]["meta"]["divisors"] == {"y": 0.001}
    assert figure["layout"]["yaxis"]["ticksuffix"] == " ms"
    assert figure["data"][1]["y"][0] == 12.345679
    assert figure["data"][1]["hovertemplate"].endswith(" ms")


@pytest.mark.parametrize(
    ("values", "ends", "low", "high"),
    [
        ([10.0, 12.0], {}, 0, (12, 14)),
        ([-1.0, 1.0], {"minimum": None}, (-1.5, -1), (1, 1.5)),
        ([0.0, 0.0], {}, 0, 1),
        ([0.2, 0.4], {"maximum": 1}, 0, 1),
        ([0.2, 1.4], {"maximum": 1}, 0, (1.4, 1.6)),
    ],
)
def test_the_axis_holds_all_values_and_what_the_board_asks_for(values, ends, low, high):
    figure, _ = drawn(line("a", [*values, *[None] * 8]), unit="none", **ends)
    for found, wanted in zip(figure["layout"]["yaxis"]["range"], (low, high), strict=True):
        if isinstance(wanted, tuple):
            assert wanted[0] <= found <= wanted[1]
        else:
            assert found == pytest.approx(wanted)


def test_what_is_no_engines_is_gray_or_has_a_colour_that_no_engine_has():
    worker = Line("w1", "A", {"worker": "w1"}, VALUES)
    figure, paint = drawn(line("a", VALUES), line("all", VALUES), worker, gray=("all",))
    colours = [paint.palette[int(trace["line"]["color"][8:])] for trace in figure["data"]]
    assert colours == [ENGINES[0], GRAY, OTHERS[0]]


def test_series_of_one_engine_share_its_colour_and_differ_in_dash():
    one, two = Line("a p50", "A", {"engine": "a"}, VALUES), Line("a p99", "B", {"engine": "a"}, VALUES)
    figure, _ = drawn(one, two, Line("b p50", "A", {"engine": "b"}, VALUES))
    styles = [(trace["line"]["color"], trace["line"]["dash"]) for trace in figure["data"]]
    assert styles[0][0] == styles[1][0] != styles[2][0]
    assert styles[0][1] != styles[1][1]


def test_an_engine_that_the_stacks_know_has_its_own_colour_and_any_other_that_of_its_seat():
    paint = Paint(["a", "ksana", "c"])
    assert [paint.engine(name) for name in ("a", "ksana", "c", "d", "vllm", "a")] == [
        ENGINES[0], KNOWN["ksana"], ENGINES[2], ENGINES[3], KNOWN["vllm"], ENGINES[0],
    ]  # fmt: skip


def test_from_where_on_a_value_is_bad_is_a_line():
    figure, paint = drawn(line("a", [0.1] * 10), line("b", [0.1] * 10), bad_from=0.5)
    (limit,) = [shape for shape in figure["layout"]["shapes"] if shape["type"] == "line"]
    assert (limit["y0"], limit["y1"], limit["yref"]) == (500, 500, "y")
    assert paint.palette[int(limit["line"]["color"][8:])] == BAD
    figure, _ = drawn(line("a", [0.1] * 10))
    assert figure["layout"]["shapes"] == []


def test_states_are_bars_over_equal_values():
    shown, paint = panel("A", kind="state-timeline", states={0: "no", 1: "yes"}, bad_from=1), Paint([])
    lines = [line("a", [0.0, 0.0, 1.0, 1.0, None, None, 1.0, 0.0, 0.0, 0.0]), line("b", [None] * 9 + [1.0])]
    figure = states_figure(shown, lines, SPAN, paint)
    valid(figure, paint)
    looks = [(trace["name"], paint.palette[int(trace["marker"]["color"][8:])]) for trace in figure["data"]]
    assert looks == [("no", GRAY), ("yes", BAD)]
    no, yes = figure["data"]
    assert list(zip(no["y"], no["base"], no["x"], strict=True)) == [
        ("a", moment(SPAN.start), 2000),
        ("a", moment(SPAN.start + 7), 3000),
    ]
    assert list(zip(yes["y"], yes["base"], yes["x"], strict=True)) == [
        ("a", moment(SPAN.start + 2), 2000),
        ("a", moment(SPAN.start + 6), 1000),
        ("b", moment(SPAN.start + 9), 1000),
    ]
    assert figure["layout"]["yaxis"]["categoryarray"] == ["a", "b"]


def test_blocks_and_outages_are_grounds_within_the_range():
    marks = [
        Mark(SPAN.start - 5, SPAN.start + 2, "a", "c1", "b1", "r"),
        Mark(SPAN.start + 3, SPAN.start + 90, "b", "c1", "b2", "r"),
        Mark(SPAN.start + 90, SPAN.start + 99, "a", "c1", "b3", "r"),
    ]
    paint = Paint(["a", "b"])
    shapes = mark_shapes(marks, SPAN, paint)
    assert [(shape["x0"], shape["x1"]) for shape in shapes] == [
        (moment(SPAN.start), moment(SPAN.start + 2)),
        (moment(SPAN.start + 3), moment(SPAN.end)),
    ]
    assert shapes[0]["fillcolor"] != shapes[1]["fillcolor"]
    outages = [(SPAN.start + 1, SPAN.start + 2), (SPAN.start + 8, float("inf"))]
    gone = outage_shapes(outages, SPAN, paint)
    assert gone[1]["x1"] == moment(SPAN.end) and "not recorded" in gone[0]["label"]["text"]
    figure = blocks_figure(marks, outages, SPAN, paint)
    valid(figure, paint)
    assert [(trace["name"], len(trace["x"])) for trace in figure["data"]] == [("a", 1), ("b", 1)]
    figure, _ = drawn(line("a", VALUES), background=[*shapes, *gone], paint=paint)
    assert len(figure["layout"]["shapes"]) == 4
