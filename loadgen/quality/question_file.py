"""Questions and answers of one's own: a JSONL file in the form of GSM8K."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from loadgen.files import read_lines
from loadgen.quality.marking import NUMBER
from loadgen.quality.questions import Question

MAX_QUESTIONS = 200_000
THINK = "Think step by step, then give the final answer after ####."


def read_questions(path: Path, most: int, tokens: int, seed: int) -> list[Question]:
    """Read `most` questions at most, chosen by the seed. Each line is `{"question": ..., "answer": ...}`.

    What is right is what stands behind `####` in the answer, else the whole answer; other keys are passed over.

    Raises:
        UserError: the file cannot be read, has no question, or a line is none, with its number.
    """
    found: list[Question] = []
    for number, line in read_lines(path, "Give a .jsonl file of questions and answers."):
        if len(found) == MAX_QUESTIONS:
            raise UserError(f"{path}:{number}: more than {MAX_QUESTIONS} questions: cut the file into parts.")
        found.append(_question(line, f"{path}:{number}", path.stem, tokens))
    if not found:
        raise UserError(f'{path}: holds no question. Each line is {{"question": "...", "answer": "..."}}.')
    return found if len(found) <= most else random.Random(f"{seed}/file").sample(found, most)


def _question(line: str, where: str, name: str, tokens: int) -> Question:
    try:
        entry: Any = json.loads(line)
        question, answer = entry["question"], entry["answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        question = answer = None
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip() or not answer.strip():
        raise UserError(f'{where}: expected {{"question": "...", "answer": "... #### 42"}}, both of them text.')
    right = answer.rpartition("####")[2].strip()
    if re.fullmatch(rf"\$?\s*{NUMBER.pattern}", right):
        prompt = f"Question: {question.strip()}\n{THINK}\nAnswer:"
        return Question(name, prompt, tokens, NUMBER.findall(right)[0], "last number")
    return Question(name, f"Question: {question.strip()}\nAnswer:", tokens, right, "text")
