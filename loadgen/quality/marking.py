"""Whether an answer is right. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from loadgen.quality.questions import Question

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def is_right(question: Question, text: str) -> bool:
    """Whether a text answers a question that has a right answer.

    By its rule: `number`, the first number of the first line; `line`, the first line; `json`, the first object;
    `last number`, the number after `####`, else the last one; `text`, the expected words anywhere. What follows where
    a model goes on to ask itself the next question does not count.
    """
    match question.rule:
        case "number":
            return _same_number(next(iter(NUMBER.findall(_first_line(text))), None), question.answer)
        case "line":
            return _first_line(text).strip("\"'. ") == question.answer
        case "json":
            return bool(_first_object(text) == json.loads(question.answer))
        case "last number":
            return _same_number(_last_number(text), question.answer)
        case "text":
            return f" {_plain(question.answer)} " in f" {_plain(_own(text))} "
    raise ValueError(f"{question.kind}: no answer is right")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _own(text: str) -> str:
    """The answer, without a next question that the model went on to ask."""
    return re.split(r"\n\s*(?:Question|Q)\s*\d*\s*[:.]", text, maxsplit=1)[0]


def _last_number(text: str) -> str | None:
    text = _own(text)
    told = re.search(rf"####\s*\$?\s*({NUMBER.pattern})", text)
    return told[1] if told else next(iter(reversed(NUMBER.findall(text))), None)


def _same_number(found: str | None, expected: str) -> bool:
    try:
        return found is not None and float(found.replace(",", "")) == float(expected.replace(",", ""))
    except ValueError:
        return False


def _first_object(text: str) -> Any:
    start = text.find("{")
    try:
        return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
