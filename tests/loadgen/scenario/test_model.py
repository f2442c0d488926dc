"""Scenarios: what they expand into, and how mistakes are explained."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import UserError
from loadgen.metrics.slo import Slo
from loadgen.scenario.capacity import FindCapacity
from loadgen.scenario.context_limit import limit_context
from loadgen.scenario.file import load_scenario, shipped_scenarios
from loadgen.scenario.model import Block, Cell, Load, Scenario
from loadgen.scenario.script import Part
from loadgen.scenario.shapes import Conversation, Prefixes, Step
from loadgen.stream.timeouts import Timeouts
from tests.loadgen.bench.races import TOP

GOOD = """\
name: mine
question: Which one?
engines: [a, b]
prompt_tokens: [8, 4]
output_tokens: [2]
load:
  concurrency: [1, 3]
requests: 5
"""


@pytest.fixture
def write(tmp_path):
    def put(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return put


def explain(path):
    with pytest.raises(UserError) as caught:
        load_scenario(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_shipped_scenarios_load_and_carry_their_file_names():
    assert {"smoke", "seed-matrix"} <= set(shipped_scenarios())
    for name in shipped_scenarios():
        assert load_scenario(name).name == name


def test_the_classic_matrix_is_what_was_asked_for():
    scenario = load_scenario("seed-matrix")
    expected = set(itertools.product([512, 1024, 2048, 4096], [128], [1, 4, 8, 16]))
    assert {(c.prompt_tokens, c.output_tokens, c.concurrency) for c in scenario.cells()} == expected
    assert scenario.requests == 100


def test_a_file_by_path_with_its_defaults(write):
    scenario = load_scenario(write(GOOD))
    assert (scenario.warmup, scenario.repeats, scenario.shared_prefix_tokens, scenario.seed) == (1, 1, 0, 1)
    assert [c.id for c in scenario.cells()] == [
        "p0008-o0002-c001",
        "p0008-o0002-c003",
        "p0004-o0002-c001",
        "p0004-o0002-c003",
    ]


def test_a_scenario_survives_its_manifest(write):
    scenario = load_scenario(write(GOOD + "timeouts: {stall_s: 5}\nmodel: |\n  text\n"))
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


def test_blocks_alternate_a_b_b_a(write):
    scenario = load_scenario(write(GOOD.replace("[8, 4]", "[4]").replace("[1, 3]", "[1]") + "repeats: 3\n"))
    assert [(b.engine, b.repeat) for b in scenario.blocks(["a", "b"])] == [
        *(("a", 1), ("b", 1)),
        *(("b", 2), ("a", 2)),
        *(("b", 3), ("a", 3)),
    ]


def test_drift_cancels_over_two_repeats_and_a_bent_one_over_four(write):
    scenario = load_scenario(write(GOOD.replace("[8, 4]", "[4]").replace("[1, 3]", "[1]") + "repeats: 4\n"))
    when: dict[str, list[int]] = {"a": [], "b": []}
    for moment, block in enumerate(scenario.blocks(["a", "b"])):
        when[block.engine].append(moment)
    assert sum(when["a"]) == sum(when["b"])
    assert sum(t * t for t in when["a"]) == sum(t * t for t in when["b"])
    assert sum(when["a"][:2]) == sum(when["b"][:2])


def test_engines_that_are_kept_up_alternate_cell_by_cell(write):
    blocks = list(load_scenario(write(GOOD + "repeats: 2\nbetween_blocks: keep\n")).blocks(["a", "b"]))
    cells = [block.cell for block in blocks]
    assert cells[::2] == cells[1::2], "the two blocks of a cell stand side by side"
    assert [b.engine for b in blocks[:8]] == ["a", "b"] * 4
    assert [b.engine for b in blocks[8:]] == ["b", "a"] * 4
    assert len({b.id for b in blocks}) == len(blocks)


@pytest.mark.parametrize(
    ("repeats", "starts", "expected"),
    [(4, 1, [1, 1, 1, 1]), (4, 2, [1, 1, 2, 2]), (3, 3, [1, 2, 3]), (5, 2, [1, 1, 1, 2, 2])],
)
def test_repeats_are_divided_among_the_starts(write, repeats, starts, expected):
    text = f"repeats: {repeats}\nbetween_blocks: keep\nstarts: {starts}\n"
    scenario = load_scenario(write(GOOD + text))
    assert [scenario.start_of(repeat) for repeat in range(1, repeats + 1)] == expected


@given(st.integers(1, 50), st.data())
def test_every_start_has_as_many_repeats_as_the_others_or_one_more(repeats, data):
    starts = data.draw(st.integers(1, repeats))
    fields = {"name": "x", "question": "?", "prompt_tokens": [4], "output_tokens": [2], "requests": 1}
    fields |= {"load": {"concurrency": [1]}, "repeats": repeats, "starts": starts, "between_blocks": "keep"}
    scenario = Scenario.model_validate(fields)
    groups = [scenario.start_of(repeat) for repeat in range(1, repeats + 1)]
    sizes = [groups.count(start) for start in range(1, starts + 1)]
    assert groups == sorted(groups)
    assert sum(sizes) == repeats
    assert max(sizes) - min(sizes) <= 1


def test_further_repeats_go_on_in_the_same_order(write):
    scenario = load_scenario(write(GOOD + "repeats: 6\n"))
    whole = list(scenario.blocks(["a", "b"]))
    assert [*scenario.blocks(["a", "b"], range(1, 3)), *scenario.blocks(["a", "b"], range(3, 7))] == whole


def test_an_engine_serves_all_cells_before_it_is_changed_and_none_twice(write):
    blocks = list(load_scenario(write(GOOD + "repeats: 2\n")).blocks(["a", "b"]))
    assert len({b.id for b in blocks}) == len(blocks) == 2 * 2 * 4
    assert [engine for engine, _ in itertools.groupby(blocks, lambda b: b.engine)] == ["a", "b", "a"]
    assert blocks[0].id == "a.p0008-o0002-c001.r1"
    assert Block("a", Cell(512, 128, 4), 2).id == "a.p0512-o0128-c004.r2"


@settings(deadline=None)
@given(st.builds(Cell, *[st.integers(1, 10**8)] * 3))
def test_a_cell_id_reads_back(cell):
    assert Cell.parse(cell.id) == cell


@settings(deadline=None)
@given(st.builds(Cell, st.integers(1, 10**8), st.integers(1, 10**8), st.just(0), st.floats(1e-6, 1e5)))
def test_the_id_of_an_open_loop_cell_reads_back(cell):
    assert Cell.parse(cell.id) == cell
    assert cell.open_loop
    assert cell.load == cell.rate


@settings(deadline=None)
@given(st.builds(Cell, st.integers(1, 10**8), st.integers(1, 10**8), st.just(0), batch=st.integers(1, 10_000)))
def test_the_id_of_a_batch_cell_reads_back(cell):
    assert Cell.parse(cell.id) == cell
    assert (cell.open_loop, cell.load, cell.streams) == (False, cell.batch, cell.batch)
    assert cell.load_text == f"batch {cell.batch}"


def test_a_batch_scenario(write):
    scenario = load_scenario(
        write(GOOD.replace("concurrency: [1, 3]", "batch: [4, 1]") + "fail_if: [batch_latency.p50 > 2s]\n")
    )
    assert [cell.id for cell in scenario.cells()][:2] == ["p0008-o0002-b004", "p0008-o0002-b001"]
    assert scenario.warmup == 1
    assert [cell.whole(scenario.requests) for cell in scenario.cells()[:2]] == [8, 5]
    assert Cell(8, 2, 0, batch=4).id == "p0008-o0002-b004"


def test_the_matrix_of_batches_is_the_classic_one_with_batches_for_users():
    classic, batches = load_scenario("seed-matrix"), load_scenario("seed-matrix-batch")
    assert [cell.shape for cell in classic.cells()] == [cell.shape for cell in batches.cells()]
    assert [cell.concurrency for cell in classic.cells()] == [cell.batch for cell in batches.cells()]
    own = ("name", "question", "load")
    a, b = (scenario.model_dump(exclude=set(own)) for scenario in (classic, batches))
    assert a == b


def test_an_open_loop_scenario(write):
    scenario = load_scenario(write(GOOD.replace("concurrency: [1, 3]", "rate: [2, 0.5]\n  arrival: constant")))
    assert [cell.id for cell in scenario.cells()][:2] == ["p0008-o0002-r2", "p0008-o0002-r0.5"]
    assert scenario.warmup == 10


def test_a_load_is_closed_or_open(write):
    both = explain(write(GOOD.replace("concurrency: [1, 3]", "concurrency: [1, 3]\n  rate: [2]")))
    assert "either `concurrency` (closed loop) or `rate` (open loop)" in both


@settings(deadline=None)
@given(st.sets(st.builds(Cell, st.integers(1, 9999), st.integers(1, 9999), st.integers(1, 999)), max_size=8))
def test_cells_sort_by_number(cells):
    as_tuples = sorted((c.prompt_tokens, c.output_tokens, c.concurrency) for c in cells)
    assert [(c.prompt_tokens, c.output_tokens, c.concurrency) for c in sorted(cells)] == as_tuples
    assert sorted(c.id for c in cells) == [c.id for c in sorted(cells)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p",
        "p1-o2",
        "p0001-o0002-c003-x",
        "o0001-p0002-c003",
        "p+001-o0002-c003",
        "p0001-o0002-c003\n",
        "p٣٣٣٣-o0002-c003",
    ],
)
def test_what_is_no_cell_id(text):
    with pytest.raises(ValueError, match="is not a cell id"):
        Cell.parse(text)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD + "promt_tokens: [1]\n", 9, ["`promt_tokens`: unknown key", "did you mean `prompt_tokens`?"]),
        (GOOD + "zzz: 1\n", 9, ["`zzz`: unknown key", "known keys: name, question"]),
        (GOOD + "timeouts:\n  stall: 3\n", 10, ["`timeouts.stall`: unknown key", "did you mean `stall_s`?"]),
        (GOOD.replace("load:", "load:\n  speed: 1"), 7, ["`load.speed`: unknown key", "known keys: concurrency"]),
        (GOOD.replace("requests: 5\n", ""), None, ["`requests`: this key is required"]),
        (GOOD + "fail_if: []\nslo:\n  ttft_ms: 5\nfind_capacity: {from: 1, to: 2}\n", 12, ["`find_capacity.of`"]),
        (
            GOOD.replace("  concurrency: [1, 3]", "  {}"),
            6,
            ["`load`: give either `concurrency` (closed loop) or `rate` (open loop)"],
        ),
        (GOOD.replace("requests: 5", "requests: many"), 8, ["`requests`", "a whole number", "'many'"]),
        (GOOD.replace("requests: 5", "requests: true"), 8, ["`requests`", "a whole number"]),
        (GOOD.replace("requests: 5", "requests: '5'"), 8, ["`requests`", "a whole number"]),
        (GOOD.replace("requests: 5", "requests: 5.0"), 8, ["`requests`", "a whole number"]),
        (GOOD.replace("requests: 5", "requests: 0"), 8, ["`requests`", "must be 1 or more"]),
        (GOOD.replace("[8, 4]", "\n  - 8\n  - x"), 6, ["`prompt_tokens.1`", "a whole number", "'x'"]),
        (GOOD.replace("[8, 4]", "8"), 4, ["`prompt_tokens`", "must be a list, such as [8]"]),
        (GOOD + "serving: 5\n", 9, ["`serving`", "must hold keys of its own", "not '5'"]),
        (GOOD.replace("requests: 5", "requests:"), 8, ["`requests`", "not nothing"]),
        (GOOD.replace("[8, 4]", "[]"), 4, ["`prompt_tokens`", "must not be empty"]),
        (GOOD.replace("[8, 4]", "[8, 8]"), 4, ["`prompt_tokens` lists a value twice"]),
        (GOOD.replace("[1, 3]", "[3, 3]"), 7, ["`load.concurrency` lists a value twice"]),
        (GOOD.replace("[a, b]", "[a, a]"), 3, ["`engines` lists a value twice"]),
        (GOOD + "shared_prefix_tokens: 4\n", 9, ["`shared_prefix_tokens` must be less than the shortest"]),
        (GOOD.replace("name: mine", "name: Mine Own"), 1, ["`name`", "small letters"]),
        (GOOD + "timeouts: {total_s: .inf}\n", 9, ["`timeouts.total_s`", "finite"]),
        (GOOD + "timeouts: {stall_s: -1}\n", 9, ["`timeouts.stall_s`", "more than 0"]),
        (GOOD.replace("concurrency: [1, 3]", "concurrency: [1, 3]\n  batch: [2]"), 6, ["send in a `batch`"]),
        (GOOD.replace("concurrency: [1, 3]", "batch: [3, 3]"), 7, ["`load.batch` lists a value twice"]),
        (
            GOOD.replace("concurrency: [1, 3]", "batch: [2]") + "conversation: {turns: 2, message_tokens: 2}\n",
            9,
            ["`conversation` needs users"],
        ),
        (GOOD + "fail_if: [batch_latency.p50 > 2s]\n", 9, ["batch_latency is of a batch load: give `load.batch`"]),
        (GOOD + "starts: 2\nrepeats: 4\n", 9, ["`starts` goes with `between_blocks: keep`"]),
        (GOOD + "between_blocks: keep\nstarts: 3\nrepeats: 2\n", 10, ["`starts` (3) are more than `repeats` (2)"]),
        (GOOD + "requests: 6\n", 9, ["not valid YAML", 'duplicate key "requests"']),
        (GOOD + "seed: [1\n", 10, ["not valid YAML"]),
        (GOOD + "\tseed: 1\n", 9, ["not valid YAML"]),
        ("", 1, ["a scenario is a mapping"]),
        ("# only a comment\n", 1, ["a scenario is a mapping"]),
        ("- name: mine\n", 1, ["a scenario is a mapping"]),
        ("just words\n", 1, ["a scenario is a mapping"]),
    ],
)
def test_a_mistake_is_explained_with_file_line_and_hint(write, text, line, said):
    path = write(text)
    message = explain(path)
    assert message.startswith(f"{path}: " if line is None else f"{path}:{line}: "), message
    assert "\n" not in message
    for words in said:
        assert words in message


def test_a_misspelt_key_of_the_load_is_named(write):
    message = explain(write(GOOD.replace("concurrency", "concurency")))
    assert "mine.yaml:7: `load.concurency`: unknown key; did you mean `concurrency`?" in message


def test_several_mistakes_are_one_line_each(write):
    path = write(GOOD.replace("requests: 5", "requests: no\nseeds: 1").replace("name: mine\n", ""))
    lines = explain(path).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{path}:") for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "model: 2001-99-99\n",  # bare ValueError of the YAML library
        GOOD + "model: !!int x\n",
        "%YAML 9.9\n---\n" + GOOD,  # bare KeyError
        "[" * 600,  # RecursionError
        GOOD + "model: \x00\n",
        b"\xff\xfe" + GOOD.encode(),
        GOOD + "---\nname: other\n",
        GOOD + "1: 2\n",
        GOOD + "? [a]\n: b\n",
        GOOD + "model: !!python/object/apply:os.getpid []\n",
    ],
)
def test_odd_files_are_one_clear_message(write, text):
    path = write(text)
    message = explain(path)
    assert path in message
    assert "\n" not in message


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)), st.booleans())
def test_no_file_makes_anything_but_a_scenario_or_an_explanation(tmp_path_factory, junk, after):
    path = tmp_path_factory.getbasetemp() / "junk.yaml"
    path.write_bytes(GOOD.encode() + junk if after else junk)
    try:
        assert isinstance(load_scenario(str(path)), Scenario)
    except UserError as error:
        assert str(path) in str(error)


def test_a_name_that_does_not_exist_gets_a_suggestion(tmp_path):
    assert "Did you mean 'smoke'?" in explain("smok")
    assert "smoke" in explain("nothing-like-it")
    assert "There is no scenario" in explain(str(tmp_path / "absent.yaml"))
    assert "There is no scenario" in explain("pyproject.toml/inside.yaml")


def test_a_folder_or_an_impossible_path_is_explained(tmp_path):
    assert f"{tmp_path} is a folder, and no run's" in explain(str(tmp_path))
    assert "cannot be read" in explain("x" * 5000)
    assert "cannot be read" in explain("a\0b")
    for content in (b"\xff\xfe\x90", b"name\0: x"):
        (tmp_path / "x.yaml").write_bytes(content)
        assert "x.yaml is no text file" in explain(str(tmp_path / "x.yaml"))


def test_every_shipped_scenario_asks_a_question_and_can_be_shortened():
    asked = {name: load_scenario(name) for name in shipped_scenarios()}
    assert {"long-context", "prefix", "burst", "chat", "capacity"} <= set(asked)
    for name, scenario in asked.items():
        assert scenario.question.endswith("?")
        assert scenario.left_out() == []
        if name != "burst":  # which must reach beyond its burst
            assert Scenario.model_validate({**scenario.model_dump(), "requests": 20}).requests == 20
    assert [cell.id for cell in asked["prefix"].cells()] == [
        "p2048-o0064-c001",
        "p2048-o0064-c008",
        "p2048-o0064-c001-s50",
        "p2048-o0064-c008-s50",
        "p2048-o0064-c001-s90",
        "p2048-o0064-c008-s90",
    ]
    assert [asked["prefix"].shared_tokens(cell) for cell in asked["prefix"].cells()] == [0, 0, 1024, 1024, 1843, 1843]
    assert [cell.id for cell in asked["burst"].cells()] == ["p0512-o0128-r4-b20f10x4"]
    assert [cell.id for cell in asked["chat"].cells()] == [f"p0512-o0128-c{n:03d}-k8m64w2e" for n in (8, 32)]
    assert asked["chat"].warmup == 8


OPEN = GOOD.replace("concurrency: [1, 3]", "rate: [2]").replace("requests: 5", "requests: 100")
SEARCH = OPEN.replace("load:\n  rate: [2]\n", "") + "slo: {ttft_ms: 100}\nfind_capacity: {of: rate, from: 1"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD + "slo: {ttft: 100}\n", 9, ["`slo.ttft`: unknown key", "did you mean `ttft_ms`?"]),
        (GOOD + "slo: {percentile: 90}\n", 9, ["`slo`", "give a limit: `ttft_ms`, `tpot_ms` or `e2e_ms`"]),
        (GOOD + "slo: {ttft_ms: 1, percentile: 100}\n", 9, ["`slo.percentile`", "less than 100"]),
        (GOOD + "max_error_share: 2\n", 9, ["`max_error_share`", "must be 1 or less"]),
        (GOOD + "shared_prefix: [0.5, 1]\n", 9, ["`shared_prefix.1`", "less than 1"]),
        (GOOD + "shared_prefix: [0.123]\n", 9, ["`shared_prefix` is in whole per cents"]),
        (GOOD + "shared_prefix: [0.5]\nshared_prefix_tokens: 1\n", 9, ["`shared_prefix` and `shared_prefix_tokens`"]),
        (OPEN.replace("[2]\nreq", "[2]\n  step: {at: 1}\nreq"), 8, ["`load.step.at`: unknown key", "`at_s`"]),
        (
            OPEN.replace("rate: [2]", "rate: [2]\n  step: {at_s: 60, for_s: 10, factor: 3}"),
            9,
            ["`requests` (100) are over before the step", "at 2 req/s it takes 170 or more"],
        ),
        (GOOD.replace("3]", "3]\n  step: {at_s: 1, for_s: 1, factor: 3}"), 8, ["`step` goes with a `rate`"]),
        (OPEN + "conversation: {turns: 2, message_tokens: 3}\n", 9, ["`conversation` needs users"]),
        (GOOD + "conversation: {turns: 1, message_tokens: 3}\n", 9, ["`conversation.turns`", "must be 2 or more"]),
        (SEARCH + ", to: 0.5}\n", 8, ["`find_capacity`", "`to` must not be less than `from`"]),
        (SEARCH + ", form: 0.5}\n", 8, ["`find_capacity.form`: unknown key", "did you mean `from`?"]),
        (SEARCH.replace("of: rate, from: 1", "of: concurrency, from: 1.5") + "}\n", 8, ["must be whole numbers"]),
        (SEARCH.replace("slo: {ttft_ms: 100}\n", "") + "}\n", 7, ["`find_capacity` needs an `slo`"]),
        (SEARCH.replace("ttft_ms", "tpot_ms") + "}\n", 7, ["`slo` must limit `ttft_ms` or `e2e_ms`"]),
        (SEARCH + "}\nload: {rate: [1]}\n", 8, ["`find_capacity` chooses the load itself"]),
        (SEARCH + "}\nrepeats: 2\n", 8, ["`find_capacity` searches each engine once: leave out `repeats`"]),
        (GOOD + "max_context: 5\n", 9, ["`max_context` (5) must hold the shortest prompt and its output at least: 6"]),
    ],
)
def test_a_mistake_in_a_shape_is_explained(write, text, line, said):
    path = write(text)
    message = explain(path)
    assert message.startswith(f"{path}:{line}: "), message
    for words in said:
        assert words in message


def test_a_search_survives_its_manifest(write):
    scenario = load_scenario(write(SEARCH + ", to: 50}\nload: {arrival: constant}\n"))
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert scenario.model_dump()["find_capacity"]["from"] == 1
    assert scenario.warmup == 10
    assert [cell.id for cell in scenario.cells()] == ["p0008-o0002-c000", "p0004-o0002-c000"]


def test_cells_that_no_context_holds_are_left_out(write):
    scenario = load_scenario(write(GOOD + "max_context: 6\n"))
    assert [cell.prompt_tokens for cell in scenario.cells()] == [4, 4]
    assert [cell.prompt_tokens for cell in scenario.left_out()] == [8, 8]


def test_an_engine_with_a_short_context_leaves_cells_out(write):
    scenario = load_scenario(write(GOOD))
    assert limit_context(scenario, None, "a") == (scenario, None)
    assert limit_context(scenario, 10, "a") == (scenario, None)
    limited, note = limit_context(scenario, 9, "a")
    assert [cell.prompt_tokens for cell in limited.cells()] == [4, 4]
    assert note is not None and "a serves a context of 9 tokens" in note and "p0008-o0002-c001 (10 tokens)" in note
    assert limit_context(limited, 9, "a") == (limited, None), "said once"
    with pytest.raises(UserError, match="needs a context of 6 tokens or more; a serves 5"):
        limit_context(scenario, 5, "a")


TRACED = "name: mine\nquestion: Which one?\nload: {trace: calls.jsonl}\n"


def test_a_trace_is_read_from_beside_its_scenario(write, tmp_path):
    entries = [{"t": n / 2, "prompt_tokens": 10 + n, "output_tokens": 5} for n in range(31)]
    (tmp_path / "calls.jsonl").write_text("\n".join(map(json.dumps, entries)))
    scenario = load_scenario(write(TRACED))
    (cell,) = scenario.cells()
    assert (cell.prompt_tokens, cell.output_tokens, cell.rate) == (25, 5, 2.0)
    assert (scenario.requests, scenario.warmup, scenario.tokens_needed(cell)) == (21, 10, 45)
    assert Cell.parse(cell.id) == cell
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert explain(write(TRACED + "prompt_tokens: [3]\n")).endswith(
        ":4: `prompt_tokens`: the trace gives the lengths itself: leave it out"
    )
    assert "more than the 31 arrivals" in explain(write(TRACED + "requests: 22\n"))
    assert "cannot be read" in explain(write(TRACED.replace("calls", "none")))


def test_a_trace_without_lengths_takes_those_of_the_scenario(write, tmp_path):
    (tmp_path / "calls.jsonl").write_text("\n".join(json.dumps({"t": n}) for n in range(1, 31)))
    assert "`prompt_tokens`: this key is required" in explain(write(TRACED + "output_tokens: [5]\n"))
    (cell,) = load_scenario(write(TRACED + "output_tokens: [5]\nprompt_tokens: [9]\n")).cells()
    assert (cell.prompt_tokens, cell.output_tokens, cell.rate) == (9, 5, 1.0)
    assert "one prompt length" in explain(write(TRACED + "output_tokens: [5, 6]\nprompt_tokens: [9]\n"))


def test_every_key_is_documented():
    documented = re.findall(r"`(\w+)`", (TOP / "docs" / "scenarios.md").read_text(encoding="utf-8"))
    nested = (Scenario, Load, Timeouts, Slo, FindCapacity, Conversation, Prefixes, Part, Step)
    keys = {field.alias or name for model in nested for name, field in model.model_fields.items()}
    assert keys <= set(documented), keys - set(documented)


def test_the_documented_example_is_a_scenario(tmp_path):
    text = (TOP / "docs" / "scenarios.md").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert load_scenario(str(file)).cells()


def test_engines_that_run_together_stay_up_and_their_blocks_follow_each_other(write):
    text = GOOD + "repeats: 2\nplacement: both\nbetween_blocks: restart\n"
    scenario = load_scenario(write(text))
    assert scenario.between_blocks == "keep"
    cell = scenario.cells()[0]
    names = [(block.name, block.together) for block in scenario.blocks(["a", "b"]) if block.cell == cell]
    alone, beside = [("a", False), ("b", False)], [("a-together", True), ("b-together", True)]
    assert names == [*alone, *beside, *beside[::-1], *alone[::-1]]
    together = load_scenario(write(GOOD + "placement: together\n")).blocks(["a", "b"])
    assert {(block.name, block.together) for block in together} == {("a", True), ("b", True)}
