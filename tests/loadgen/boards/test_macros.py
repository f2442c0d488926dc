"""Variables and macros in queries, against Grafana's documented rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadgen.boards.macros import MacroError, Value, built_in, constant, interpolate, plain
from loadgen.boards.span import Span

HOUR = Span(1_790_000_000.0, 1_790_003_600.0, 5.0, 1.0)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


def unquoted(promql: str) -> str:
    """What PromQL reads in double quotes: Go's escapes, of which \\\\ and \\" and \\n are all that we may write."""
    return re.sub(r"\\(.)", lambda found: {"\\": "\\", '"': '"', "n": "\n"}[found[1]], promql)


@pytest.mark.parametrize(
    ("query", "result"),
    [
        ("rate(x[$__rate_interval])", "rate(x[6s])"),
        ("rate(x[${__rate_interval}])", "rate(x[6s])"),
        ("x[$__interval]", "x[5s]"),
        ("x / $__interval_ms", "x / 5000"),
        ("increase(x[$__range])", "increase(x[3600s])"),
        ("x / $__range_s + $__range_ms", "x / 3600 + 3600000"),
        ("x @ ${__from}", "x @ 1790000000000"),
    ],
)
def test_grafanas_own_variables(query, result):
    assert interpolate(query, built_in(HOUR)) == result


def test_the_rate_interval_holds_four_scrapes():
    assert interpolate("$__rate_interval", built_in(Span(0, 60, 1.0, 1.0))) == "4s"
    assert interpolate("$__rate_interval", built_in(Span(0, 60, 1.0, 15.0))) == "60s"
    assert interpolate("$__interval $__rate_interval", built_in(HOUR, interval=30.0)) == "30s 31s"
    assert interpolate("$__interval", built_in(Span(0, 1, 0.5, 0.5))) == "500ms"


def test_one_value_and_several():
    values = {
        "one": Value(("p64-o32-r0.5",), several=True),
        "two": Value(("a.b", "c"), several=True),
        "all": Value(("a", "b"), several=True, pattern=".*", word="All"),
        "plain": Value(("a.b",)),
        "none": Value((), several=True),
    }
    assert interpolate('{cell=~"$one"}', values) == r'{cell=~"p64-o32-r0\\.5"}'
    assert interpolate('{e=~"$two"}', values) == r'{e=~"(a\\.b|c)"}'
    assert interpolate('{e=~"${two:regex}"}', values) == r'{e=~"(a\\.b|c)"}'
    assert interpolate('{e=~"${two:pipe}"}', values) == '{e=~"a.b|c"}'
    assert interpolate("${two:csv}", values) == "a.b,c"
    assert interpolate('{e=~"$all"}', values) == '{e=~".*"}'
    assert interpolate('{e="$plain"}', values) == '{e="a.b"}'
    assert interpolate('{e=~"[[two]]"}', values) == r'{e=~"(a\\.b|c)"}'
    assert interpolate('{e=~"$none"}', values) == '{e=~".*"}'


def test_a_name_is_read_to_its_end():
    values = {"a": constant("1"), "ab": constant("2")}
    assert interpolate("$a $ab ${a}b", values) == "1 2 1b"


def test_what_label_replace_refers_to_stays():
    query = 'label_replace(up, "x", "$1-${2}", "y", "(.*)")'
    assert interpolate(query, {}) == query


@pytest.mark.parametrize("query", ["$nope", "${nope}", "[[nope]]", "${run:sql}"])
def test_an_unknown_variable_or_format_is_told(query):
    with pytest.raises(MacroError, match="unknown"):
        interpolate(query, {"run": constant("r")})


def test_titles_have_words():
    values = {"engine": Value(("a", "b"), True, ".*", "All"), "cell": Value(("c", "d"), True)}
    assert plain("TTFT of $engine in ${cell}, $5", values) == "TTFT of All in c + d, $5"


@given(st.lists(TEXTS, min_size=1, max_size=4, unique=True), TEXTS)
def test_several_values_match_themselves_and_nothing_else(values, other):
    assume(other not in values)
    query = interpolate('{x=~"$v"}', {"v": Value(tuple(values), several=True)})
    expression = unquoted(query.removeprefix('{x=~"').removesuffix('"}'))
    for value in values:
        assert re.fullmatch(expression, value, re.DOTALL)
    assert not re.fullmatch(expression, other, re.DOTALL)


@given(TEXTS)
def test_one_value_is_read_as_it_is(value):
    query = interpolate('{x="$v"}', {"v": Value((value,))})
    assert unquoted(query.removeprefix('{x="').removesuffix('"}')) == value


@given(TEXTS)
def test_a_text_without_variables_is_left_alone(text):
    assume("$" not in text and "[[" not in text)
    assert interpolate(text, built_in(HOUR)) == text
    assert plain(text, built_in(HOUR)) == text
