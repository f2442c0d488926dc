"""Terminals without our signs."""

from __future__ import annotations

import io

import pytest

from loadgen.gate.words import MARKS
from loadgen.presentation.ascii import in_ascii, tell_apart
from loadgen.presentation.style import LOOKS, SIGNS


def written(text: str, encoding: str = "ascii") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    tell_apart(stream)
    stream.write(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("shown", [in_ascii, written])
def test_the_marks_of_verdicts_stay_apart(shown):
    for signs in ([*(look.glyph for look in LOOKS), *(sign for sign, _ in SIGNS)], list(MARKS.values())):
        assert len({shown(sign) for sign in signs}) == len(signs)
        assert all(len(shown(sign)) == 1 for sign in signs)


def test_figures_are_whole_and_what_is_not_ours_is_a_question_mark():
    assert in_ascii("● 30% ±4 → 1.30× ≠ 甲") == "o 30%+-4 > 1.30x ! ?"
    assert written("● 30% ±4 → 1.30× ≠ 甲") == "o 30% +-4 > 1.30x ! ?"
    assert written("● 甲", "utf-8") == "● 甲"
