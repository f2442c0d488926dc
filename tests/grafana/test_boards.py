"""The boards as JSON: what Grafana needs to show them, and what a reader needs to understand them."""

import json
import re
from collections import Counter

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard
from ruamel.yaml import YAML

from grafana.boards.dashboard_json import series_of
from grafana.boards.files import FOLDER, texts
from loadgen.boards.catalogue import BOARDS
from loadgen.boards.colours import KNOWN
from loadgen.presentation.style import LOOKS
from stack.setup import ENGINES
from tests.prometheus.conftest import CHECKOUT

BUILT = {name.removesuffix(".json"): json.loads(text) for name, text in texts().items()}
KINDS = {"timeseries", "stat", "bargauge", "table", "state-timeline"}
PANELS = [(uid, panel) for uid, board in BUILT.items() for panel in board["panels"] if panel["type"] != "row"]
every_board = pytest.mark.parametrize("uid", BUILT)
every_panel = pytest.mark.parametrize(("uid", "panel"), PANELS, ids=[f"{uid}-{p['title']}" for uid, p in PANELS])


def test_the_committed_boards_are_those_that_the_code_builds():
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert found == texts(), "run `make boards`"


@every_board
def test_grafanas_own_types_read_and_write_a_board_without_loss(uid):
    text = texts()[f"{uid}.json"]
    read = dashboard.Dashboard.from_json(json.loads(text))
    again = json.loads(JSONEncoder(sort_keys=True).encode(read))
    for part in (*again["links"], *again["annotations"]["list"]):
        assert part.pop("placement") == "inControlsMenu"  # which the SDK knows as a constant only
    assert again == json.loads(text)


@every_board
def test_a_board_is_one_that_file_provisioning_takes(uid):
    board = BUILT[uid]
    assert 39 <= board["schemaVersion"] <= 42
    assert board["uid"] == uid
    assert re.fullmatch(r"[a-z-]{4,40}", uid)
    assert board.get("id") is None
    assert board["title"] and board["description"] and not board["editable"]
    assert "${DS_" not in json.dumps(board)


def test_no_name_is_taken_twice():
    assert max(Counter(board["uid"] for board in BUILT.values()).values()) == 1
    assert max(Counter(board["title"] for board in BUILT.values()).values()) == 1
    for board in BUILT.values():
        assert max(Counter(panel["id"] for panel in board["panels"]).values()) == 1
        assert max(Counter(panel["title"] for panel in board["panels"]).values()) == 1


@every_board
def test_a_board_links_to_all_and_takes_range_and_choices_along(uid):
    links = BUILT[uid]["links"]
    assert [link["url"] for link in links] == [f"/d/{other}" for other in BUILT]
    assert [link["title"] for link in links] == [board["title"] for board in BUILT.values()]
    assert all(link["keepTime"] and link["includeVars"] and link["type"] == "link" for link in links)


@every_board
def test_panels_fill_the_grid_without_a_gap_or_an_overlap(uid):
    cells = Counter()
    for panel in BUILT[uid]["panels"]:
        place = panel["gridPos"]
        cells.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    height = max(y for _, y in cells) + 1
    assert set(cells) == {(x, y) for x in range(24) for y in range(height)}
    assert set(cells.values()) == {1}


@every_panel
def test_a_panel_explains_itself(uid, panel):
    assert panel["type"] in KINDS
    assert 3 <= len(panel["title"]) <= 50 and panel["title"][0].isupper()
    assert len(panel["description"]) >= 60
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert len(defaults["noValue"]) >= 10 and defaults["noValue"] != "No data"
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["expr"].strip() and target["legendFormat"]
        assert target["instant"] is not target["range"]
        assert ("$__range" in target["expr"]) == target["instant"], "a range's length is for what is asked at its end"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@every_panel
def test_words_of_good_and_bad(uid, panel):
    """Every description tells how to judge the figure, in some words or others."""
    words = r"\b([Gg]ood|[Hh]igh|[Ll]ow|zero|should|slower|twice|half|missing|beside|limit|[Ff]lat|idle)\b"
    assert re.search(words, panel["description"])


def engines_of_the_stacks():
    """The names of all engines in compose.yaml, by profile, and in the stack of plain processes."""
    services = YAML(typ="safe").load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    found = {"processes": set(ENGINES)}
    for name, service in services.items():
        if "bakeoff.engine" in (service.get("labels") or {}):
            for profile in service["profiles"]:
                found.setdefault(profile, set()).add(name)
    return found


def test_each_engine_of_the_stacks_has_a_colour_of_its_own_from_the_reports_palette():
    stacks = engines_of_the_stacks()
    assert set(KNOWN) == set().union(*stacks.values())
    for names in stacks.values():
        assert len({KNOWN[name] for name in names}) == len(names) >= 2
    assert set(KNOWN.values()) <= {(look.light, look.dark) for look in LOOKS}


@every_panel
def test_an_engine_has_the_same_colour_on_every_panel(uid, panel):
    def colour(series):
        found = panel["fieldConfig"]["defaults"]["color"]["mode"]
        for override in panel["fieldConfig"]["overrides"]:
            matcher = override["matcher"]
            options = matcher["options"]
            if matcher["id"] == "byName" and options == series:
                found = override["properties"][0]["value"]["fixedColor"]
            if matcher["id"] == "byRegexp" and re.search(options.strip("/"), series):
                found = override["properties"][0]["value"]["fixedColor"]
        return found

    for engine, wanted in KNOWN.items():
        assert colour(engine) == colour(f"{engine} · p0064-o0032-c004") == wanted.dark
    assert colour("somebody-elses") == "palette-classic-by-name"


def test_a_name_that_begins_like_an_engines_is_not_that_engine():
    expression = re.compile(series_of("vllm").strip("/"))
    assert expression.search("vllm") and expression.search("vllm · c")
    assert not expression.search("vllm-cpu") and not expression.search("sim-vllm") and not expression.search("vllm c")


@every_panel
def test_what_compares_engines_is_named_by_them(uid, panel):
    """The fallback colour comes of the series' name: it must be the engine's alone."""
    for target in panel["targets"]:
        if "{{engine}}" in target["legendFormat"]:
            engine, _, rest = target["legendFormat"].partition(" · ")
            assert engine in ("{{engine}}", "{{alertname}} {{engine}}")
            assert rest in ("", "{{cell}}", "{{outcome}}", "{{cell}} · {{reason}}")


@every_board
def test_choices_begin_with_everything(uid):
    source, *others = BUILT[uid]["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [each["name"] for each in others] == ["run", "scenario", "cell", "engine"]
    for each in others:
        assert each["type"] == "query" and each["includeAll"] and each["allValue"] == ".*"
        assert each["current"]["value"] == "$__all"
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [each.get("multi", False) for each in others] == [False, False, False, True]


@every_board
def test_runs_and_blocks_are_marked(uid):
    blocks, runs, written = BUILT[uid]["annotations"]["list"]
    assert blocks["enable"] and blocks["datasource"]["uid"] == "${datasource}"
    assert "bakeoff_client_block_info" in blocks["expr"] and 'run_id=~"$run"' in blocks["expr"]
    assert blocks["titleFormat"] and blocks["step"] == "5s"
    for own, tag, shown in ((runs, "run", True), (written, "block", False)):
        assert own["datasource"] == {"type": "datasource", "uid": "grafana"}
        assert own["target"]["tags"] == ["bakeoff", tag] and own["target"]["type"] == "tags"
        assert own["enable"] is shown and not own["target"]["matchAny"]


ASKED = {
    "bakeoff": [
        *(f"{figure} p{percent}" for figure in ("TTFT", "TPOT", "E2E") for percent in (50, 95, 99)),
        *(
            "Output tokens/s",
            "Requests/s",
            "Failed requests",
            "GPU memory",
            "KV cache in use",
            "Output tokens per joule",
        ),
        *(
            "TTFT mean, above the least",
            "TPOT mean, above the least",
            "E2E mean, above the least",
            "Output tokens/s, below the most",
            "Blocks",
        ),
    ],
    "bakeoff-engines": [
        *("Requests that wait", "Time in the queue", "Requests in the batch", "Tokens a step", "KV cache in use"),
        *("Prefix cache hits", "Preempted and computed again", "Swapped out"),
        *(
            "TTFT, as the engine counts it",
            "TTFT, as the client sees it",
            "TTFT outside the engine (residual)",
        ),
    ],
    "bakeoff-gpu": [
        *("GPU memory by engine", "GPU busy", "Power by card", "SM clock", "Memory clock", "Throttling", "Temperature"),
        "Energy in this time range",
    ],
    "bakeoff-client": [
        *("Limited by the client", "CPU a worker", "Loop lag", "Schedule lag", "Events/s a worker", "Records pending"),
        "Users and requests in flight",
    ],
}


@every_board
def test_what_the_boards_are_for_is_on_them(uid):
    titles = [panel["title"] for panel in BUILT[uid]["panels"]]
    assert [title for title in ASKED[uid] if title not in titles] == []
    assert list(ASKED) == [board.uid for board in BOARDS]
