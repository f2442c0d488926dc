"""What languages make of messages, and a Chinese report is Chinese."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from loadgen.errors import UserError
from loadgen.message import counted, joined, say
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
    assert CHINESE(text) == "{x}（3 个单元）：a、b和c。"
    assert CHINESE.shown(copy.deepcopy(text)) == CHINESE(text)
    assert json.dumps([text]) == '["{x} at 3 cells: a, b and c."]'


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
