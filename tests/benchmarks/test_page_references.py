"""References of pages to lines of engines' source."""

from __future__ import annotations

import pytest

from benchmarks.page_references import PAGES, faults, main, references

SOURCES = {"k/core/pool.cpp": ["void allocate() {", "  take();", "}", ""], "v/a/pool.py": ["x"], "v/b/pool.py": ["x"]}


def test_a_reference_is_a_file_and_lines():
    page = "`take` (`core/pool.cpp:1-3`), and `a/pool.py:7`; not `pool.py` and not pool.py:3."
    assert references(page) == [("take", "core/pool.cpp", 1, 3), ("", "a/pool.py", 7, 7)]


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("`allocate` (`pool.cpp:1-3`) and `take` `core/pool.cpp:2`", None),
        ("`pool.py:1`", "2 files"),
        ("`ool.cpp:1`", "0 files"),
        ("`pool.cpp:3-5`", "has 4 lines"),
        ("`pool.cpp:3-2`", "has 4 lines"),
        ("`pool.cpp:2-4`", "blank"),
        ("`give` (`pool.cpp:1-3`)", "give is not there"),
    ],
)
def test_what_is_wrong_is_said(page, fault):
    told = list(faults(page, SOURCES))
    assert len(told) == (fault is not None)
    assert fault is None or fault in told[0]


def test_without_sources_it_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["page_references", "/nowhere"])
    assert main() == 2
    assert "Give the folders" in capsys.readouterr().err


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.zh.md")), ids=lambda page: page.name)
def test_a_translation_names_the_same_lines(page):
    english = page.with_name(page.name.replace(".zh.md", ".md")).read_text(encoding="utf-8")
    lines = [reference[1:] for reference in references(english)]
    assert len(lines) > 2 or page.name == "experiments.zh.md", "that one speaks of scenarios, not of sources"
    assert sorted(reference[1:] for reference in references(page.read_text(encoding="utf-8"))) == sorted(lines)
