"""Bakeoff's own boards: each of their panels comes out on the page."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go

from loadgen.boards.catalogue import BOARDS
from loadgen.boards.page import build_page
from loadgen.monitoring.prometheus import Prometheus
from tests.fake_prometheus import matrix, success, vector
from tests.loadgen.boards.test_page import END, START, Reader, figures, manifest

LABELS = {"cell": "c1", "scenario": "s", "worker": "w1", "gpu": "0", "le": "1", "alertname": "A", "model": "m"}


def everything(query):
    """Both engines have a value of everything at every moment."""
    path = query["path"]
    if path.endswith("/config"):
        return success({"yaml": "global:\n  scrape_interval: 1s\n"})
    if path.endswith("/values"):
        return success(["one", "two"])
    engines = [LABELS | {"engine": name} for name in ("vllm", "ksana")]
    if path.endswith("/query"):
        return vector(END, *((labels, 0.5) for labels in engines))
    if query["query"] == "max(timestamp(up))":
        return matrix(({}, [(START + i, START + i) for i in range(61)]))
    return matrix(*((labels, [(START + i, 1.0) for i in range(61)]) for labels in engines))


def test_every_panel_of_every_board_is_on_the_page(fake):
    fake.answer = everything
    assert [board.title for board in BOARDS] == ["Bake-off", "Engine internals", "GPU", "Load generator"]
    run = manifest(("vllm", 0, 20), ("ksana", 25, 50))
    page = build_page(BOARDS, Prometheus(fake.url), START, END, title="t", manifest=run)
    assert page.filled == page.panels == sum(len(list(board.panels())) for board in BOARDS) > 50
    reader = Reader(page.html)
    assert not [attributes for name, attributes in reader.tags if attributes.get("class") in ("problem", "reason")]
    for board in BOARDS:
        for panel in board.panels():
            assert panel.title in reader.text
    asked = {query["query"] for query in fake.asked if "query" in query}
    assert not [query for query in asked if re.search(r"\$\w|\[\[", query)]
    assert len(asked) > 50
    drawn, palette = figures(page.html)
    engines: dict[str, set[int]] = {}
    for figure in drawn:
        go.Figure(json.loads(re.sub(r"@colour-(\d+)", lambda found: palette[int(found[1])][0], json.dumps(figure))))
        for trace in figure["data"]:
            if trace["name"] in ("vllm", "ksana") and trace["type"] == "scatter":
                engines.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert {name: len(colours) for name, colours in engines.items()} == {"vllm": 1, "ksana": 1}
