"""When a run is judged, at which level, and when it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.analysis.comparison import comparisons
from loadgen.bench import until_decided
from loadgen.bench.until_decided import Looks, decider, more_repeats, plan_looks
from loadgen.cli.bench import with_most_repeats
from loadgen.errors import UserError
from loadgen.runs.manifest import Manifest
from loadgen.scenario.model import Scenario
from loadgen.statistics.compare import compare
from tests.loadgen.report.synthetic_run import SyntheticRun
from tests.loadgen.statistics.samples import cell


def test_looks_double_up_to_the_most():
    assert Looks.planned(2, 16).repeats == (2, 4, 8, 16)
    assert Looks.planned(4, 20).repeats == (4, 8, 16, 20)
    assert Looks.planned(4, 4).repeats == (4,)


@given(st.integers(1, 50), st.integers(0, 200))
def test_false_alarms_are_shared_out_among_the_looks_that_can_decide(first, beyond):
    looks = Looks.planned(first, first + beyond)
    assert looks.repeats[0] == first
    assert looks.repeats[-1] == first + beyond
    assert list(looks.repeats) == sorted(set(looks.repeats))
    deciding = [repeats for repeats in looks.repeats if repeats > 1]
    assert looks.alpha(0.05) * max(1, len(deciding)) == pytest.approx(0.05)
    assert [looks.after(done) for done in looks.repeats] == [*looks.repeats[1:], None]


def manifest(**more) -> Manifest:
    return Manifest(run_id="r", started_at=1.0, **more)


ENGINES = ["llamacpp", "vllm"]
FIELDS = {"name": "s", "question": "?", "prompt_tokens": [8], "output_tokens": [2], "requests": 50}
SCENARIO = Scenario.model_validate({**FIELDS, "load": {"concurrency": [1]}, "repeats": 2})
SEARCH = {**FIELDS, "slo": {"ttft_ms": 9}, "find_capacity": {"of": "concurrency", "from": 8}}


@pytest.mark.parametrize(
    ("had", "repeats", "most", "looks", "alpha"),
    [
        ([], 4, None, [2, 4], 0.025),
        ([], 2, 4, [2, 4], 0.025),
        ([], 4, 16, [2, 4, 8, 16], 0.0125),
        ([1, 2], 4, None, [1, 2, 4], 0.025),
    ],
    ids=["by hand", "until decided", "both", "one repeat decides nothing"],
)
def test_what_was_judged_before_it_was_extended_is_a_look_too(had, repeats, most, looks, alpha):
    extended = manifest(looks=had)
    plan_looks(extended, repeats, most, before=2)
    assert (extended.looks, extended.alpha) == (looks, pytest.approx(alpha))
    assert ("Extended from 2 to 4 repeats." in extended.messages) == (repeats == 4)
    assert any("each time at a level of" in message for message in extended.messages)


def test_a_level_once_shared_out_stays():
    ended_early = manifest(looks=[2, 4, 8, 16], alpha=0.0125)
    plan_looks(ended_early, 8, None, before=4)
    assert (ended_early.looks, ended_early.alpha) == ([2, 4, 8], 0.0125)


@pytest.mark.parametrize("most", [None, 4], ids=["--repeats 4", "--until-decided 4"])
def test_two_repeats_extended_to_four_give_the_figures_of_four(tmp_path, most):
    def run(folder, repeats):
        made = SyntheticRun(prompts=(64,), concurrencies=(1, 4), requests=20, repeats=repeats)
        made.add_all()
        return made.write(folder)

    whole = run(tmp_path / "four", 4)
    planned = whole.load()
    plan_looks(planned.manifest, 2, 4)  # a run of four that is judged at two
    two = run(tmp_path / "two", 2)
    begun = two.load().manifest
    plan_looks(begun, 2 if most else 4, most, before=2)
    extended = whole.load()
    extended.manifest.alpha = begun.alpha
    assert begun.alpha == planned.manifest.alpha
    assert comparisons(extended, ENGINES) == comparisons(planned, ENGINES)
    once = comparisons(whole.load(), ENGINES)[0]
    for key, judged in comparisons(extended, ENGINES)[0].overall.items():
        assert (judged.ratio, judged.p_value, judged.repeats) == (
            once.overall[key].ratio,
            once.overall[key].p_value,
            once.overall[key].repeats,
        )


@pytest.mark.parametrize(
    ("scenario", "repeats", "said"),
    [
        (SCENARIO, 2, "this run is one of 2"),
        (SCENARIO, 1, "this run is one of 2"),
        (Scenario.model_validate(SEARCH), 4, "search for capacity"),
    ],
    ids=["as many", "fewer", "a search"],
)
def test_what_cannot_be_extended(scenario, repeats, said):
    with pytest.raises(UserError, match=said):
        more_repeats(scenario, repeats)


def test_starts_keep_their_proportion_to_repeats():
    scenario = SCENARIO.model_copy(update={"starts": 2})
    assert more_repeats(scenario, 6) == {"repeats": 6, "starts": 6}


def judged(monkeypatch, ratio: float, scatter: float):
    """Let runs be judged by blocks that scatter so much about a difference of `ratio`."""
    rng = np.random.default_rng(1)

    def judge(folder, a, b):
        def blocks(mean):
            return mean * np.exp(rng.normal(0, scatter, (4, 1)) + rng.normal(0, 0.01, (4, 50)))

        return compare(a, b, [cell(blocks(10.0), blocks(10.0 * ratio))])

    monkeypatch.setattr(until_decided, "judge_pair", judge)


@pytest.mark.parametrize(
    ("ratio", "scatter", "more"),
    [(1.2, 0.001, 0), (1.0, 0.001, 0), (1.0, 0.2, 4)],
    ids=["a clear winner", "clearly none", "undecided"],
)
def test_a_run_goes_on_while_it_is_undecided(monkeypatch, ratio, scatter, more):
    judged(monkeypatch, ratio, scatter)
    said: list[str] = []
    further = decider(None, "a", "b", Looks.planned(4, 8), said.append)  # type: ignore[arg-type]
    assert further(4) == more
    assert further(8) == 0, "the last look ends it"
    assert said[0].startswith("After 4 repeats: ")


@pytest.mark.parametrize(("a_counts", "more"), [(True, 4), (False, 0)])
def test_a_run_goes_on_where_blocks_count_that_only_lack_their_counterpart(monkeypatch, a_counts, more):
    """Bad luck in two repeats is none in the next; where nothing ever counts, more of the same is in vain."""
    sides = cell(np.full((2, 9), 10.0), np.full((2, 9), 10.0))
    wrong = [replace(block, invalid="limited") for block in sides.b]
    own = list(sides.a) if a_counts else [replace(block, invalid="limited") for block in sides.a]
    statistics = compare("a", "b", [replace(sides, a=own, b=wrong)])
    assert statistics.verdict == "invalid"
    monkeypatch.setattr(until_decided, "judge_pair", lambda *_: statistics)
    said: list[str] = []
    assert decider(None, "a", "b", Looks.planned(4, 8), said.append)(4) == more  # type: ignore[arg-type]
    assert ("Further repeats would not decide it: none are run." in said) is not a_counts


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["bench", "--until-decided"], ["bench", "--until-decided", "16"]),
        (["bench", "--until-decided", "8", "x"], ["bench", "--until-decided", "8", "x"]),
        (["bench", "--until-decided", "smoke"], ["bench", "--until-decided", "16", "smoke"]),
        (["bench", "--until-decided", "my.yaml"], ["bench", "--until-decided", "16", "my.yaml"]),
        (["bench", "--until-decided", "--seed", "3"], ["bench", "--until-decided", "16", "--seed", "3"]),
        (["report"], ["report"]),
        ([], []),
    ],
)
def test_the_most_repeats_may_be_left_out(given, meant):
    assert with_most_repeats(given) == meant
