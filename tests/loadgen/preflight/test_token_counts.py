"""BOS, chat template, other tokenizer: told apart by how the differences go with the texts."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadgen.preflight.work_checks import explain_counts

COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 5000), min_size=2)


def cause(a, b):
    return explain_counts(a, b, "x", "y").cause


@given(COUNTS, st.integers(-40, 40))
def test_a_constant_is_a_bos_or_a_template(counts, offset):
    expected = {0: "equal", 1: "BOS", -1: "BOS"}.get(offset, "chat template")
    shifted = {kind: n + offset for kind, n in counts.items()}
    assert cause(counts, shifted) == expected


@given(COUNTS, COUNTS)
def test_anything_else_is_another_tokenizer(a, b):
    b = {kind: b.get(kind, n + 1) for kind, n in a.items()}
    more = {b[kind] - n for kind, n in a.items()}
    assume(len(more) > 1 and not (max(more) - min(more) == 1 and min(map(abs, more)) > 1))
    assert cause(a, b) == "tokenizer"


def test_a_template_may_join_a_token_with_the_text():
    """As llama.cpp counts Gemma's: 22 or 23 more."""
    found = explain_counts({"t": 2, "u": 19, "v": 33}, {"t": 25, "u": 41, "v": 56}, "x", "y")
    assert (found.cause, found.words.startswith("y adds 22 or 23 tokens")) == ("chat template", True)
    assert cause({"t": 2, "u": 19}, {"t": 3, "u": 19}) == "tokenizer"
    assert cause({"t": 2, "u": 19}, {"t": 3, "u": 21}) == "tokenizer"
    assert cause({"t": 2, "u": 19}, {"t": 5, "u": 24}) == "tokenizer"


def test_who_adds_is_named():
    assert explain_counts({"t": 5, "u": 7}, {"t": 6, "u": 8}, "x", "y").words.startswith("y adds one token")
    assert explain_counts({"t": 6, "u": 8}, {"t": 5, "u": 7}, "x", "y").words.startswith("x adds one token")
    assert "t +1, u -2" in explain_counts({"t": 5, "u": 9}, {"t": 6, "u": 7}, "x", "y").words


@pytest.mark.parametrize(
    ("a", "b", "who"),
    [({"t": None}, {"t": 1}, "x"), ({"t": 1}, {"t": None}, "y"), ({"t": None}, {"t": None}, "x and y")],
)
def test_counts_that_are_not_told_are_not_called_equal(a, b, who):
    found = explain_counts(a, b, "x", "y")
    assert found.cause == "not told"
    assert found.words.startswith(f"{who} did not tell")
