"""What is said to people in their language. English is what messages are made of; others are gettext catalogues.

A catalogue is a folder of `locale/`; docs/report.md tells how to add to one. What a catalogue lacks stays English.
Text that comes from a run (engine logs, names, sentences of older manifests) is plain `str`, and is never looked up.
"""

from __future__ import annotations

import dataclasses
import functools
import gettext
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from loadgen.message import Message, say

LOCALE = Path(__file__).with_name("locale")
DOMAIN = "bakeoff"


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """What a report is written in: call it with a text of ours."""

    code: str
    html: str
    """Its tag for HTML's `lang`."""
    folder: str
    """Of `locale/`; empty for English."""

    def __call__(self, text: str, /, **values: object) -> str:
        """Say a message, or one of our sentences with its values filled in."""
        return say(text, **values).said(self._look_up)

    def shown(self, value: Any) -> Any:
        """What stands for a value on a page: a message in this language, anything else as it is."""
        return value.said(self._look_up) if isinstance(value, Message) else value

    @property
    def comma(self) -> str:
        """What parts the things of a list, its space included."""
        return self("{a}, {b}", a="", b="")

    @property
    def stop(self) -> str:
        """The end of a sentence."""
        return self("{text}.", text="")

    @property
    def gap(self) -> str:
        """What stands between two sentences."""
        return self("{a} {b}", a="", b="")

    def _look_up(self, message: Message) -> str:
        catalogue = _catalogue(self.folder)
        if message.many:
            return catalogue.ngettext(message.code, message.many, 1 if message.values["count"] == 1 else 2)
        return catalogue.gettext(message.code) if message.code else ""


@functools.cache
def _catalogue(folder: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE, [folder]) if folder else gettext.NullTranslations()


ENGLISH = Language("en", "en", "")
CHINESE = Language("zh", "zh-CN", "zh_Hans")
LANGUAGES: dict[str, Language] = {language.code: language for language in (ENGLISH, CHINESE)}


def language_of(code: str) -> Language:
    """Return a language by its code. Raises UserError for one that there is no report in."""
    if code not in LANGUAGES:
        raise UserError(f"There is no report in {code!r}: choose one of {', '.join(LANGUAGES)}.")
    return LANGUAGES[code]
