"""The languages of the page's pictures and tables: English texts, and what stands for them in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kernels.chinese import CHINESE as CHINESE_TEXTS


@dataclass(frozen=True)
class Language:
    """What a picture or table is written in: call it with an English text, and values for its braces."""

    code: str
    """Part of file names."""
    tag: str
    """For `xml:lang`."""
    page: str
    """The page's file."""
    texts: Mapping[str, str]

    def __call__(self, text: str, /, **values: object) -> str:
        """Say a text; one that the catalogue lacks stays English."""
        template = self.texts.get(text, text)
        return template.format(**values) if values else template


ENGLISH = Language("en", "en", "README.md", {})
CHINESE = Language("zh", "zh-CN", "README.zh.md", CHINESE_TEXTS)
LANGUAGES = (ENGLISH, CHINESE)
