"""Lines and states over time: gaps, dots, scales, colours, all of it valid for plotly."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
import pytest

from loadgen.boards.answers import Line
from loadgen.boards.colours import ENGINES, NAMED
from loadgen.boards.dashboard import FieldConfig, load_board
from loadgen.boards.fields import field_of
from loadgen.boards.figures import blocks_figure, lines_figure, mark_shapes, moment, outage_shapes, states_figure
from loadgen.boards.marks import Mark
from loadgen.boards.paint import Paint
from loadgen.boards.span import Span
from tests.loadgen.boards.boards_json import board, override, panel, write

SPAN = Span(1_790_000_000.0, 1_790_000_009.0, 1.0)
VALUES = [1.0, 2.0, None, None, 5.0, None, 7.0, 8.0, 9.0, None]


def line(name, values, ref="A"):
    return Line(name, ref, {"engine": name}, values)


def valid(figure, paint):
    """The figure as plotly checks it, with colours in place of their tokens."""
    text = re.sub(r"@colour-(\d+)", lambda found: paint.palette[int(found[1])].light, json.dumps(figure))
    assert "@colour" not in text
    return go.Figure(json.loads(text))


def drawn(*lines, background=(), overrides=(), paint=None, **defaults):
    config = FieldConfig.model_validate({"defaults": {"unit": "s", **defaults}, "overrides": list(overrides)})
    paint = paint or Paint([], [])
    fields = [field_of(config, each.name, ref=each.ref) for each in lines]
    looks = paint.lines(fields, [each.labels["engine"] for each in lines])
    figure = lines_figure(lines, fields, looks, SPAN, paint, background)
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


def test_another_unit_has_the_axis_on_the_right():
    figure, _ = drawn(
        line("a", [1.0] * 10), line("b", [2.0**31] * 10), overrides=[override("byName", "b", unit="bytes")]
    )
    assert [trace["yaxis"] for trace in figure["data"]] == ["y", "y2"]
    assert figure["layout"]["yaxis2"]["side"] == "right"
    assert figure["layout"]["yaxis2"]["ticksuffix"] == " GiB"
    assert figure["data"][1]["y"][0] == 2


@pytest.mark.parametrize(
    ("values", "defaults", "low", "high"),
    [
        ([10.0, 12.0], {}, 0, (12, 14)),
        ([-1.0, 1.0], {}, (-1.5, -1), (1, 1.5)),
        ([0.0, 0.0], {}, 0, 1),
        ([0.2, 0.4], {"max": 1, "min": 0}, 0, 1),
        ([0.2, 1.4], {"max": 1, "min": 0}, 0, (1.4, 1.6)),
    ],
)
def test_the_axis_holds_all_values_and_what_the_board_asks_for(values, defaults, low, high):
    figure, _ = drawn(line("a", [*values, *[None] * 8]), unit="none", **defaults)
    for found, wanted in zip(figure["layout"]["yaxis"]["range"], (low, high), strict=True):
        if isinstance(wanted, tuple):
            assert wanted[0] <= found <= wanted[1]
        else:
            assert found == pytest.approx(wanted)


def test_the_boards_colours_and_dashes_go_first():
    figure, paint = drawn(
        line("a", VALUES),
        line("b", VALUES),
        overrides=[
            override("byName", "a", color={"mode": "fixed", "fixedColor": "red"}, custom__lineStyle={"fill": "dot"})
        ],
    )
    first, second = (trace["line"] for trace in figure["data"])
    assert (paint.palette[int(first["color"][8:])], first["dash"]) == (NAMED["red"], "dot")
    assert (paint.palette[int(second["color"][8:])], second["dash"]) == (ENGINES[0], "solid")


def test_series_of_one_engine_share_its_colour_and_differ_in_dash():
    one, two = Line("a p50", "A", {"engine": "a"}, VALUES), Line("a p99", "B", {"engine": "a"}, VALUES)
    figure, _ = drawn(one, two, Line("b p50", "A", {"engine": "b"}, VALUES))
    styles = [(trace["line"]["color"], trace["line"]["dash"]) for trace in figure["data"]]
    assert styles[0][0] == styles[1][0] != styles[2][0]
    assert styles[0][1] != styles[1][1]


def test_an_engine_has_the_colour_that_some_board_gives_it(tmp_path):
    boards = [
        load_board(
            write(
                tmp_path,
                board(
                    panel(defaults={"color": {"mode": "fixed", "fixedColor": "text"}}),
                    panel(
                        overrides=[override("byRegexp", "/^b( .*)?$/", color={"mode": "fixed", "fixedColor": "red"})]
                    ),
                ),
            )
        )
    ]
    paint = Paint(boards, ["a", "b", "c"])
    assert [paint.engine(name) for name in "abcd"] == [ENGINES[0], NAMED["red"], ENGINES[2], ENGINES[3]]


def test_stacked_series_are_bars_because_areas_close_gaps():
    figure, _ = drawn(line("a", VALUES), line("b", VALUES), custom={"stacking": {"mode": "normal"}})
    assert [trace["type"] for trace in figure["data"]] == ["bar", "bar"]
    assert figure["layout"]["barmode"] == "stack"
    assert figure["data"][0]["y"] == VALUES


def test_thresholds_are_lines_where_the_board_draws_them():
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 0.5}]
    custom = {"thresholdsStyle": {"mode": "dashed"}}
    figure, _ = drawn(line("a", [0.1] * 10), line("b", [0.1] * 10), thresholds={"steps": steps}, custom=custom)
    limits = [shape for shape in figure["layout"]["shapes"] if shape["type"] == "line"]
    assert [(shape["y0"], shape["y1"], shape["yref"]) for shape in limits] == [(500, 500, "y")]
    figure, _ = drawn(line("a", [0.1] * 10), thresholds={"steps": steps})
    assert figure["layout"]["shapes"] == []


def test_states_are_bars_over_equal_values():
    mappings = [
        {"type": "value", "options": {"0": {"text": "no", "color": "green"}, "1": {"text": "yes", "color": "red"}}}
    ]
    config = FieldConfig.model_validate({"defaults": {"mappings": mappings}})
    paint = Paint([], [])
    lines = [line("a", [0.0, 0.0, 1.0, 1.0, None, None, 1.0, 0.0, 0.0, 0.0]), line("b", [None] * 9 + [1.0])]
    figure, legend = states_figure(lines, [field_of(config, each.name) for each in lines], SPAN, paint)
    valid(figure, paint)
    assert [words for words, _ in legend] == ["no", "yes"]
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
    paint = Paint([], ["a", "b"])
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
