"""The verdict, on engines whose faults are known: the rules are held from both sides."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.endpoints.answers import Answer
from loadgen.quality.judge import judge
from loadgen.quality.result import Weights
from loadgen.scenario.quality import Quality
from tests.loadgen.quality.speakers import FEW, asked, speak, without

QUICK = Quality(prompts=15, output_tokens=20, tasks=4, long_words=60)
ROUNDED = {"rounding_nats": 0.05}


@pytest.mark.parametrize("logprobs", [True, False])
def test_an_engine_is_the_same_as_itself_for_every_seed(logprobs):
    for seed in range(20):
        what = asked(seed, QUICK)
        a, b = (speak(name, what, logprobs=logprobs) for name in "ab")
        result = judge(what, [a, b], {})
        assert result.verdict == "same", result.sentence
        assert result.sentence == (
            "a and b give the same answers: 15 of 15 greedy texts are the same; both got 4 of 4 tasks right."
        )
        assert result.notes == [] and result.answers == []


def test_two_engines_that_round_otherwise_are_the_same_for_every_seed():
    """Also under load, where batches round otherwise: texts part, and never where an engine was sure."""
    parted = 0
    for seed in range(20):
        what = asked(seed, QUICK)
        a = speak("a", what, **ROUNDED, rounding_seed=1, under_load={"rounding_seed": 11})
        b = speak("b", what, **ROUNDED, rounding_seed=2, under_load={"rounding_seed": 12})
        result = judge(what, [a, b], {})
        assert result.verdict == "same", (seed, result.sentence)
        [pair] = result.pairs
        parted += pair.agreement.same.total - pair.agreement.same.count
        assert pair.agreement.clear == 0
        assert pair.logprobs.mean < 0.06 and not pair.logprobs.whole_texts
    assert parted > 30, "else nothing was tried"


@pytest.mark.parametrize(("logprobs", "seeds"), [(True, 20), (False, 5)])
def test_one_token_in_fifty_swapped_under_load_is_found_for_every_seed(logprobs, seeds):
    """Without log probabilities it takes more and longer texts to tell it from rounding."""
    more = Quality(prompts=30, output_tokens=64, tasks=4, long_words=60)
    for seed in range(seeds):
        what = asked(seed, FEW if logprobs else more)
        a = speak("a", what, logprobs=logprobs)
        b = speak("b", what, logprobs=logprobs, swap_every=50)
        result = judge(what, [a, b], {})
        assert result.verdict == "differ", (seed, logprobs)
        assert result.sentence.startswith("b says other things under load")
        assert [each.verdict for each in result.engines] == ["same", "differ"]
        assert result.pairs[0].verdict == "same", "one at a time they are the same"
        assert any(case["said"]["b"]["under_load"] != case["said"]["b"]["alone"] for case in result.answers)


def test_an_engine_that_is_not_deterministic_is_not_blamed_for_load():
    for seed in range(10):
        what = asked(seed)
        result = judge(what, [speak("a", what, swap_every=50, swap_over=0)], {})
        assert result.verdict == "same", result.sentence
        assert result.sentence.startswith("Load changes no more answers of a than asking again does")
        assert any("not deterministic by itself" in note for note in result.notes)


def test_one_token_for_ever_is_degenerate():
    what = asked()
    a, b = speak("a", what), speak("b", what)
    for answers in (b.first, b.again, b.loaded):
        answers.update({place: Answer(" !!!!" * 24) for place in answers})
    result = judge(what, [a, b], {})
    assert (result.verdict, result.sentence) == (
        "degenerate",
        "b does not compute the model: '!!!!' over and over in 20 of 20 texts.",
    )
    assert result.pairs[0].verdict == "unknown"


def test_a_short_cycle_for_ever_is_too():
    what = asked()
    a = speak("a", what)
    a.first.update({place: Answer(f"{place}, " + "so it is " * 12) for place in what.prompts})
    assert judge(what, [a], {}).verdict == "degenerate"


@pytest.mark.parametrize("logprobs", [True, False])
def test_other_weights_differ(logprobs):
    what = asked()
    result = judge(what, [speak("a", what, logprobs=logprobs), speak("b", what, logprobs=logprobs, first_word=7)], {})
    assert result.verdict == "differ"
    assert ("surer of their words" if logprobs else "part after") in result.sentence
    assert [each.verdict for each in result.engines] == ["same", "same"], "load changes neither"


def test_wrong_sums_are_found_where_no_text_parts():
    what = asked(quality=Quality(prompts=20, output_tokens=8, tasks=48, long_words=60))
    result = judge(what, [speak("a", what), speak("b", what, wrong_sums=True)], {})
    assert result.verdict == "differ"
    assert result.sentence == "a and b do not answer alike: a got 48 of 48 tasks right, and b 36."
    [*kinds, every] = result.pairs[0].tasks
    assert (kinds[0].kind, kinds[0].right) == ("arithmetic", (12, 0))
    assert every.p == pytest.approx(2 * 0.5**12) and every.difference == -0.25
    assert every.ci95[0] < -0.25 < every.ci95[1] < 0


def test_few_wrong_ones_may_be_chance():
    what = asked()  # 6 sums: the exact test needs 8 that only one gets right
    assert judge(what, [speak("a", what), speak("b", what, wrong_sums=True)], {}).verdict == "same"


def test_worse_answers_under_load():
    what = asked(quality=Quality(prompts=20, output_tokens=8, tasks=48, long_words=60))
    result = judge(what, [speak("a", what, under_load={"wrong_sums": True})], {})
    assert result.sentence == "a answers worse under load: 36 of 48 tasks right, and 48 alone."


def test_answers_cut_short_under_load():
    what = asked()
    a = speak("a", what)
    for place in what.prompts[:8]:
        whole = a.loaded[place]
        a.loaded[place] = dataclasses.replace(whole, text=whole.text[:20], tokens=whole.tokens[:4])
    result = judge(what, [a], {})
    assert result.sentence == "a cuts answers short under load: 8 of 20, against 0 when asked twice alone."


def test_texts_that_part_late_cannot_be_told_without_log_probabilities():
    what = asked()
    a = speak("a", what, logprobs=False, rounding_nats=0.3, rounding_seed=1)
    b = speak("b", what, logprobs=False, rounding_nats=0.3, rounding_seed=2)
    for place in what.prompts:  # all part, and none soon
        head = "as long a beginning as it takes to be late "
        for said, end in ((a, "one"), (b, "other")):
            said.first[place] = said.again[place] = said.loaded[place] = Answer(f"{head}{place} {end}")
    result = judge(what, [a, b], {})
    assert result.verdict == "unknown"
    assert result.sentence.startswith("Whether a and b answer alike cannot be told: 0 of 20")


def test_too_few_answers_decide_nothing():
    what = asked()
    result = judge(what, [without(speak("a", what), 9), speak("b", what)], {})
    assert result.verdict == "unknown"
    assert "too few prompts" in result.sentence and "Too few prompts" in result.sentence


def test_weights_of_another_precision_are_told():
    what = asked()
    a, b = speak("a", what), speak("b", what)
    b.weights = Weights(words="Q4_K - Medium, 7.4 bits a weight", bits=7.4, quantised=True)
    assert judge(what, [a, b], {}).notes == [
        "The weights differ in precision (a: BF16; b: Q4_K - Medium, 7.4 bits a weight), so other answers are to be "
        "expected."
    ]
    a.weights = b.weights
    result = judge(what, [a, b], {})
    assert not result.pairs[0].weights_differ
    assert result.notes[0] == "a computes with quantised weights: Q4_K - Medium, 7.4 bits a weight."


def test_nobody_answered():
    result = judge(asked(), [], {})
    assert (result.verdict, result.sentence) == ("unknown", "No engine could be asked for answers.")
