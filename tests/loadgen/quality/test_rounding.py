"""Log probabilities held side by side, against plain arithmetic over whole distributions."""

from __future__ import annotations

import math
import random

import pytest

from loadgen.endpoints.answers import Answer, Token
from loadgen.quality.rounding import (
    Place,
    common_places,
    compare_logprobs,
    divergence,
    parting_nats,
    renormalised,
    scored_places,
)
from loadgen.quality.weights import NAMES


def token(text: str, chances: dict[str, float]) -> Token:
    top = sorted(((each, math.log(chance)) for each, chance in chances.items()), key=lambda pair: -pair[1])
    return Token(text, math.log(chances[text]) if text in chances else None, tuple(top))


def test_divergence_is_that_of_the_whole_where_all_tokens_are_listed_and_less_where_not():
    rng = random.Random(1)
    for _ in range(50):
        p, q = ({text: rng.uniform(0.05, 1) for text in "abcdef"} for _ in range(2))
        p, q = ({text: value / sum(of.values()) for text, value in of.items()} for of in (p, q))
        whole = sum(p[t] * math.log(p[t] / q[t]) for t in p)
        found, mass = divergence(Place(token("a", p), token("a", q)), scaled=False)
        assert (found, mass) == (pytest.approx(whole), pytest.approx(1))
        few, mass = divergence(
            Place(token("a", {t: p[t] for t in "abc"}), token("a", {t: q[t] for t in "abcd"})), scaled=False
        )
        assert 0 <= few <= whole + 1e-12 and mass == pytest.approx(p["a"] + p["b"] + p["c"])


def test_a_list_that_was_cut_and_scaled_up_is_known_and_undone():
    p = {"a": 0.4, "b": 0.2, "c": 0.1, "d": 0.1}
    scaled = {text: value / 0.8 for text, value in p.items()}
    assert renormalised([token("a", scaled)] * 3)
    assert not renormalised([token("a", p)] * 3)
    sure = {"a": 0.99999, "b": 0.00001}
    assert not renormalised([token("a", sure)] * 3), "a sure token's list adds up to 1 by itself"
    places = [common_places([token("a", p)] * 4, [token("a", scaled)] * 4)] * 3
    found = compare_logprobs(places, whole_texts=False, names=("plain", "cut"))
    assert found.mean == pytest.approx(0, abs=1e-12) and found.kl == pytest.approx(0, abs=1e-12)
    assert found.notes == ["cut lists probabilities that it scaled up to 1 after a cut, so both are compared as such"]


def test_mean_and_p99_with_an_interval_over_prompts():
    gaps = [[0.1, 0.1, 0.4], [0.2], [0.0, 0.3]]
    places = [[Place(Token("x", -1.0), Token("x", -1.0 - gap)) for gap in each] for each in gaps]
    found = compare_logprobs(places, whole_texts=True, names=("a", "b"))
    assert (found.tokens, found.prompts, found.kl) == (6, 3, None)
    assert found.mean == pytest.approx(1.1 / 6) and 0.39 < found.p99 <= 0.4
    low, high = found.mean_ci95
    assert low < found.mean < high
    assert found.notes == ["no divergence of the likeliest tokens: an engine lists none"]
    nothing = compare_logprobs([[Place(Token("x", None), Token("x", -1.0))]], whole_texts=True, names=("a", "b"))
    assert nothing.mean is None and nothing.notes


def test_what_makes_answers_part():
    near = Place(token("x", {"x": 0.5, "y": 0.45}), token("y", {"x": 0.46, "y": 0.5}))
    assert parting_nats(near) == pytest.approx(math.log(0.5 / 0.45) + math.log(0.5 / 0.46))
    clear = Place(token("x", {"x": 0.9, "z": 0.05}), token("y", {"y": 0.6, "x": 0.2}))
    assert parting_nats(clear) == pytest.approx(math.log(0.9 / 0.05) + math.log(3)), "no likelier than the last listed"
    assert parting_nats(Place(token("x", {"x": 0.9, "y": 0.1}), Token("y", None))) == pytest.approx(math.log(9))
    assert parting_nats(Place(Token("x", None), Token("y", None))) is None


def test_places_go_as_far_as_both_went_on_from_the_same_text():
    a = [Token(text, -1.0) for text in (" The", " sun", " is", " up")]
    b = [Token(text, -1.0) for text in ("The", " sun", " was", " up")]
    assert [(place.a.text, place.b.text) for place in common_places(a, b)] == [
        (" The", "The"),
        (" sun", " sun"),
        (" is", " was"),
    ]


def test_a_rated_answer_is_the_end_of_the_prompt():
    answer = Answer("one two", tokens=(Token("one", -0.1), Token(" two", -0.2), Token("<end>", -0.3)))
    prompt = [Token("Say", None), Token(" it:", -4.0), Token("one", -0.5), Token(" two", -0.6)]
    assert [(p.a.logprob, p.b.logprob) for p in scored_places(answer, prompt)] == [(-0.1, -0.5), (-0.2, -0.6)]
    other_cut = [Token("Say", None), Token(" it", -4.0), Token(":one", -0.5), Token(" two", -0.6)]
    assert scored_places(answer, other_cut) == [], "cut into other tokens"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gemma-3-270m-it-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen2.5-7B-Instruct-AWQ", "AWQ"),
        ("Llama-3-8B-FP8", "FP8"),
        ("model-4bit", "4bit"),
        ("Qwen2.5-7B-Instruct", None),
        ("gpt-oss-120b", None),
    ],
)
def test_names_of_quantised_models(name, found):
    match = NAMES.search(name)
    assert (match[1] if match else None) == found
