"""Grafana's JSON as panels; what cannot be shown is refused by file and panel."""

from __future__ import annotations

import pytest

from loadgen.boards.dashboard import load_board, load_boards
from loadgen.errors import UserError
from tests.loadgen.boards.boards_json import board, override, panel, row, target, variable, write


def at(x, y, **more):
    return panel(**more) | {"gridPos": {"x": x, "y": y, "w": 8, "h": 6}}


def test_panels_come_in_reading_order_under_their_rows(tmp_path):
    document = board(
        at(8, 0, title="b"),
        at(0, 0, title="a"),
        row("Open", 6),
        at(0, 7, title="c"),
        row("Closed", 20, at(8, 21, title="e"), at(0, 21, title="d")),
    )
    loaded = load_board(write(tmp_path, document))
    assert [(s.title, [p.title for p in s.panels]) for s in loaded.sections] == [
        ("", ["a", "b"]),
        ("Open", ["c"]),
        ("Closed", ["d", "e"]),
    ]
    assert [p.title for p in loaded.panels] == ["a", "b", "c", "d", "e"]


def test_a_panel_keeps_what_the_page_shows(tmp_path):
    document = board(
        panel("stat", "TTFT", "up", targets=[target("up", "B", instant=True, legendFormat="{{job}}", hide=True)]),
        variables=(variable("engine", "label_values(up, engine)", includeAll=True, allValue=".*", multi=True),),
        description="All of it",
    )
    loaded = load_board(write(tmp_path, document))
    (only,) = loaded.panels
    assert (only.type, only.title, only.description) == ("stat", "TTFT", "About TTFT.")
    assert (only.place.x, only.place.y, only.place.w, only.place.h) == (0, 0, 12, 8)
    (query,) = only.targets
    assert (query.ref, query.expr, query.legend, query.instant, query.hide) == ("B", "up", "{{job}}", True, True)
    (engine,) = loaded.variables
    assert (engine.name, engine.all, engine.all_value, engine.multi) == ("engine", True, ".*", True)
    assert (loaded.uid, loaded.title, loaded.description) == ("a-board", "A board", "All of it")


def test_boards_come_in_order_of_their_files(tmp_path):
    for name in ("b.json", "a.json"):
        write(tmp_path, board(panel(title=name), title=name), name)
    assert [each.title for each in load_boards(tmp_path)] == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (board(panel("piechart", "Shares")), ["panel 'Shares'", "type 'piechart'", "timeseries"]),
        (board(row("Row", 0, panel("heatmap", "Heat"))), ["panel 'Heat'", "type 'heatmap'"]),
        (board(panel(title="GPUs", repeat="gpu")), ["panel 'GPUs'", "repeat"]),
        (board(panel(title="T", defaults={"unit": "parsecs"})), ["panel 'T'", "unit 'parsecs'"]),
        (board(panel(title="T", overrides=[override("byName", "a", unit="stone")])), ["panel 'T'", "unit 'stone'"]),
        (board(panel(title="T", overrides=[override("byValue", {})])), ["panel 'T'", "'byValue'"]),
        (board(panel("table", "T", transformations=[{"id": "pivot", "options": {}}])), ["panel 'T'", "'pivot'"]),
        (board(panel(title="T", transformations=[{"id": "merge", "options": {}}])), ["panel 'T'", "'merge'", "tables"]),
        (board(panel(title="T", gridPos={"x": 99, "y": 0, "w": 1, "h": 1})), ["panel 'T'", "gridPos.x"]),
        (board(panel(title="T", targets="up")), ["panel 'T'", "targets"]),
        (board(variables=({"name": "v", "type": "adhoc"},)), ["variable 'v'", "'adhoc'"]),
        (board("not a panel"), ["not a panel"]),
        ({"title": "v2", "elements": {}}, ["classic"]),
        ([], ["classic"]),
        ("{torn", ["not a readable dashboard"]),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(document, words, tmp_path):
    path = write(tmp_path, document)
    with pytest.raises(UserError) as refused:
        load_board(path)
    for word in [str(path), *words]:
        assert word in str(refused.value)


def test_a_folder_without_boards_is_refused(tmp_path):
    with pytest.raises(UserError, match="no dashboard"):
        load_boards(tmp_path)
