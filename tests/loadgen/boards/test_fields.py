"""Defaults and overrides, thresholds and mappings, as Grafana applies them."""

from __future__ import annotations

import pytest

from loadgen.boards.colours import NAMED, TEXT, colour
from loadgen.boards.dashboard import FieldConfig
from loadgen.boards.fields import field_of
from tests.loadgen.boards.boards_json import override


def config(*overrides, **defaults):
    return FieldConfig.model_validate({"defaults": defaults, "overrides": list(overrides)})


@pytest.mark.parametrize(
    ("matcher", "options", "name", "hit"),
    [
        ("byName", "vllm", "vllm", True),
        ("byName", "vllm", "vllm p50", False),
        ("byRegexp", "/^vllm( .*)?$/", "vllm p50", True),
        ("byRegexp", "/VLLM/i", "a vllm", True),
        ("byRegexp", "vllm", "vllm", True),
        ("byRegexp", "vllm", "a vllm", False),
        ("byRegexp", "/(/", "(", False),
        ("byFrameRefID", "B", "x", True),
        ("byFrameRefID", "A", "x", False),
        ("byType", "number", "x", True),
        ("byType", "string", "x", False),
        ("byNames", {"mode": "include", "names": ["x", "y"]}, "x", True),
        ("byNames", {"mode": "exclude", "names": ["x", "y"]}, "x", False),
        ("byNames", {"mode": "exclude", "names": ["x", "y"]}, "z", True),
    ],
)
def test_an_override_concerns_the_series_it_names(matcher, options, name, hit):
    field = field_of(config(override(matcher, options, unit="bytes"), unit="s"), name, ref="B")
    assert field.unit == ("bytes" if hit else "s")


def test_overrides_go_over_defaults_in_order():
    made = config(
        override("byName", "a", color={"mode": "fixed", "fixedColor": "blue"}, custom__lineStyle={"fill": "dash"}),
        override("byRegexp", "/a/", color={"mode": "fixed", "fixedColor": "red"}, displayName="A", decimals=1),
        unit="s",
        color={"mode": "palette-classic"},
        custom={"lineWidth": 3, "lineStyle": {"fill": "solid"}},
        min=0,
        noValue="none here",
    )
    field = field_of(made, "a")
    assert (field.name, field.fixed, field.dash, field.decimals) == ("A", NAMED["red"], "dash", 1)
    assert (field.custom["lineWidth"], field.least, field.most, field.no_value) == (3, 0, None, "none here")
    other = field_of(made, "b")
    assert (other.name, other.fixed, other.dash) == ("b", None, "solid")


def test_thresholds_colour_from_their_value_on():
    steps = [{"color": "green", "value": None}, {"color": "orange", "value": 0.5}, {"color": "red", "value": 0.9}]
    field = field_of(config(thresholds={"mode": "absolute", "steps": steps}), "x")
    assert [field.colour_of(value) for value in (0.1, 0.5, 0.95)] == [NAMED["green"], NAMED["orange"], NAMED["red"]]
    assert field.colour_of(None) is None
    shares = [{"color": "green", "value": None}, {"color": "red", "value": 50}]
    field = field_of(config(thresholds={"mode": "percentage", "steps": shares}, min=100, max=300), "x")
    assert [field.colour_of(value) for value in (199, 200)] == [NAMED["green"], NAMED["red"]]


def test_mappings_go_before_units():
    mappings = [
        {"type": "value", "options": {"1": {"text": "up", "color": "green"}, "0": {"text": "down"}}},
        {"type": "range", "options": {"from": 5, "to": 9, "result": {"text": "many", "color": "red"}}},
        {"type": "special", "options": {"match": "null", "result": {"text": "not told"}}},
        {"type": "regex", "options": {"pattern": "/^v/", "result": {"text": "starts with v"}}},
    ]
    field = field_of(config(mappings=mappings, unit="bool"), "x")
    assert [field.text(value) for value in (1.0, 0.0, 7.0, 2.0, None, "vllm", "ksana")] == [
        "up", "down", "many", "True", "not told", "starts with v", "ksana",
    ]  # fmt: skip
    assert field.colour_of(1.0) == NAMED["green"] and field.colour_of(7.0) == NAMED["red"]


@pytest.mark.parametrize(
    ("name", "light", "dark"),
    [
        ("green", "#56A64B", "#73BF69"),
        ("semi-dark-orange", "#FA6400", "#FF780A"),
        ("super-light-purple", "#CA95E5", "#DEB6F2"),
        ("#123456", "#123456", "#123456"),
        # The report's own colours are pairs.
        ("#56b4e9", "#0067a5", "#56b4e9"),
    ],
)
def test_colours_are_grafanas(name, light, dark):
    assert colour(name) == (light, dark)


def test_a_colour_cannot_smuggle_anything_in():
    assert colour("text") == TEXT
    assert colour('red"; background: url(http://x)').light.startswith("#")
