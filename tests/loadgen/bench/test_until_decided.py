"""When a run is judged, at which level, and when it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.bench import until_decided
from loadgen.bench.until_decided import Looks, decider
from loadgen.cli.bench import with_most_repeats
from loadgen.statistics.compare import compare
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
