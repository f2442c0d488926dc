"""Which values a board's variables get."""

from __future__ import annotations

import pytest

from loadgen.boards.dashboard import load_board
from loadgen.boards.macros import interpolate
from loadgen.boards.span import Span
from loadgen.boards.variables import resolve
from loadgen.monitoring.prometheus import Prometheus
from tests.fake_prometheus import success
from tests.loadgen.boards.boards_json import board, variable, write

SPAN = Span(1000.0, 1060.0, 1.0)


def resolved(tmp_path, fake, *variables, given=None):
    loaded = load_board(write(tmp_path, board(variables=variables)))
    return resolve(loaded, Prometheus(fake.url), SPAN, given or {})


@pytest.fixture
def labels(fake):
    known = {"engine": ["vllm", "ksana", "llamacpp"], "run_id": ["r1", "r2"], "cell": ["c1"]}
    fake.answer = lambda query: success(known[query["path"].split("/")[-2]])
    return fake


def test_label_values_are_asked_of_prometheus_for_the_time_range(tmp_path, labels):
    values, problems = resolved(
        tmp_path,
        labels,
        variable("engine", 'label_values({__name__=~"a|b"}, engine)', multi=True, includeAll=True),
        variable("all", "label_values(run_id)"),
    )
    assert problems == []
    assert interpolate("$engine", values) == "(ksana|llamacpp|vllm)"
    first, second = labels.asked
    assert first == {
        "path": "/api/v1/label/engine/values",
        "match[]": '{__name__=~"a|b"}',
        "start": "1000.0",
        "end": "1060.0",
    }
    assert "match[]" not in second


def test_a_variable_narrows_the_next_one(tmp_path, labels):
    resolved(
        tmp_path,
        labels,
        variable("run", "label_values(x, run_id)", includeAll=True, allValue=".*"),
        variable("cell", 'label_values(x{run_id=~"$run", a="b"}, cell)'),
        given={"run": "r.1"},
    )
    assert [query["match[]"] for query in labels.asked] == [r'x{run_id=~"r\\.1", a="b"}']


def test_all_a_stored_value_or_the_first(tmp_path, labels):
    stored = {"text": "llamacpp", "value": "llamacpp"}
    values, _ = resolved(
        tmp_path,
        labels,
        variable("a", "label_values(x, engine)", current=stored),
        variable("b", "label_values(x, engine)", current={"value": "gone"}),
        variable("c", "label_values(x, engine)", includeAll=True, allValue=".*", current=stored),
        variable("d", "label_values(x, engine)", multi=True, current={"value": ["vllm", "gone", "ksana"]}),
    )
    assert interpolate("$a $b $c $d", values) == "llamacpp ksana .* (vllm|ksana)"


def test_other_kinds(tmp_path, labels):
    values, problems = resolved(
        tmp_path,
        labels,
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "fixed", "type": "constant", "query": "5m"},
        {"name": "choice", "type": "custom", "query": "one : 1, two : 2", "current": {"value": "2"}},
        {"name": "step", "type": "interval", "query": "30s,1m"},
        variable("short", "label_values(x, engine)", regex="/^(v|k).*$/", multi=True, current={"value": ["v", "k"]}),
    )
    assert problems == [] and "datasource" in values
    assert interpolate("$fixed $choice $step $short", values) == "5m 2 30s (v|k)"


def test_what_cannot_be_resolved_is_told_and_matches_everything(tmp_path, fake):
    fake.answer = lambda query: (400, b'{"status":"error","error":"bad matcher"}')
    values, problems = resolved(
        tmp_path,
        fake,
        variable("engine", "label_values(x{, engine)"),
        variable("odd", "query_result(up)"),
        variable("regex", "label_values(x, engine)", regex="/(/"),
    )
    assert "Variable engine" in problems[0] and "bad matcher" in problems[0]
    assert "Variable odd" in problems[1] and "query_result(up)" in problems[1]
    assert "Variable regex" in problems[2]
    assert interpolate('{e=~"$engine"}', values) == '{e=~".*"}'
