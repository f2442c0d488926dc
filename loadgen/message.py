"""What is said to people, kept as data until the last moment: an English sentence with named places, and their values.

The English sentence is the code by which `loadgen.presentation.language` finds translations. A message is its own
English text too, so it goes wherever text goes; what is written as JSON has code and values beside that text.
Standard library only: launchers import it inside the engines' own images.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

PLACE = re.compile(r"\{(\w+)\}")
MOST_CHARS = 1 << 20
"""Of a message that is read from data, with all messages within it."""


class Message(str):
    """An English text that can be said in another language."""

    code: str
    """The sentence with its places, such as `{count} of {all} requests failed`."""
    values: Mapping[str, object]
    """By place; messages may be among them."""
    many: str
    """Of a counted thing the sentence for more than one (`code` is for one, and `count` a number); else empty."""

    def __new__(cls, code: str, values: Mapping[str, object] | None = None, many: str = "") -> Message:
        """Make it from its data; `say`, `counted` and `joined` read better."""
        # What is neither text nor a number, such as an exception, is what it is as text: maybe a message.
        values = {
            name: value if isinstance(value, (str, int, float)) else str(value)
            for name, value in (values or {}).items()
        }
        made = super().__new__(cls, _filled(many if many and values["count"] != 1 else code, values, many, str))
        made.code, made.values, made.many = code, values, many
        return made

    def __str__(self) -> str:
        """Itself: an exception that was raised with a message gives it back by `str(error)`."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Message:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, (self.code, self.values, self.many)

    def said(self, look_up: Callable[[Message], str]) -> str:
        """Say it by the sentences that `look_up` has for it and for the messages among its values."""
        return _filled(
            look_up(self),
            self.values,
            self.many,
            lambda value: value.said(look_up) if isinstance(value, Message) else str(value),
        )


def say(sentence: str, /, **values: object) -> Message:
    """A text of ours: `say("{count} of {wanted} failed", count=3, wanted=10)`."""
    return sentence if isinstance(sentence, Message) else Message(sentence, values)


def counted(count: int, one: str, many: str) -> Message:
    """So many things: `counted(2, "{count} block", "{count} blocks")`."""
    return Message(one, {"count": count}, many)


def joined(sentence: str, parts: Iterable[str]) -> str:
    """Join texts, two at a time, by a sentence such as `{a}; {b}`: its first place is for what was joined so far."""
    first, second = PLACE.findall(sentence)
    return functools.reduce(lambda a, b: say(sentence, **{first: a, second: b}), [*parts] or [""])


def mark(sentence: str) -> str:
    """Return a sentence as it is: it will be said elsewhere, and so needs a place in the catalogues."""
    return sentence


_UNPRINTABLE = dict.fromkeys(
    (
        *(code for code in range(0x20) if chr(code) not in "\n\t"),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),  # these and the next turn the direction of writing
        *range(0x2066, 0x206A),
    )
)


def printable(text: str) -> str:
    """A text without control characters, as it may go to a terminal: line breaks and tabs stay."""
    return str.__str__(text).translate(_UNPRINTABLE)


def as_data(text: str) -> Any:
    """A text as plain data for JSON: a message with its code and values, any other as it is."""
    return {"text": str.__str__(text), **_data(text)} if isinstance(text, Message) else text


def of_data(data: Any) -> Any:
    """Read `as_data` back. What is none, such as the sentences of older run folders, stays as it is.

    Raises ValueError: a few bytes of it would fill megabytes, place within place.
    """
    _, filled, own = _sizes(data)
    if filled > min(10_000 + 50 * own, MOST_CHARS):
        raise ValueError("is a message that fills without end")
    return _made(data)


def _sizes(data: Any) -> tuple[int, int, int]:
    """Characters of a message that is not made yet; of it and all within it; and of the data itself."""
    if not isinstance(data, dict) or not isinstance(data.get("code"), str):
        length = len(str(data))
        return length, 0, length
    values, sentences = data.get("values"), [data["code"], data.get("many")]
    sizes = {name: _sizes(value) for name, value in values.items()} if isinstance(values, dict) else {}
    longest = max(
        len(sentence) + sum(sizes[name][0] for name in PLACE.findall(sentence) if name in sizes)
        for sentence in sentences
        if isinstance(sentence, str)
    )
    own = sum(len(sentence) for sentence in sentences if isinstance(sentence, str))
    return longest, longest + sum(size[1] for size in sizes.values()), own + sum(size[2] for size in sizes.values())


def _made(data: Any) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get("code"), str):
        return data
    values = data.get("values")
    values = {name: _made(value) for name, value in values.items()} if isinstance(values, dict) else {}
    many = data.get("many")
    return Message(data["code"], values, many if isinstance(many, str) and isinstance(values.get("count"), int) else "")


def _data(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"code": message.code}
    if message.many:
        data["many"] = message.many
    if message.values:
        data["values"] = {
            name: _data(value) if isinstance(value, Message) else value for name, value in message.values.items()
        }
    return data


def _filled(sentence: str, values: Mapping[str, object], many: str, show: Callable[[object], str]) -> str:
    """Fill a sentence; a place without a value stays as it stands. The count of a counted thing is told as `1,234`."""

    def place(name: str) -> str:
        if name not in values:
            return f"{{{name}}}"
        return f"{values[name]:,d}" if many and name == "count" else show(values[name])

    # A split by a pattern with a group has the names of places at odd places.
    parts = [place(part) if at % 2 else part for at, part in enumerate(PLACE.split(sentence))]
    return functools.reduce(_put_together, parts)


_LATIN, _HAN, _WIDE = r"[A-Za-z0-9%]", r"[\u4e00-\u9fff]", r"[\u3000-\u303f\uff01-\uff65]"
_APART = re.compile(f"{_HAN}\n{_LATIN}|{_LATIN}\n{_HAN}")
_TOGETHER = re.compile(f"{_WIDE}\n.|.\n{_WIDE}|{_HAN}\n{_HAN}")


def _put_together(before: str, after: str) -> str:
    """Two parts of a sentence: Chinese has a space between its own signs and Latin ones, and nowhere else."""
    left, right = before.rstrip(" "), after.lstrip(" ")
    seam = f"{left[-1:]}\n{right[:1]}"
    if _TOGETHER.fullmatch(seam):
        return left + right
    return f"{left} {right}" if _APART.fullmatch(seam) else before + after
