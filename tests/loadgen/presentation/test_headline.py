"""The headline that a manager reads: who, in what, by how much, how sure, and over what."""

from __future__ import annotations

import numpy as np
import pytest

from loadgen.message import of_data
from loadgen.presentation.figures import brief, lead_mark, leader
from loadgen.presentation.headline import MOST_FACTS, Answers, headline
from loadgen.presentation.language import CHINESE
from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import CellSample
from loadgen.statistics.result import Estimate, Overall, Settings
from loadgen.statistics.words import share_texts
from tests.loadgen.statistics.samples import block, cell, paced

ONE_METRIC = Settings(headline=("tpot_ms.mean",))


def noisy(seed: int = 1, repeats: int = 3, id: str = "p0512-o0128-c004") -> CellSample:
    """Two engines 3% apart whose blocks scatter by half."""
    rng = np.random.default_rng(seed)
    a, b = (middle * np.exp(rng.normal(0, 0.5, (repeats, 1)) + np.zeros((1, 50))) for middle in (10, 10.3))
    return cell(a, b, id=id)


def test_a_winner_is_named_with_metric_share_interval_and_cells():
    found = headline(compare("vllm", "ksana", [paced(1.1)]))
    assert found.sentence == "vllm is faster: TPOT mean by 10.0% [95% interval 9.9% to 10.2%] over 1 cell."
    assert found.facts[0] == "TTFT p50: no difference (0.0% ±0.1)."
    assert found.facts[1] == "output throughput: vllm by 10.0% [10.0%, 10.0%]."
    assert found.facts[2] == "This holds for these two processes only: no engine was restarted."
    assert (found.verdict, found.winner) == ("a", "vllm")


def test_over_several_cells_and_against_one_of_them():
    cells = [paced(1.1, id="p1"), paced(1.2, id="p2"), paced(0.95, id="p3")]
    text = headline(compare("vllm", "ksana", cells)).sentence
    assert text.startswith("vllm is faster: TPOT mean by 7.9% [")
    assert text.endswith("over 3 cells (but slower in 1 of them).")


def test_equal_engines_have_no_difference_worth_the_margin():
    text = headline(compare("x", "y", [paced(1.0)])).sentence
    assert text == ("No difference worth 2% between x and y: TTFT p50, TPOT mean and output throughput over 1 cell.")


def test_a_tie_counts_the_cells_that_it_rests_on():
    alone = paced(1.0, id="p2", jitter=(0.0,))
    text = headline(compare("x", "y", [paced(1.0), alone])).sentence
    assert text.endswith("over 1 cell."), "a cell of one repeat is in no interval"


def test_undecided_says_how_many_repeats_and_minutes_are_missing():
    statistics = compare("x", "y", [noisy()], ONE_METRIC)
    more = statistics.overall["tpot_ms.mean"].further_repeats
    assert more is not None and more > 1
    text = headline(statistics, repeat_s=60.0).sentence
    assert text.startswith(f"Not decided between x and y: {more} more repeats, about ")
    assert text.endswith(", would probably decide TPOT mean.")
    assert (
        headline(statistics).sentence
        == f"Not decided between x and y: {more} more repeats would probably decide TPOT mean."
    )
    once = headline(compare("x", "y", [noisy(repeats=1)], ONE_METRIC), repeat_s=90.0).sentence
    assert once.endswith("Run it again with `repeats: 4` or more, about 6 minutes.")


def test_what_cannot_be_compared_says_why():
    text = headline(compare("x", "y", [CellSample("c", [block(1, [1.0], invalid="it failed")], [])])).text
    assert text.startswith("x and y cannot be compared: no repeat has a valid block of both engines.")


def test_each_engine_ahead_in_one_metric():
    text = headline(compare("x", "y", [paced(1.1, 0.5)])).sentence
    assert text.startswith("Each is ahead in something: y in TTFT p50 by 100.0%")
    assert "x in TPOT mean by 10.0%" in text


def test_a_metric_that_goes_one_way_at_one_load_is_told_by_load():
    jitters = np.random.default_rng(3).normal(0, 0.001, (4, 4))
    waits = {"p0512-o0128-c001": 0.8, "p1024-o0128-c001": 0.8, "p0512-o0128-c016": 1.0, "p1024-o0128-c016": 1.0}
    cells = [
        paced(1.2, wait, id=id, jitter=tuple(jitter)) for (id, wait), jitter in zip(waits.items(), jitters, strict=True)
    ]
    statistics = compare("vllm", "ksana", cells)
    undecided = statistics.overall["ttft_ms.p50"].model_copy(update={"verdict": "undecided", "faster": None})
    overall = statistics.overall | {"ttft_ms.p50": undecided}
    found = headline(statistics.model_copy(update={"verdict": "a", "reason": "difference", "overall": overall}))
    assert found.sentence.startswith("vllm is faster: TPOT mean by 20")
    assert found.facts[0] == "TTFT p50: ksana by 25% at 1 user, no difference at 16 users."


def test_answers_that_differ_outrank_who_is_faster():
    statistics = compare("x", "y", [paced(1.1)])
    found = headline(statistics, answers=Answers("differ", "62 of 100 answers are the same."), others=["y lost 1."])
    assert found.sentence.startswith("x is faster, but its answers differ: TPOT mean by 10.0%")
    assert found.facts[:2] == ("62 of 100 answers are the same.", "y lost 1.")
    assert len(found.facts) <= MOST_FACTS
    equal = headline(compare("x", "y", [paced(1.0)]), answers=Answers("differ", "62 of 100 answers are the same."))
    assert "but their answers differ" in equal.sentence
    void = headline(statistics, answers=Answers("degenerate", "y answers one token for ever."))
    assert void.sentence.startswith("Nobody is faster") and void.winner is None


def test_another_language_is_another_table():
    found = headline(compare("甲", "乙", [paced(1.1)]))
    assert CHINESE.shown(found.sentence).startswith("甲更快：按每 Token 延迟 (TPOT) 均值计，快 10.0%")


def test_as_json_it_has_code_and_values_and_can_be_said_again():
    found = headline(compare("x", "y", [paced(1.1)]))
    told = found.as_json()
    assert told["sentence"] == found.sentence and told["verdict"] == "a" and told["winner"] == "x"
    assert of_data({key: told[key] for key in ("code", "values")}) == found.sentence
    assert [fact["text"] for fact in told["facts"]] == list(found.facts)


def judged(share: float, low: float, high: float, *, won: bool = True) -> Overall:
    """A verdict on throughput: b is faster by this share."""
    estimate = Estimate(estimate=1 + share, ci95=(1 + low, 1 + high))
    return Overall(
        metric="output_tokens_per_s",
        unit="tok/s",
        better="higher",
        headline=True,
        repeats=2,
        ratio=estimate,
        p_value=0.01,
        p_adjusted=0.02,
        verdict="b" if won else "undecided",
        reason="difference" if won else "too_noisy",
        faster=Estimate(estimate=share, ci95=(low, high)) if won else None,
        detectable=None,
        further_repeats=None,
        cells=1,
        verdicts={},
    )


@pytest.mark.parametrize(
    ("share", "low", "high", "won", "text"),
    [
        (0.302, 0.259, 0.345, True, "30% ±4"),
        (0.404, 0.06, 0.86, True, "40% 6–86"),
        (0.404, -0.06, 0.9, False, "40% -6–90"),
        (0.302, 0.297, 0.307, True, "30.2% ±0.5"),
        (0.031, 0.02, 0.042, True, "3.1% ±1.1"),
        (-0.004, -0.013, 0.005, False, "0.4% ±0.9"),
        (-1 / 6, -0.2, -0.13, False, "20% ±5"),
        (0.2, 0.15, 0.25, True, "20% ±5"),
        (0.12, -0.6, 2.0, False, "-60–200%"),
        (0.12, -0.9, 200.0, False, "-90–>999%"),
        (12.0, 11.0, 13.0, True, "1200% ±100"),
    ],
)
def test_a_figure_and_its_interval_in_ten_characters(share, low, high, won, text):
    one = judged(share, low, high, won=won)
    assert brief(one) == text
    # With the marks of the verdict and, where nobody won, of who is ahead, it has a dozen.
    assert len(text) + (1 if won else 2) + 1 <= 12
    assert leader(one) == ("b" if share > 0 else "a")


@pytest.mark.parametrize("verdict", ["a", "undecided", "none"])
def test_a_share_has_one_base_and_no_sign_whatever_the_verdict(verdict):
    statistics = compare("x", "y", [paced(1.2)])
    tpot = statistics.overall["tpot_ms.mean"]
    won = verdict == "a"
    said = tpot.model_copy(update={"verdict": verdict, "faster": tpot.faster if won else None})
    # What is not decided may have a digit less: it has a mark more.
    assert round(float(brief(said).split("%")[0])) == round(float(brief(tpot).split("%")[0])) == 20
    assert leader(said) == "a"
    lead = lead_mark(said, 0, 1)
    assert lead is None if won else lead is not None and lead.look == 0


@pytest.mark.parametrize(
    ("share", "ends", "texts"),
    [
        (0.30, (0.26, 0.345), ("30%", "26%", "34%")),
        (0.302, (0.2985, 0.345), ("30.2%", "29.8%", "34.5%")),
        (0.1, (0.1, 0.1), ("10%", "10%", "10%")),
    ],
)
def test_no_end_of_an_interval_looks_like_its_figure(share, ends, texts):
    assert share_texts(share, ends, 0) == texts
