"""Panels asked of a Prometheus that answers, errs, answers nonsense, hangs or dies."""

from __future__ import annotations

import socket
import threading

import pytest

from loadgen.boards.answers import ask, find_outages, legend
from loadgen.boards.model import Query
from loadgen.boards.span import Span
from loadgen.monitoring import prometheus as api
from loadgen.monitoring.prometheus import Prometheus
from tests.fake_prometheus import matrix, success, vector
from tests.loadgen.boards.boards import panel

SPAN = Span(1000.0, 1010.0, 1.0, 1.0)


def asked(url, *queries, chosen=None, outages=()):
    return ask(panel("A panel", *queries), Prometheus(url), SPAN, chosen or {}, outages)


def test_values_come_to_their_moments_and_the_rest_is_a_gap(fake):
    points = [(1000, 1), (1001, 2), (1005, "NaN"), (1006, 3.5), (1007, "+Inf"), (1010, 4), (1011, 9), (1003.4, 9)]
    fake.answer = lambda query: matrix(({"__name__": "x", "engine": "vllm"}, points))
    query = Query('increase(x{cell=~"$cell",run=~"$run"}[$__range])', "{{engine}} now")
    answer = asked(fake.url, query, chosen={"run": "r1"})
    (line,) = answer.lines
    assert (line.name, line.ref, line.labels["engine"]) == ("vllm now", "A", "vllm")
    assert line.values == [1, 2, None, None, None, None, 3.5, None, None, None, 4]
    assert (answer.points, answer.problems) == (4, ())
    text = 'increase(x{cell=~".*",run=~"r1"}[10s])'
    assert fake.asked == [
        {"path": "/api/v1/query_range", "query": text, "start": "1000.0", "end": "1010.0", "step": "1.0"}
    ]


def test_an_instant_query_is_asked_at_the_end(fake):
    fake.answer = lambda query: vector(1010, ({"engine": "a"}, 2), ({"engine": "b"}, "NaN"))
    answer = asked(fake.url, Query("x", instant=True))
    assert [(s.name, s.value) for s in answer.samples] == [("a", 2.0)]
    assert fake.asked == [{"path": "/api/v1/query", "query": "x", "time": "1010.0"}]


def test_an_outage_is_a_gap_though_prometheus_repeats_old_values(fake):
    fake.answer = lambda query: matrix(({}, [(1000 + i, i) for i in range(11)]))
    answer = asked(fake.url, "x", outages=[(1002.5, 1006.0)])
    assert answer.lines[0].values == [0, 1, 2, None, None, None, 6, 7, 8, 9, 10]


def test_one_query_that_fails_leaves_the_others(fake):
    def answer(query):
        if query["query"] == "x{":
            return 400, b'{"status":"error","errorType":"bad_data","error":"unexpected end of input"}'
        return matrix(({"engine": "a"}, [(1000, 1)]))

    fake.answer = answer
    found = asked(fake.url, "x{", "x")
    assert [line.ref for line in found.lines] == ["B"]
    assert "Query A" in found.problems[0] and "unexpected end of input" in found.problems[0]
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (502, b"<html>Bad gateway</html>", "HTTP 502"),
        (200, b"[]", "not as a Prometheus"),
        (200, b'{"status":"success"}', "not as a Prometheus"),
        (200, b'{"status":"success","data":{"result":[{"values":[["x"]]}]}}', "not as a Prometheus"),
        (200, b'{"status":"success","data":{"result":[{"metric":[],"values":[]}]}}', "not as a Prometheus"),
        (503, b'{"status":"error","error":"query timed out"}', "query timed out"),
        (422, b'{"status":"error"}', "422"),
    ],
)
def test_a_strange_answer_is_told_in_words(status, body, words, fake):
    fake.answer = lambda query: (status, body)
    answer = asked(fake.url, "x")
    assert answer.points == 0
    assert len(answer.problems) == 1 and words in answer.problems[0]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[bad"])
def test_a_prometheus_that_is_not_there_is_told_in_words(url):
    assert "does not answer" in asked(url, "x").problems[0]


def test_one_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(api, "TIMEOUT_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        prometheus = Prometheus(f"http://127.0.0.1:{listener.getsockname()[1]}")
        answer = ask(panel("A panel", *(f"x{i}" for i in range(5))), prometheus, SPAN, {}, [])
    assert len(answer.problems) == 5
    assert "does not answer (ReadTimeout)" in answer.problems[0]
    # After three of them nobody waits any more.
    assert "stopped answering" in answer.problems[3] and "stopped answering" in answer.problems[4]
    assert prometheus.gone


def test_one_that_dies_in_the_middle_of_an_answer_is_told_in_words():
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b'{"status":"succ')

    thread = threading.Thread(target=serve)
    thread.start()
    answer = asked(f"http://127.0.0.1:{listener.getsockname()[1]}", "x")
    thread.join()
    listener.close()
    assert "does not answer" in answer.problems[0]


@pytest.mark.parametrize(
    ("form", "labels", "name"),
    [
        ("{{engine}} p50", {"engine": "vllm"}, "vllm p50"),
        ("{{engine}} {{gone}}", {"engine": "vllm"}, "vllm"),
        ("fixed", {"engine": "vllm"}, "fixed"),
    ],
)
def test_a_series_is_named_as_the_query_says(form, labels, name):
    assert legend(Query("sum(x)", form), labels) == name


def newest(fake, *times):
    """The fake tells for each of the span's moments when the newest sample came, None for nothing."""
    points = [(SPAN.start + i, at) for i, at in enumerate(times) if at is not None]
    fake.answer = lambda query: matrix(*([({}, points)] if points else []))
    return find_outages(Prometheus(fake.url), Span(1000.0, 1000.0 + len(times) - 1, 1.0, 1.0))


def test_no_outage_where_samples_keep_coming(fake):
    assert newest(fake, *(1000 + i - 0.3 for i in range(20))) == []
    assert fake.asked[0]["query"] == "max(timestamp(up))"


def test_a_missed_scrape_or_two_is_no_outage(fake):
    assert newest(fake, 1000, 1001, 1001, 1001, 1004, 1005) == []


def test_an_outage_goes_from_the_last_sample_to_the_first_new_one(fake):
    times = [1000.5, *([1000.5] * 7), *([None] * 4), 1011.9, 1012.9]
    assert newest(fake, *times) == [(1000.5, 1012.0)]


def test_after_the_last_sample_of_all_there_is_nothing(fake):
    assert newest(fake, *([1000.0] * 20)) == [(1000.0, float("inf"))]


def test_without_the_series_up_nothing_is_said_of_outages(fake):
    assert newest(fake, None, None) == []
    fake.answer = lambda query: (500, b"")
    assert find_outages(Prometheus(fake.url), SPAN) == []


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600)])
def test_the_scrape_interval_is_asked_for(text, seconds, fake):
    yaml = f"global:\n  scrape_interval: {text}\n  scrape_timeout: 1s\nscrape_configs:\n- scrape_interval: 7s\n"
    fake.answer = lambda query: success({"yaml": yaml})
    assert Prometheus(fake.url).scrape_interval() == seconds
