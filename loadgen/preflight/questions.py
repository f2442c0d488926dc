"""The texts that every engine is asked about. None begins or ends with a space, which chat templates strip."""

from __future__ import annotations

from loadgen.message import mark

GREEDY_TEXTS = (
    "The capital of France is",
    "One, two, three, four,",
    "Monday, Tuesday, Wednesday,",
    "January, February, March,",
    "Roses are red, violets are",
    "Twinkle, twinkle, little",
    "Water boils at a temperature of",
    "The opposite of hot is",
    "The sun rises in the",
    "Once upon a time there was a",
    "To be, or not to",
    "A, B, C, D, E,",
    "2, 4, 6, 8,",
    "Question: What is two plus two?\nAnswer:",
    "def add(a, b):\n    return",
    "for i in range(10):\n    print(",
    "SELECT * FROM users WHERE",
    "<html>\n<head>\n<title>",
    "中国的首都是",
    "La capitale de l'Italie est",
)
"""Continued greedily by `GREEDY_TOKENS` tokens. Most have one likely continuation, so that only other weights, another
prompt or a broken engine give another first token."""
GREEDY_TOKENS = 16

_SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody in the village knows why."
COUNTED_TEXTS = {
    "word": "Hello",
    "ASCII": _SENTENCE,
    "Chinese": "大型语言模型的推理引擎需要同时兼顾吞吐量与延迟,这并不容易。",
    "code": "def mean(values):\n    total = 0.0\n    for each in values:\n        total += each\n    return total / 3",
    "figures": "3.14159 and 2,718,281 on 2026-11-22 at 14:05:01, or 0x7fff & 1e-9?",
    "accents and emoji": "Zwölf Boxkämpfer jagen Viktor; naïve café, ça va? 😀👍🏽",
    "long": " ".join([_SENTENCE] * 12),
}
"""Only counted: what kind of text it is, and the text."""

TOLD = {
    "word": mark("word {told}"),
    "ASCII": mark("ASCII {told}"),
    "Chinese": mark("Chinese {told}"),
    "code": mark("code {told}"),
    "figures": mark("figures {told}"),
    "accents and emoji": mark("accents and emoji {told}"),
    "long": mark("long {told}"),
}
"""By the kind of text, what is told of it."""

OPEN_TEXT = "Write one surprising sentence about an animal:"
"""Has many continuations, so that sampling shows."""
OPEN_TOKENS = 16
LIMIT_TOKENS = 5
LENGTHS = (1, 9, 40)
"""Output lengths that are asked for exactly."""
LENGTH_PROMPT_TOKENS = 64
UNKNOWN_FIELD = "bakeoff_no_such_field"
