"""JUnit XML and Markdown of a gate: what CI systems read, and nothing that breaks them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from loadgen.gate.decide import Case, decide
from loadgen.gate.junit import junit_xml
from loadgen.gate.quantity import Quantity
from loadgen.gate.summary import gate_markdown
from loadgen.scenario.threshold import parse_threshold

CELL = "p0512-o0128-c004"
CASE_CHILDREN = ["skipped", "error", "failure", "system-out"]
ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    "testcase": {"classname", "name", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "system-out": set(),
}
"""A part of Jenkins' junit-10.xsd, whose elements stand in this order."""


def fixed(low, high):
    return Quantity((low + high) / 2, lambda _: (low, high))


def decisions(engine="B vllm"):
    quantities = [fixed(6, 10), fixed(-1, 1), fixed(4, 6), Quantity(None, problem="not measured")]
    threshold = parse_threshold("ttft.p95 > +5%")
    return decide([Case(threshold, CELL, engine, "A vllm", quantity) for quantity in quantities])


def checked(text: str) -> ET.Element:
    """Parse and hold against the schema, counts included."""
    root = ET.fromstring(text.encode())
    for element in root.iter():
        assert set(element.attrib) == ATTRIBUTES[element.tag]
    for suite in root:
        cases = list(suite)
        assert {case.tag for case in cases} <= {"testcase"}
        for case in cases:
            places = [CASE_CHILDREN.index(child.tag) for child in case]
            assert places == sorted(places)
        for tag, attribute in (("failure", "failures"), ("error", "errors")):
            found = sum(case.find(tag) is not None for case in cases)
            assert int(suite.attrib[attribute]) == int(root.attrib[attribute]) == found
        assert int(suite.attrib["tests"]) == int(root.attrib["tests"]) == len(cases)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    return root


def test_one_test_case_for_each_decision_with_its_figures():
    root = checked(junit_xml(decisions(), name="run", started_at=1_790_000_000))
    kinds = [[child.tag for child in case] for case in root.iter("testcase")]
    assert kinds == [["failure", "system-out"], ["system-out"], ["error", "system-out"], ["error", "system-out"]]
    failure = next(root.iter("failure"))
    assert failure.attrib["message"].startswith("+8.00% [+6.00, +10.0]")
    assert all(
        word in (failure.text or "") for word in ("ttft.p95 > +5%", "512 prompt tokens", "B vllm against A vllm")
    )
    assert [error.attrib["type"] for error in root.iter("error")] == ["undecided", "undecided"]


@given(st.text(max_size=30))
def test_no_name_breaks_the_file(name):
    checked(junit_xml(decisions(name), name=name, started_at=0))


def test_no_control_character_is_in_markdown():
    assert gate_markdown(decisions(), title="a\x1b]0;b\x07\x9b2J \u202ec").startswith("## ❌ a\\]0;b2J c\n")


def test_markdown_tells_failures_first_and_holds_still():
    lines = gate_markdown(decisions("B | <b>*vllm*"), title="run").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [row[2] for row in table[2:]] == ["✗", "?", "?", "✓"]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in table)
    assert not any("<b>" in line for line in lines)
    assert lines[0].startswith("## ❌")
