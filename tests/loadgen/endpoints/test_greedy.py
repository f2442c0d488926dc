"""Where texts part, and which texts are no language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.endpoints.answers import Answer, Token
from loadgen.endpoints.greedy import degenerate, divergence, judge_texts, logprob_gaps, repeated_unit
from tests.loadgen.preflight.samples import answer

WORDS = st.text("abc", min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("one", "other", "same", "at_start", "characters"),
    [
        ("Paris is", "Paris is", True, False, 8),
        (" Paris is", "Paris is", True, False, 8),  # white space in front is a matter of decoding
        ("Paris is", "Paris was", False, False, 6),
        ("Paris", "London", False, True, 0),
        ("the", "that", False, True, 2),
        ("", "Paris", False, True, 0),
        ("巴黎是", "巴黎在", False, False, 2),
        ("巴黎是", "伦敦是", False, True, 0),
    ],
)
def test_texts_part(one, other, same, at_start, characters):
    found = divergence(Answer(one), Answer(other))
    assert (found.same, found.characters, found.tokens) == (same, characters, None)
    if one[:1] not in "巴":
        assert found.at_start == at_start


def test_tokens_decide_where_both_engines_tell_them():
    one, other = answer("un known", -1.0), answer("un friendly", -1.0)
    found = divergence(one, other)
    assert (found.tokens, found.at_start) == (1, False)
    assert divergence(answer("inner", -1.0), answer("internal", -1.0)).at_start


@given(st.lists(WORDS, min_size=1), st.lists(WORDS), st.lists(WORDS))
def test_divergence_finds_where_texts_were_made_to_part(common, one, other):
    a, b = " ".join([*common, "X", *one]), " ".join([*common, "Y", *other])
    found = divergence(answer(a, -1.0), answer(b, -1.0))
    assert (found.same, found.tokens, found.characters) == (False, len(common), len(" ".join(common)) + 1)
    assert not found.at_start


def test_log_probabilities_are_compared_up_to_where_texts_part():
    one = Answer("", tokens=(Token(" a", -1.0), Token(" b", -2.0), Token(" c", -3.0)))
    other = Answer("", tokens=(Token("a", -1.25), Token(" b", -2.0), Token(" d", -9.0)))
    assert logprob_gaps(one, other) == [0.25, 0.0]
    assert logprob_gaps(one, Answer("a")) == []


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("!!!!!!!!!!!!!!!!", "!"),
        ("<unk>" * 8, "<unk>"),
        ("the the the the the the the", "the"),
        ("ababababababab", "ab"),
        ("!!!!!", None),  # too short to say
        ("Paris. Paris is the capital", None),
        ("one, two, three, four, five, six,", None),
        ("def def x", None),
    ],
)
def test_repeated_unit(text, unit):
    assert repeated_unit(text) == unit


@given(WORDS, st.integers(6, 30))
def test_any_repetition_is_found(unit, times):
    assert repeated_unit(unit * times) is not None
    assert repeated_unit(" ".join([unit] * times)) == unit


@pytest.mark.parametrize("text", ["", "  \n ", "\n\n"])
def test_no_text_is_degenerate(text):
    assert degenerate(Answer(text)) == "no text"


def test_tokens_are_counted_where_they_are_told():
    assert degenerate(Answer("aaaaaaaa", tokens=(Token("a", -1.0),) * 8)) == "'a' over and over"
    # Eight signs in two tokens are no repetition of a token.
    assert degenerate(Answer("--------", tokens=(Token("----", -1.0),) * 2)) is not None
    assert degenerate(Answer("........ and so on", tokens=tuple(Token(t, -1.0) for t in "abcdefgh"))) is None


def test_half_of_the_texts_must_be_degenerate():
    fine = [Answer(f"{i} is a number") for i in range(10)]
    loops = [Answer("ha " * 10)] * 10
    assert judge_texts(fine) is None
    assert judge_texts([*fine, *loops[:9]]) is None, "a small model's own loops"
    assert "in 10 of 20 texts" in judge_texts([*fine, *loops])
    assert "no text in 6 of 10 texts, and other degenerate text in 2" in judge_texts(
        [Answer("")] * 6 + loops[:2] + fine[:2]
    )


def test_one_text_for_all_prompts_is_an_engine_that_does_not_read():
    assert judge_texts([Answer("Hello, how are you?")] * 20) == "the same text to all 20 prompts"
    assert judge_texts([Answer("Hello, how are you?")]) is None
    assert judge_texts([]) is None
