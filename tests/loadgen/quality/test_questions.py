"""What is asked, what is right, and a file of one's own."""

from __future__ import annotations

import json

import pytest

from loadgen.errors import UserError
from loadgen.quality.marking import is_right
from loadgen.quality.question_file import read_questions
from loadgen.quality.questions import KINDS, Question, greedy_questions, task_questions


def test_questions_follow_from_the_seed_and_are_of_all_kinds():
    assert greedy_questions(1, 50, 64, 300) == greedy_questions(1, 50, 64, 300)
    assert greedy_questions(1, 50, 64, 300) != greedy_questions(2, 50, 64, 300)
    every = greedy_questions(1, 50, 64, 300) + task_questions(1, 80, 300)
    assert [question.kind for question in every[:5]] == list(KINDS)
    assert len({question.prompt for question in every}) == len(every)
    assert all(question.prompt == question.prompt.strip() for question in every), "chat templates strip"


def test_long_prompts_reach_from_an_eighth_to_the_whole_length():
    lengths = [len(q.prompt.split()) for q in greedy_questions(3, 200, 64, 800) if q.kind == "long context"]
    assert 100 <= min(lengths) < 250 and 650 < max(lengths) <= 850


def test_each_task_has_its_answer_in_it_or_is_a_sum():
    for task in task_questions(5, 40, 200):
        assert is_right(task, f" {task.answer}\nQuestion: and now?")
        assert not is_right(task, " no idea")
        if task.kind == "retrieval":
            assert task.prompt.count(f"is {task.answer}.") == 1
        if task.kind == "copying":
            assert f'"{task.answer}"' in task.prompt


@pytest.mark.parametrize(
    ("rule", "answer", "text", "right"),
    [
        ("number", "42", " 42.", True),
        ("number", "42", "The answer is 42", True),
        ("number", "42", "\n\n142", False),
        ("number", "1234", " 1,234", True),
        ("number", "42", " 4\n2", False),
        ("line", "a 1, b 2", '\n "a 1, b 2"\nmore', True),
        ("line", "a 1, b 2", "a 1, b 3", False),
        ("json", '{"age": 36}', 'Here: {"age": 36} and more', True),
        ("json", '{"age": 36}', '{"age": "36"}', False),
        ("json", '{"age": 36}', '{"age": 36', False),
        ("json", '{"age": 36}', "none", False),
        ("last number", "42", "6 times 7 is 42", True),
        ("last number", "42", "so #### 42 and not 43", True),
        ("last number", "42", "It is 42.\n\nQuestion: What is 1 + 1?\nAnswer: 2", True),
        ("last number", "42", "42 or 43", False),
        ("last number", "1000", "$1,000.00", True),
        ("text", "New Delhi", "It is new delhi, of course.", True),
        ("text", "New Delhi", "It is Delhi.", False),
    ],
)
def test_what_is_right(rule, answer, text, right):
    assert is_right(Question("x", "?", 9, answer, rule), text) is right


def test_a_file_of_questions(tmp_path):
    file = tmp_path / "gsm.jsonl"
    entries = [{"question": f"What is {n} + {n}?", "answer": f"Twice.\n#### {n + n:,}"} for n in range(500, 520)]
    file.write_text("\n\n".join(map(json.dumps, [*entries, {"question": "Capital of India?", "answer": "New Delhi"}])))
    every = read_questions(file, 100, 256, seed=1)
    assert (len(every), every[0].answer, every[0].rule, every[0].kind) == (21, "1,000", "last number", "gsm")
    assert (every[-1].rule, every[-1].answer) == ("text", "New Delhi")
    some = read_questions(file, 5, 256, seed=1)
    assert len(some) == 5 and some == read_questions(file, 5, 256, seed=1) != read_questions(file, 5, 256, seed=2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no question"),
        ('{"question": "?"}\n', r":1: expected"),
        ('{"question": "?", "answer": "1"}\n[]\n', r":2: expected"),
        ("no JSON\n", r":1: expected"),
        ('{"question": " ", "answer": "1"}', r":1: expected"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, problem):
    file = tmp_path / "q.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=problem):
        read_questions(file, 10, 10, seed=1)
    with pytest.raises(UserError, match="cannot be read"):
        read_questions(tmp_path / "absent.jsonl", 10, 10, seed=1)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no UTF-8"):
        read_questions(tmp_path / "binary.jsonl", 10, 10, seed=1)
