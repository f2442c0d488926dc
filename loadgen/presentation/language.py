"""The report in other languages. Texts are written in English, and know how to say themselves again.

A catalogue of another language is a mapping from the English template to its own; what it lacks stays English. Text
that comes from a run (engine logs, names, reasons in a manifest) is plain `str`, and is never looked up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadgen.errors import UserError
from loadgen.presentation.chinese import CHINESE as CHINESE_TEXTS
from loadgen.statistics import chinese, words


class Text(str):
    """An English text that can be said in another language."""

    render: Callable[[Language], str]

    def __new__(cls, render: Callable[[Language], str]) -> Text:
        """Take the function that says it."""
        made = super().__new__(cls, render(ENGLISH))
        made.render = render
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Text:
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """What a report is written in: call it with a text of ours."""

    code: str
    html: str
    """Its tag for HTML's `lang`."""
    texts: Mapping[str, str]
    verdicts: words.Texts
    """The words of `statistics.words`."""

    def __call__(self, text: str, /, **values: object) -> str:
        """Say a text: one that knows how, else a template of the catalogue, with its values filled in."""
        if isinstance(text, Text):
            return text.render(self)
        template = self.texts.get(text, text)
        if not values:
            return template
        return template.format(**{name: self.shown(value) for name, value in values.items()})

    def shown(self, value: Any) -> Any:
        """What stands for a value on a page: a text of ours in this language, anything else as it is."""
        return value.render(self) if isinstance(value, Text) else value


ENGLISH = Language("en", "en", {}, words.ENGLISH)
CHINESE = Language("zh", "zh-CN", CHINESE_TEXTS, chinese.CHINESE)
LANGUAGES: dict[str, Language] = {language.code: language for language in (ENGLISH, CHINESE)}


def language_of(code: str) -> Language:
    """Return a language by its code. Raises UserError for one that there is no report in."""
    if code not in LANGUAGES:
        raise UserError(f"There is no report in {code!r}: choose one of {', '.join(LANGUAGES)}.")
    return LANGUAGES[code]


def say(template: str, /, **values: object) -> Text:
    """A text of ours: `say("{count} of {wanted} failed", count=3, wanted=10)`. Values may be texts themselves."""
    return Text(lambda language: language(template, **values) if values else language(template))


def mark(template: str) -> str:
    """Return a text as it is: it will be looked up where it is shown, and so has a place in every catalogue."""
    return template


def joined(separator: str, parts: Sequence[str]) -> Text:
    """Join texts by a separator that the catalogue may hold."""
    return Text(lambda language: language(separator).join(map(language.shown, parts)))
