"""The verdict's words in Chinese fit wherever the English ones do."""

from __future__ import annotations

import string

from loadgen.statistics.chinese import CHINESE
from loadgen.statistics.words import ENGLISH


def placeholders(template: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def test_same_keys_and_placeholders() -> None:
    assert set(CHINESE) == set(ENGLISH)
    assert {key: placeholders(text) for key, text in CHINESE.items()} == {
        key: placeholders(text) for key, text in ENGLISH.items()
    }
