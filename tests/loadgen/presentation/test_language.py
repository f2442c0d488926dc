"""What languages make of messages, and a Chinese report is Chinese."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path

import pytest

from loadgen.contention import rule
from loadgen.contention.reading import Finding
from loadgen.errors import UserError
from loadgen.message import Message, counted, joined, say
from loadgen.presentation.language import CHINESE, ENGLISH, language_of
from loadgen.presentation.locale.__main__ import extracted
from loadgen.presentation.text import listing
from loadgen.report import figures, write_report
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import SyntheticRun


def test_a_text_is_english_until_it_is_said_otherwise() -> None:
    cells = counted(3, "{count} cell", "{count} cells")
    text = say("{engine} at {cell}: {note}.", engine="{x}", cell=cells, note=listing(["a", "b", "c"]))
    assert text == "{x} at 3 cells: a, b and c."
    assert CHINESE(text) == "{x}（3 个单元）：a、b 和 c。"
    assert CHINESE.shown(copy.deepcopy(text)) == CHINESE(text)
    assert json.dumps([text]) == '["{x} at 3 cells: a, b and c."]'


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        (say("{some} and {last}", some="8", last="16"), "8 和 16"),
        (say("{some} and {last}", some=say("reason"), last=say("text")), "原因和文本"),
        (say("{what} at {loads}", what="vllm", loads=say("1 user")), "并发 1 时，vllm"),
        (say("{a}; {b}", a=say("reason"), b=" ● x"), "原因；● x"),
        (say("{winner} by {share}{against}", winner="a", share="3% [1%, 5%]", against=""), "a 快 3% [1%, 5%]"),
        (say("{engine}: {what}", engine="/srv/模型/a b", what="x  y"), "/srv/模型/a b：x  y"),
    ],
)
def test_chinese_has_spaces_beside_latin_signs_only(sentence: Message, told: str) -> None:
    assert CHINESE(sentence) == told


def test_values_are_put_into_english_as_they_are() -> None:
    for before, value, after in itertools.product(("x", "x ", "("), ("", "y", " y ", "9%"), ("z", " z", ".")):
        assert say(f"{before}{{a}}{after}", a=value) == before + value + after
    assert say("{a} is faster than {b}", a="甲", b="乙") == "甲 is faster than 乙"


@pytest.mark.parametrize(("most", "told"), [(False, ""), (True, "最多")])
def test_what_others_took_is_a_sentence(most: bool, told: str) -> None:
    what = rule.words(Finding("others", "client", 0.94, False), upto=most)
    text = say("{what} in {count} of {all} blocks", what=what, count=3, all=32)
    assert CHINESE(text) == f"在 32 个测试块中的 3 个里，其他进程{told}占用了压测客户端所在核心的 94%"
    assert str(what) == f"others took {'up to ' if most else ''}94% of the load generator's cores"


def test_text_of_a_run_stays_as_it_is() -> None:
    assert CHINESE.shown("errors") == "errors"
    assert CHINESE.shown(joined("{a}; {b}", ["errors", say("failed")])) == "errors；失败"
    assert ENGLISH("not a text of ours") == CHINESE("not a text of ours") == "not a text of ours"


def test_unknown_language() -> None:
    with pytest.raises(UserError, match=r"'fr'.*en, zh"):
        language_of("fr")


@pytest.mark.png
def test_a_chinese_report(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64, 128), concurrencies=(1, 2), requests=6, repeats=2).add_all()
    run.manifest.messages = ["worker w1 was lost"]
    folder = run.write(tmp_path)
    english = write_report(folder, prometheus_url=None)
    before = english.html.read_bytes(), english.markdown.read_bytes(), english.summary.read_bytes()
    chinese = write_report(folder, prometheus_url=None, language="zh")
    assert [chinese.html.name, chinese.markdown.name, chinese.summary.name] == [
        "report.zh.html",
        "report.zh.md",
        "summary.json",
    ]
    assert (english.html.read_bytes(), english.markdown.read_bytes(), english.summary.read_bytes()) == before
    page = check(chinese.html.read_text(encoding="utf-8"))
    assert '<html lang="zh-CN">' in chinese.html.read_text(encoding="utf-8")
    markdown = chinese.markdown.read_text(encoding="utf-8")
    for text in (page.text, markdown):
        for words in ("公平性", "首 Token 延迟", "吞吐量", "置信区间", "如何复现本次运行", "worker w1 was lost"):
            assert words in text, words
        for sentence in extracted():
            if (
                isinstance(sentence, str)
                and len(sentence) > 25
                and "{" not in sentence
                and "`" not in sentence
                and re.search(r"[a-z] [a-z]", sentence)
            ):
                assert sentence not in text, sentence
    assert (folder.path / "report_files.zh" / "difference-1.png").stat().st_size > 5_000


def test_pictures_stay_english_where_there_is_no_chinese_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "chinese_font", lambda: None)
    folder = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all().write(tmp_path)
    text = write_report(folder, prometheus_url=None, language="zh").markdown.read_text(encoding="utf-8")
    assert "本机没有中文字体" in text
    monkeypatch.setattr(figures, "chinese_font", lambda: "DejaVu Sans")
    text = write_report(folder, prometheus_url=None, language="zh").markdown.read_text(encoding="utf-8")
    assert "本机没有中文字体" not in text
