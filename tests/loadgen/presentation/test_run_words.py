"""What a run says of itself can be said in Chinese, and what others say stays as it is."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from loadgen.bench.race import ALL_UP, NOT_APPLIED
from loadgen.client import floor
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.gate.why import why_nothing
from loadgen.message import Message
from loadgen.preflight.compare import compare, summary_line
from loadgen.preflight.finding import Needs
from loadgen.preflight.questions import LENGTHS
from loadgen.presentation.language import CHINESE
from loadgen.presentation.run_words import of_run
from loadgen.scenario.file import load_scenario, shipped_scenarios
from loadgen.scenario.threshold import parse_threshold
from loadgen.statistics.metrics import BlockSample
from tests.loadgen.preflight.samples import OFF, ON, SAMPLE, answer, other, probe, stream

LOADGEN = Path(__file__).resolve().parents[3] / "loadgen"
SAYING = {"_note", "append", "BlockFailed", "on_message"}
SPEAKERS = ("campaign", "block_driver", "block_watch", "capacity_campaign", "resume", "master", "client_verdict")


def english_left(text: str) -> list[str]:
    """Words of the Chinese rendering that are English ones in a row, quotations and names of settings aside."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "", CHINESE.shown(of_run(text)))
    return re.findall(r"[a-z]{2,} [a-z]{2,}(?: [a-z]+)*", bare)


def said_in(path: Path) -> list[str]:
    """Texts that a source file gives to one of `SAYING`, with a figure in each place."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        texts = node.args[:1] if name in SAYING else []
        found += [text for one in texts if (text := _text(one))]
    return found


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else _figure(part) for part in node.values)
    return ""


def _figure(part: ast.expr) -> str:
    """What may stand in the place: `7`, a size with its unit, or nothing for what is sometimes put behind."""
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
        return _text(part.value.body)
    source = ast.unparse(part)
    if "_upto" in source:
        return "up to 7.0 ms"
    if ":.0%" in source or ":.1%" in source:
        return "7%"
    sometimes = {"log", "both", "last_words"} & {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
    return "" if sometimes else "7"


@pytest.mark.parametrize("name", SPEAKERS)
def test_every_message_and_reason_is_known(name: str) -> None:
    texts = [text for text in said_in(LOADGEN / f"{name}.py") if " " in text]
    assert texts
    for text in texts:
        said = of_run(text)
        assert isinstance(said, Message), f"{name} says what no template knows: {text}"
        assert said == text
        assert not english_left(text), CHINESE.shown(said)


GOOD = BlockSample(1, 0.0, {"ttft_ms": np.zeros(9)})
SPOILT = BlockSample(1, 0.0, invalid="it was interrupted")


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
    assert isinstance(of_run(text), Message), text
    assert not english_left(text), CHINESE.shown(of_run(text))


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
        assert of_run(text) == text
        assert not english_left(text), CHINESE.shown(of_run(text))


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
        assert of_run(each.words()) == each.words()
        assert not english_left(each.words()), CHINESE.shown(of_run(each.words()))
    assert not english_left(floor.NOT_CALIBRATED)


def test_every_scenario_asks_its_question_in_chinese_too() -> None:
    for name in shipped_scenarios():
        question = load_scenario(name).question
        assert isinstance(of_run(question), Message), question
    for note in (ALL_UP, NOT_APPLIED):
        assert isinstance(of_run(note), Message)


@pytest.mark.parametrize(
    "text",
    ["", "HTTP 500: choose one or two; see the log (here)", "CUDA error: an illegal memory access. Try again.", "a\nb"],
)
def test_what_others_say_stays_as_it_is(text: str) -> None:
    assert CHINESE.shown(of_run(text)) == text


def test_a_text_within_a_text() -> None:
    text = "b1: vllm died in mid-block: it ended with exit status 1. The end of its log:\nx; y\nIt is run once more."
    assert of_run(text) == text
    assert CHINESE.shown(of_run(text)) == ("b1：vllm 在测试块中途退出：退出状态为 1。日志末尾：\nx; y\n将再运行一次。")
    text = "Preflight: 15 checks equal; noted: usage, top-p; could not be told: prefix-caching"
    assert (
        CHINESE.shown(of_run(text)) == "赛前检查：15 项相同；已记录：用量统计 (usage)、top-p 参数；无法判断：前缀缓存"
    )
