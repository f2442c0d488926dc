"""What a run says of itself can be said in Chinese, and what others say stays as it is."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from loadgen.bench.block_watch import BlockFailed
from loadgen.bench.race import ALL_UP, NOT_APPLIED
from loadgen.client import floor
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.gate.why import why_nothing
from loadgen.message import Message, as_data, joined, of_data, say
from loadgen.preflight.compare import compare, summary_line
from loadgen.preflight.finding import Needs
from loadgen.preflight.questions import LENGTHS
from loadgen.presentation.language import CHINESE
from loadgen.runs.manifest import load_manifest, save_manifest
from loadgen.scenario.file import load_scenario, shipped_scenarios
from loadgen.scenario.threshold import parse_threshold
from loadgen.statistics.metrics import BlockSample
from loadgen.validation import Words
from tests.loadgen.preflight.samples import OFF, ON, SAMPLE, answer, other, probe, stream
from tests.loadgen.report.synthetic_run import SyntheticRun

LOADGEN = Path(__file__).resolve().parents[3] / "loadgen"
SAYING = {"_note", "append", "BlockFailed", "on_message"}
SPEAKERS = (
    *("bench/campaign.py", "bench/block_driver.py", "bench/block_watch.py", "bench/capacity_campaign.py"),
    *("runs/resume.py", "distributed/hand_run.py", "client/verdict.py"),
)


def english_left(text: str) -> list[str]:
    """Words of the Chinese rendering that are English ones in a row, quotations and names of settings aside."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "", CHINESE.shown(text))
    return re.findall(r"[a-z]{2,} [a-z]{2,}(?: [a-z]+)*", bare)


@pytest.mark.parametrize("name", SPEAKERS)
def test_what_a_run_is_told_is_said_as_a_message(name: str) -> None:
    calls = [node for node in ast.walk(ast.parse((LOADGEN / name).read_text("utf-8"))) if isinstance(node, ast.Call)]
    texts = [call.args[0] for call in calls if call.args and called(call) in SAYING]
    assert any(called(call) == "say" for call in calls)
    bare = [ast.unparse(text) for text in texts if isinstance(text, ast.JoinedStr | ast.Constant)]
    assert not [text for text in bare if " " in text]


def called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


GOOD = BlockSample(1, 0.0, {"ttft_ms": np.zeros(9)})
SPOILT = BlockSample(1, 0.0, invalid=say("it was interrupted"))


@pytest.mark.parametrize(
    ("problem", "sides"),
    [
        *[(problem, ([GOOD],)) for problem in ("few_requests", "not_measured", "not_positive")],
        *[("no_valid_pair", sides) for sides in ([[]], [[SPOILT]], [[SPOILT, SPOILT]], [[GOOD], [GOOD]])],
    ],
)
@pytest.mark.parametrize("threshold", ["ttft.p99 > 5ms", "tpot.p99 > 5ms"])
def test_every_reason_of_an_undecided_threshold_is_known(problem, sides, threshold) -> None:
    text = why_nothing(problem, parse_threshold(threshold), *sides)
    assert isinstance(text, Message), text
    assert not english_left(text), CHINESE.shown(text)


VARIANTS = [
    {},
    {"model": "n"},
    {"context_length": None},
    {"context_length": 50},
    {"prompt_tokens": {kind: n + 1 for kind, n in SAMPLE.prompt_tokens.items() if n is not None}},
    {"prompt_tokens": {kind: n + 9 for kind, n in SAMPLE.prompt_tokens.items() if n is not None}},
    {"prompt_tokens": {**SAMPLE.prompt_tokens, "Chinese": 7}},
    {"prompt_tokens": {**SAMPLE.prompt_tokens, "long": None}},
    {"recipe": PromptRecipe("text", 1, ("x", "z"), (), "tokenizer")},
    {"lengths": {n: stream(n, output_tokens=n - 1) for n in LENGTHS}},
    {"lengths": dict.fromkeys(LENGTHS)},
    {"lengths": {n: stream(n, usage="nowhere", role_lead_ms=0.1) for n in LENGTHS}},
    {"greedy": tuple(answer("x" * 20) for _ in SAMPLE.greedy)},
    {"greedy": tuple(answer(f"other {i} words all through", -0.5) for i, _ in enumerate(SAMPLE.greedy))},
    {"greedy": (None,) * len(SAMPLE.greedy)},
    {"prefix": ON},
    {"prefix": probe(60.0)},
    {"prefix": None},
    {"parameters": {}},
    {"unknown_fields": "refused"},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda fields: next(iter(fields), "equal"))
@pytest.mark.parametrize("declared", [None, True])
def test_every_finding_of_preflight_is_known(fields: dict[str, object], declared: bool | None) -> None:
    first = dataclasses.replace(SAMPLE, prefix=OFF)
    found = compare([first, other(**fields)], Needs(context_tokens=96, prefix_caching=declared))
    texts = [summary_line(found)]
    texts += [text for fact in found for text in (fact.detail, fact.advice) if text]
    texts += [v for fact in found if fact.name != "greedy-text" for v in fact.values.values()]
    for text in texts:
        assert not english_left(text), CHINESE.shown(text)
        assert of_data(json.loads(json.dumps(as_data(text)))) == text
        assert CHINESE.shown(of_data(json.loads(json.dumps(as_data(text))))) == CHINESE.shown(text)


def test_every_word_on_the_floor_is_known() -> None:
    errors = floor.Errors(p50=0.01, p99=0.23, max=1.0)
    step = floor.FloorStep(
        **{"streams": 64, "requests": 9, "events_per_s": 1.0, "valid": True, "verdict": "", "oracle_write_p99_ms": 0.1},
        **{f"{name}_error_{unit}": errors for name, unit in (("ttft", "ms"), ("itl", "ms"), ("e2e", "ms"))},
        **{"tpot_error_percent": errors, "tpot_mean_error_percent": -0.012},
    )
    made = floor.Floor(
        **{"measured_at": "2026-11-22T10:00:00Z", "hostname": "h", "host": {}, "packages": {}, "git": {}},
        **{"server_core": 0, "client_core": 1, "realtime": True, "load_average": 0.1, "timing": {}, "steps": [step]},
    )
    limited = step.model_copy(update={"streams": 256, "limited": True})
    for each in (
        made,
        made.model_copy(update={"isolated": True}),
        made.model_copy(update={"isolated": True, "steps": [step, limited]}),
        made.model_copy(update={"steps": []}),
    ):
        assert not english_left(each.words()), CHINESE.shown(each.words())
    assert not english_left(floor.NOT_CALIBRATED)


def test_every_scenario_asks_its_question_in_chinese_too() -> None:
    for name in shipped_scenarios():
        question = load_scenario(name).question
        assert CHINESE(question) != question and not english_left(say(question)), question
    for note in (ALL_UP, NOT_APPLIED):
        assert isinstance(note, Message) and not english_left(note)


@pytest.mark.parametrize("text", ["", "HTTP 500: choose one or two; see the log (here)", "interrupted by the user"])
def test_what_others_say_and_older_runs_said_stays_as_it_is(text: str) -> None:
    assert CHINESE.shown(of_data(as_data(text))) == text


def test_a_text_within_a_text() -> None:
    died = say("{engine} died in mid-block", engine="vllm")
    died = say("{what}: {reason}", what=died, reason=say("it ended with exit status {status}", status=1))
    died = say("{how}. The end of its log:\n{log}", how=died, log="x; y {engine}")
    text = say("{block}: {problem}\nIt is run once more.", block="b1", problem=BlockFailed(died, retry=True))
    assert text == (
        "b1: vllm died in mid-block: it ended with exit status 1. The end of its log:\nx; y {engine}\n"
        "It is run once more."
    )
    chinese = "b1：vllm 在测试块中途退出：退出状态为 1。日志末尾：\nx; y {engine}\n将再运行一次。"
    assert CHINESE.shown(text) == CHINESE.shown(of_data(as_data(text))) == chinese


def test_a_manifest_keeps_messages_and_shows_older_sentences(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=2).add_all()
    late = say("Resumed after a gap of {span}, with {count} blocks complete.", span="3 min", count=2)
    run.manifest.messages = ["a sentence of before", late]
    run.manifest.blocks[0].reason = say("interrupted by the user")
    path = tmp_path / "manifest.json"
    save_manifest(run.manifest, path)
    stored = json.loads(path.read_text())
    assert stored["messages"][0] == "a sentence of before"
    assert stored["messages"][1] == {
        "text": "Resumed after a gap of 3 min, with 2 blocks complete.",
        "code": late.code,
        "values": {"span": "3 min", "count": 2},
    }
    read = load_manifest(path)
    assert read.messages == run.manifest.messages and read.blocks[0].reason == "interrupted by the user"
    assert CHINESE.shown(read.messages[1]) == "间隔 3 min 后继续运行，此时已完成 2 个测试块。"
    assert CHINESE.shown(read.blocks[0].reason) == "被用户中断"


@pytest.mark.parametrize("data", [7, None, {"text": "x"}, {"code": 7}, ["x"]])
def test_what_is_no_message_is_refused(data: object) -> None:
    with pytest.raises(ValidationError, match="neither text nor a message"):
        TypeAdapter(Words).validate_python(data)


def test_a_message_that_was_edited_by_hand_is_shown_as_far_as_it_can_be() -> None:
    assert of_data({"code": "{a} of {b}", "values": {"a": 3}}) == "3 of {b}"
    many = joined("{a}, {b}", ["engine on a machine"] * 64)
    assert of_data(json.loads(json.dumps(as_data(many)))) == many
    assert of_data({"code": "{a.__class__} {b!r:>999999999}", "values": "?"}) == "{a.__class__} {b!r:>999999999}"
    assert of_data({"code": "{count} block", "many": "{count} blocks", "values": {"count": "?"}}) == "? block"
