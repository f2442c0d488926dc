"""The catalogues are whole, and the check that says so can fail."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from loadgen.presentation.locale.__main__ import (
    KEYWORDS,
    catalogues,
    extract,
    extracted,
    problems,
    put_together,
    updated,
    written,
)

SENTENCES = {"one {x}": "a.py:1", ("{count} word", "{count} words"): "a.py:2"}


def catalogue(tmp_path: Path, *entries: tuple[str, str], compiled: bool = True) -> Path:
    """A Chinese catalogue of these lines of a .po file, in the form that `update` writes, and compiled."""
    text = "".join(f"{identity}\n{said}\n\n" for identity, said in entries)
    made = read_po(io.BytesIO(b'msgid ""\nmsgstr "Language: zh_Hans\\n"\n\n' + text.encode()), locale="zh_Hans")
    path = tmp_path / "bakeoff.po"
    po, mo = written(updated(made, {m.id: "" for m in made if m.id}))
    path.write_bytes(po)
    if compiled:
        path.with_suffix(".mo").write_bytes(mo)
    return path


ONE = ('msgid "one {x}"', 'msgstr "一 {x}"')
WORDS = ('msgid "{count} word"\nmsgid_plural "{count} words"', 'msgstr[0] "{count} 词"')


def test_no_sentence_is_without_its_translation() -> None:
    sentences = extracted()
    assert len(sentences) > 600 and catalogues()
    assert [*put_together(), *(problem for path in catalogues() for problem in problems(path, sentences))] == []


def test_a_whole_catalogue(tmp_path: Path) -> None:
    assert problems(catalogue(tmp_path, ONE, WORDS), SENTENCES) == []


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ((WORDS,), "a.py:1: no zh_Hans for 'one {x}'"),
        ((('msgid "one {x}"', 'msgstr ""'), WORDS), "a.py:1: no zh_Hans for 'one {x}'"),
        ((ONE,), "a.py:2: no zh_Hans for '{count} word'"),
        ((ONE, ('msgid "{count} word"', 'msgstr "{count} 词"')), "a.py:2: no zh_Hans for '{count} word'"),
        ((('msgid "one {x}"', 'msgstr "一 {y}"'), WORDS), "'一 {y}' has not the places of 'one {x}'"),
        ((('msgid "one {x}"', 'msgstr "一"'), WORDS), "'一' has not the places of 'one {x}'"),
        ((('#, fuzzy\nmsgid "one {x}"', 'msgstr "一 {x}"'), WORDS), "'one {x}' is marked fuzzy"),
        ((ONE, WORDS, ('msgid "two"', 'msgstr "二"')), "nothing says 'two' any more"),
    ],
)
def test_what_is_amiss_is_told(tmp_path: Path, entries: tuple[tuple[str, str], ...], told: str) -> None:
    found = problems(catalogue(tmp_path, *entries), SENTENCES)
    assert len(found) >= 1 and told in found[0]


def test_a_catalogue_that_was_not_compiled_again(tmp_path: Path) -> None:
    path = catalogue(tmp_path, ONE, WORDS, compiled=False)
    assert problems(path, SENTENCES) == ["bakeoff.mo: not compiled from bakeoff.po"]
    path.with_suffix(".mo").write_bytes(b"old")
    assert problems(path, SENTENCES) == ["bakeoff.mo: not compiled from bakeoff.po"]
    path.write_bytes(path.read_bytes() + b"\n# more\n")
    assert problems(path, SENTENCES) == ["bakeoff.po: not in the form that `update` writes"]


def test_what_counts_as_a_sentence() -> None:
    source = (
        b'f(say("one {x}", x=say("in")), palette.language("two"), counted(n, "{count} a", "{count} as"), other("no"))'
    )
    assert [found[1] for found in extract("python", io.BytesIO(source), KEYWORDS)] == [
        *("one {x}", "in", "two"),
        ("{count} a", "{count} as"),
    ]
