"""The whole page, from boards and a Prometheus whose every value is known."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from loadgen.boards.model import Query, Row
from loadgen.boards.page import build_page
from loadgen.monitoring.prometheus import Prometheus, PrometheusGone
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest
from tests.fake_prometheus import matrix, success, vector
from tests.loadgen.boards.boards import board, panel

START = 1_790_000_000.0
END = START + 60
EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


class Reader(HTMLParser):
    """The page's tags with their attributes, text outside scripts, and data inside them."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: list[str] = []
        self.scripts = 0
        self._inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            kind = dict(attrs).get("type")
            self._inside = "data" if kind == "application/json" else "code"
            self.scripts += tag == "script" and kind is None
            if kind:
                self.data.append("")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data):
        if self._inside == "data":
            self.data[-1] += data
        elif not self._inside:
            self.text += data


def serve(fake, answers):
    """Answers by query; the scrape interval is a second, and `up` never stops."""

    def answer(query):
        if query["path"].endswith("/config"):
            return success({"yaml": "global:\n  scrape_interval: 1s\n"})
        if query["path"].endswith("/values"):
            return success(["vllm", "ksana"])
        if query["query"] == "max(timestamp(up))":
            return matrix(({}, [(START + i, START + i) for i in range(61)]))
        if query["query"] not in answers:
            return matrix()
        found = answers[query["query"]]
        return found(query) if callable(found) else found

    fake.answer = answer
    return Prometheus(fake.url)


def manifest(*blocks):
    facts = [
        BlockFacts(
            id=f"b{i}", record_id=f"b{i}", engine=engine, cell="p64-o32-c1", repeat=1, users=1, warmup_requests=0,
            measured_requests=1, started_at=START + start, ended_at=START + end,
        )
        for i, (engine, start, end) in enumerate(blocks)
    ]  # fmt: skip
    engines = [
        EngineFacts(name=name, kind=name, api="chat", base_url="http://x", model="m") for name in ("vllm", "ksana")
    ]
    return Manifest(run_id="20260921-1413-smoke", started_at=START, engines=engines, blocks=facts)


def figures(html):
    """All figures of the page, and its palette."""
    reader = Reader(html)
    documents = [json.loads(text) for text in reader.data]
    return [document for document in documents if isinstance(document, dict)], documents[-1]


def test_every_value_of_the_answer_is_on_the_page_and_no_other(fake):
    series = {
        "a": [
            ({"engine": "vllm"}, [(START + i, 0.0123456789 * (i + 1)) for i in range(61) if i % 7]),
            ({"engine": "ksana"}, [(START + i, 1e-5 + i) for i in range(0, 61, 2)]),
        ],
        "b": [({"engine": "vllm", "q": "1"}, [(START + 3, 2.0**33), (START + 4, "NaN"), (START + 60, 0)])],
    }
    prometheus = serve(fake, {name: matrix(*found) for name, found in series.items()})
    shown = board(panel("A", "a"), panel("B", Query("b", "{{engine}} {{q}}"), unit="bytes"))
    page = build_page([shown], prometheus, START, END, title="t", manifest=None)
    drawn, palette = figures(page.html)
    assert len(drawn) == 2
    count = 0
    for figure, told in zip(drawn, series.values(), strict=True):
        go.Figure(json.loads(re.sub(r"@colour-(\d+)", lambda f: palette[int(f[1])][0], json.dumps(figure))))
        for trace, (labels, points) in zip(figure["data"], told, strict=True):
            assert trace["name"] == " ".join(labels.values())
            assert trace["x0"] == "2026-09-21 14:13:20.000" and trace["dx"] == 1000
            divisor = figure["layout"]["meta"]["divisors"][trace["yaxis"]]
            shown = {START + i: v * divisor for i, v in enumerate(trace["y"]) if v is not None}
            wanted = {at: value for at, value in points if value != "NaN"}
            assert shown == pytest.approx(wanted, rel=1e-7)
            count += len(wanted)
    assert page.covered == count > 80
    assert f'<meta name="bakeoff-covered" content="{count}">' in page.html


def test_the_page_needs_nothing_but_itself(fake):
    prometheus = serve(fake, {"a": matrix(({"engine": "vllm"}, [(START, 1)]))})
    page = build_page([board(panel("A", "a"))], prometheus, START, END, title="t", manifest=None)
    reader = Reader(page.html)
    names = {name for name, _ in reader.tags}
    assert not names & {"link", "img", "iframe", "object", "embed", "base", "form"}
    for name, attributes in reader.tags:
        assert not attributes.keys() & {"src", "srcset", "action", "data", "poster"}, name
        assert attributes.get("href", "#").startswith("#")
        assert not any(key.startswith("on") for key in attributes)
    policy = next(a["content"] for name, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert reader.scripts == 2  # plotly and ours
    own = page.html[: page.html.index("plotly.js v")]
    assert not re.search(r"url\(|@import", own)
    targets = {attributes["href"][1:] for name, attributes in reader.tags if name == "a"}
    assert targets <= {attributes.get("id") for _, attributes in reader.tags}


def test_a_hostile_name_stays_a_name(fake):
    evil = matrix(({"engine": EVIL}, [(START, 1)]))
    prometheus = serve(fake, {"a": evil, "c": vector(END, ({"engine": EVIL}, 1))})
    shown = board(
        panel(EVIL, "a", about=EVIL),
        panel("S", "a", kind="stat"),
        panel("T", "c", kind="table"),
        panel("L", "a", kind="state-timeline", states={1: EVIL}),
        panel("Empty", "b", kind="stat", no_data=EVIL),
        row=EVIL,
    )
    shown = dataclasses.replace(shown, title=EVIL, about=EVIL)
    page = build_page([shown], prometheus, START, END, title=EVIL, manifest=None)
    reader = Reader(page.html)
    assert reader.scripts == 2
    assert not [name for name, _ in reader.tags if name == "img"]
    assert reader.text.count(EVIL) >= 5
    assert any(trace["name"] == EVIL for figure in figures(page.html)[0] for trace in figure["data"])


def test_panels_without_data_and_failures_are_told(fake):
    prometheus = serve(fake, {"bad": (400, b'{"status":"error","error":"parse error at char 4"}')})
    shown = board(
        panel("GPU", "none", no_data="No GPU is watched here"), panel("Bad", "bad", kind="stat"), row="The row"
    )
    page = build_page([shown], prometheus, START, END, title="t", manifest=None)
    text = Reader(page.html).text
    for words in ("The row", "No GPU is watched here", "parse error at char 4", "About GPU.", "0 of 2 panels"):
        assert words in text
    assert (page.covered, page.panels, page.filled, page.stopped) == (0, 2, 0, False)
    assert "details" not in [name for name, _ in Reader(page.html).tags], "a failure is in sight"


def test_a_row_of_which_nothing_is_known_is_folded_into_its_reason(fake):
    prometheus = serve(fake, {"a": matrix(({"engine": "e"}, [(START, 1)]))})
    empty = Row("Empty", (panel("G", "g", width=24, no_data="No GPU is here"),))
    shown = dataclasses.replace(board(panel("A", "a")), rows=(Row("Full", (panel("A", "a", width=24),)), empty))
    html = build_page([shown], prometheus, START, END, title="t", manifest=None).html
    folded = re.findall(r"<details.*?</details>", html, re.DOTALL)
    assert len(folded) == 1 and "Empty" in folded[0] and "No GPU is here" in folded[0].partition("</summary>")[0]
    assert "Full" not in folded[0]


def test_a_run_has_its_blocks_and_its_own_series(fake):
    asked = []

    def blocks(query):
        asked.append(query["query"])
        return matrix(({"engine": "ksana"}, [(START + i, 1) for i in range(61)]))

    run = manifest(("vllm", 0, 20), ("ksana", 25, 50))
    prometheus = serve(fake, {'x{run="20260921-1413-smoke"}': blocks})
    shown = board(panel("X", 'x{run="$run"}', width=24))
    page = build_page([shown], prometheus, START, END, title=run.run_id, manifest=run)
    assert asked
    (timeline, plot), _ = figures(page.html)
    assert [trace["name"] for trace in timeline["data"]] == ["vllm", "ksana"]
    grounds = [shape for shape in plot["layout"]["shapes"] if shape["type"] == "rect"]
    assert [shape["x0"][-12:] for shape in grounds] == ["14:13:20.000", "14:13:45.000"]
    # The ground, the line and the timeline of one engine have one colour.
    colours = {grounds[1]["fillcolor"], plot["data"][0]["line"]["color"], timeline["data"][1]["marker"]["color"]}
    assert len(colours) == 1
    assert "20260921-1413-smoke" in Reader(page.html).text


def test_without_a_run_the_clients_own_metric_tells_the_blocks(fake):
    info = {"run_id": "r", "engine": "vllm", "cell": "c", "block": "b1"}
    other = info | {"engine": "ksana", "block": "b2"}
    found = matrix(
        (info, [(START + i, 1) for i in (0, 1, 2, 3, 20, 21)]), (other, [(START + i, 1) for i in range(5, 9)])
    )
    query = "max by (run_id, block, engine, cell) (bakeoff_client_block_info)"
    prometheus = serve(fake, {query: found, "a": matrix(({"engine": "vllm"}, [(START, 1)]))})
    page = build_page([board(panel("A", "a"))], prometheus, START, END, title="t", manifest=None)
    (timeline, _), _ = figures(page.html)
    lengths = {trace["name"]: trace["x"] for trace in timeline["data"]}
    assert lengths == {"vllm": [3000, 1000], "ksana": [3000]}


def test_a_time_without_prometheus_is_marked_and_said(fake):
    prometheus = serve(fake, {"a": matrix(({"engine": "vllm"}, [(START + i, i) for i in range(61)]))})
    regular = fake.answer
    gone = matrix(({}, [(START + i, START + (i if i < 20 or i >= 40 else 19)) for i in range(61)]))
    fake.answer = lambda query: gone if query.get("query") == "max(timestamp(up))" else regular(query)
    page = build_page([board(panel("A", "a"))], prometheus, START, END, title="t", manifest=None)
    (plot,), _ = figures(page.html)
    missing = [i for i, value in enumerate(plot["data"][0]["y"]) if value is None]
    assert missing == list(range(20, 40))
    assert "recorded nothing from 14:13:39 to 14:14:00" in Reader(page.html).text


def test_the_name_of_a_run_is_no_pattern(fake):
    run = manifest(("vllm", 0, 20)).model_copy(update={"run_id": 'r.1"'})
    prometheus = serve(fake, {})
    build_page([board(panel("X", 'x{run=~"$run"}'))], prometheus, START, END, title="t", manifest=run)
    assert any(query.get("query") == r'x{run=~"r\\.1\""}' for query in fake.asked)


def test_the_grid_is_the_boards(fake):
    prometheus = serve(fake, {"a": matrix(({"engine": "vllm"}, [(START, 1)]))})
    shown = board(panel("L", "a", width=8, height=7), panel("R", "a", width=16, height=7), panel("B", "a", width=24))
    page = build_page([shown], prometheus, START, END, title="t", manifest=None)
    styles = [a["style"] for name, a in Reader(page.html).tags if name == "article" and "style" in a]
    assert styles == [
        "--x: 1; --w: 8; --y: 1; --h: 7",
        "--x: 9; --w: 16; --y: 1; --h: 7",
        "--x: 1; --w: 24; --y: 8; --h: 8",
    ]


def test_a_row_that_does_not_fill_its_lines_is_an_error():
    with pytest.raises(ValueError, match="row 'Half' do not fill 24 columns"):
        Row("Half", (panel("L", "a", width=8),)).placed()


def test_a_prometheus_that_is_not_there_is_an_error_and_one_that_dies_is_told(fake):
    shown = board(*(panel(f"P{i}", "a") for i in range(6)))
    with pytest.raises(PrometheusGone):
        build_page([shown], Prometheus("http://127.0.0.1:9"), START, END, title="t", manifest=None)
    prometheus = serve(fake, {"a": matrix(({"engine": "vllm"}, [(START, 1)]))})
    regular = fake.answer

    def dying(query):
        if sum(each.get("query") == "a" for each in fake.asked) > 2:
            prometheus.url = "http://127.0.0.1:9"
        return regular(query)

    fake.answer = dying
    page = build_page([shown], prometheus, START, END, title="t", manifest=None)
    assert page.stopped and page.filled == 3
    text = Reader(page.html).text
    assert text.count("does not answer") == 3


def test_a_server_that_hides_its_configuration_is_taken_for_a_slow_one(fake):
    prometheus = serve(fake, {})
    regular = fake.answer
    fake.answer = lambda query: (
        (403, b'{"status":"error","error":"no"}') if "config" in query["path"] else regular(query)
    )
    build_page([board(panel("A", "a"))], prometheus, START, END, title="t", manifest=None)
    (query,) = [query for query in fake.asked if query.get("query") == "a"]
    assert float(query["step"]) == 15
