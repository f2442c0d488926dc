"""What engines are asked, made by a seed: prompts to go on with, and tasks whose answer is known.

Every engine gets the same texts by the same API. A prompt stands for text to be continued and for a message to be
answered alike, so that chat and completions can both be asked.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from loadgen.message import mark

Rule = Literal["", "number", "last number", "line", "text", "json"]
KINDS = (mark("text"), mark("code"), mark("arithmetic"), mark("Chinese"), mark("long context"))
TASKS = (mark("arithmetic"), mark("copying"), mark("retrieval"), mark("JSON"))


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One prompt. It neither begins nor ends with a space, which chat templates strip."""

    kind: str
    prompt: str
    tokens: int
    """Most tokens of the answer."""
    answer: str = ""
    """What is right, by `rule`."""
    rule: Rule = ""
    """How an answer is held against it (`loadgen.quality.marking`); empty where nothing is right or wrong."""


def greedy_questions(seed: int, count: int, tokens: int, long_words: int) -> list[Question]:
    """Prompts of five kinds in turn, so that however few are asked, all kinds are among them."""
    rng = random.Random(f"{seed}/prompts")
    return [Question(KINDS[i % 5], _prompt(rng, KINDS[i % 5], i, long_words), tokens) for i in range(count)]


def task_questions(seed: int, count: int, long_words: int) -> list[Question]:
    """Tasks of four kinds in turn, each with two or three worked examples, which a small base model needs."""
    rng = random.Random(f"{seed}/tasks")
    makers = (_sum, _copy, _retrieval, _json)
    return [makers[i % 4](rng, long_words) for i in range(count)]


def _prompt(rng: random.Random, kind: str, number: int, long_words: int) -> str:
    one, other, place, name = (rng.choice(words) for words in (THINGS, THINGS, PLACES, NAMES))
    some = rng.randint(2, 997)
    if kind == "code":
        work = rng.choice(WORK)
        return f"# {number}. Write a Python function that {work}, and call it with {some}.\n\ndef"
    if kind == "arithmetic":
        a, b, c = rng.randint(12, 99), rng.randint(12, 99), rng.randint(2, 9)
        return f"Question: {name} buys {a} boxes of {b} nails and uses {c} nails a day. Work it out step by step."
    if kind == "Chinese":
        return f"请用几句话介绍{rng.choice(TOPICS)},并说明它与{rng.choice(TOPICS)}有什么关系。第{some}题。"
    if kind == "long context":
        # From a short one on, so that an engine of little context answers some of them.
        words = rng.randint(max(40, long_words // 8), long_words)
        needle = f"The word that opens the gate of {place} is {one}{some}."
        asked = f"Question: Which word opens the gate of {place}? Answer it, then sum up the text in two sentences."
        return f"{_haystack(rng, words, needle)}\n\n{asked}\nAnswer:"
    return f"Story {number}, about a {one}, a {other} and somebody called {name}, set in {place}:"


def _haystack(rng: random.Random, words: int, needle: str) -> str:
    """Made-up sentences of so many words, with one of them in their midst."""
    sentences: list[str] = []
    while sum(map(len, map(str.split, sentences))) < words:
        one, other, place, name = (rng.choice(words_) for words_ in (THINGS, THINGS, PLACES, NAMES))
        sentences.append(f"{name} {rng.choice(VERBS)} the {one} and the {other} from {place}.")
    sentences.insert(rng.randint(0, len(sentences)), needle)
    return " ".join(sentences)


def _sum(rng: random.Random, _: int) -> Question:
    a, b, sign = rng.randint(11, 99), rng.randint(11, 99), rng.choice("+-*")
    if sign == "*":
        b = rng.randint(2, 9)
    elif sign == "-":
        a, b = max(a, b), min(a, b)
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    prompt = (
        "Answer with a number only.\nQuestion: What is 12 + 30?\nAnswer: 42\nQuestion: What is 45 - 7?\nAnswer: 38\n"
        f"Question: What is {a} {sign} {b}?\nAnswer:"
    )
    return Question("arithmetic", prompt, 12, str(result), "number")


def _copy(rng: random.Random, _: int) -> Question:
    words = [f"{rng.choice(THINGS)} {rng.randint(10, 99)}" for _ in range(3)]
    text = ", ".join([*words, rng.choice(NAMES)])
    prompt = (
        'Copy the text between the quotation marks.\nText: "river 41, stone 17, Ada"\nCopy: river 41, stone 17, Ada\n'
        f'Text: "sun 90, fish 25, Otto"\nCopy: sun 90, fish 25, Otto\nText: "{text}"\nCopy:'
    )
    return Question("copying", prompt, 32, text, "line")


def _retrieval(rng: random.Random, long_words: int) -> Question:
    words = rng.randint(max(40, long_words // 8), long_words)
    asked, code = rng.choice(PLACES), str(rng.randint(10_000, 99_999))
    others = [place for place in PLACES if place != asked]
    lines = [
        f"{rng.choice(NAMES)} says: the code of {rng.choice(others)} street {number} is {rng.randint(10_000, 99_999)}."
        for number in range(max(2, words // 11))
    ]
    lines.insert(rng.randint(0, len(lines)), f"Remember that the code of {asked} castle is {code}.")
    prompt = (
        "\n".join(lines) + f"\nQuestion: What is the code of {asked} castle?\nAnswer: The code of {asked} castle is"
    )
    return Question("retrieval", prompt, 12, code, "number")


def _json(rng: random.Random, _: int) -> Question:
    name, age, city = rng.choice(NAMES), rng.randint(18, 99), rng.choice(PLACES)
    prompt = (
        'Write the facts as JSON with the keys "name" (text), "age" (whole number) and "city" (text).\n'
        'Facts: Ada is 36 years old and lives in London.\nJSON: {"name": "Ada", "age": 36, "city": "London"}\n'
        'Facts: Otto is 71 years old and lives in Rome.\nJSON: {"name": "Otto", "age": 71, "city": "Rome"}\n'
        f"Facts: {name} is {age} years old and lives in {city}.\nJSON:"
    )
    return Question("JSON", prompt, 40, f'{{"name": "{name}", "age": {age}, "city": "{city}"}}', "json")


# fmt: off
THINGS = (
    "lamp", "bridge", "garden", "letter", "clock", "barrel", "ladder", "basket", "mirror", "candle", "wagon",
    "bottle", "blanket", "hammer", "kettle", "anchor", "feather", "button", "saddle", "window", "violin", "pencil",
    "lantern", "pillow", "rope", "shovel", "teapot", "umbrella", "wheel", "yarn",
)
PLACES = (
    "Bergen", "Lisbon", "Kyoto", "Quito", "Tallinn", "Dakar", "Hobart", "Salem", "Utrecht", "Verona", "Windhoek",
    "Xian", "Yerevan", "Zagreb", "Oslo",
)
NAMES = (
    "Maria", "Jonas", "Aylin", "Chen", "Fatima", "Igor", "Leila", "Marco", "Nadia", "Pavel", "Rosa", "Samir",
    "Tomas", "Ulla", "Viktor", "Wanda",
)
VERBS = (
    "carried", "repaired", "painted", "borrowed", "forgot", "counted", "described", "hid", "polished", "sold",
    "traded", "weighed",
)
# fmt: on
WORK = (
    "returns the sum of the digits of a number",
    "says whether a number is prime",
    "lists the divisors of a number",
    "returns the n-th Fibonacci number",
    "writes a number in binary",
    "reverses the digits of a number",
    "counts down to zero and returns the list",
    "returns the nearest square below a number",
)
TOPICS = ("长城", "茶叶", "高速铁路", "操作系统", "唐诗", "水稻", "丝绸之路", "算盘", "季风", "造纸术", "围棋", "运河")
