"""The experiments on engines' insides: on both schedulers in virtual time, and the quickest on simulator processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.internals import OF_FRONT_ENDS, in_virtual_time, raced
from benchmarks.virtual import play
from loadgen.explain.block_figures import FIGURES
from loadgen.report.experiment import Outcome
from loadgen.scenario.file import load_scenario, shipped_scenarios

TOP = Path(__file__).parents[2]
NAMES = shipped_scenarios("internals")
SEEN = {
    ("internals-cached-budget", "requests_a_step"): {"vllm": 32.0, "ksana": 4.0},
    ("internals-eviction-circle", "found_again"): {"vllm": 0.0, "ksana": 0.806},
    ("internals-eviction-drift", "found_again"): {"vllm": 1.0, "ksana": 0.0},
    ("internals-exhaustion", "preemptions"): {"vllm": 24.0, "ksana": 18.0},
    ("internals-packing", "prompt_tokens_a_step"): {"vllm": 8000.0, "ksana": 5333.333},
    ("internals-same-step", "copies_computed"): {"vllm": 1.12, "ksana": 4.006},
    ("internals-whole-prompt", "computed_again"): {"vllm": 16.0, "ksana": 1.0},
}
"""As docs/engines/experiments.md has them."""


def told(outcome: Outcome) -> str:
    return "\n".join(outcome.lines())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_FRONT_ENDS])
def test_the_schedulers_do_what_was_predicted(name):
    outcome = in_virtual_time(load_scenario(name))
    assert outcome.findings
    assert {found.verdict for found in outcome.findings} == {"as predicted"}, told(outcome)
    for found in outcome.findings:
        exactly = SEEN.get((name, found.figure))
        if exactly is not None:
            assert found.values == (pytest.approx(exactly[found.engine], abs=0.001),), told(outcome)


def test_all_of_the_twelve_are_there():
    numbers = " ".join(load_scenario(name).experiment.number for name in NAMES)
    assert {*re.findall(r"[0-9]+", numbers)} == {str(number) for number in range(1, 13)}


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_says_what_decides_it_and_where_it_is_explained(name):
    scenario = load_scenario(name)
    assert scenario.name == name and scenario.experiment is not None
    assert scenario.experiment.decides.keys() <= FIGURES.keys()
    page, _, anchor = scenario.experiment.page.partition("#")
    text = (TOP / page).read_text(encoding="utf-8")
    headings = [re.sub(r"[^a-z0-9 -]", "", line.lower()).strip() for line in text.splitlines() if line[:1] == "#"]
    assert not anchor or anchor in [heading.replace(" ", "-") for heading in headings]
    assert f"`{name}`" in (TOP / "docs/engines/experiments.md").read_text(encoding="utf-8")


def test_another_scheduler_is_told_from_what_was_predicted():
    """What decides is no formality: with the policies exchanged nothing is as predicted."""
    for name in ("internals-eviction-circle", "internals-eviction-drift", "internals-same-step"):
        scenario = load_scenario(name)
        (figure, ranges), cell = next(iter(scenario.experiment.decides.items())), scenario.cells()[0]
        for kind, other in (("vllm", "ksana"), ("ksana", "vllm")):
            value = FIGURES[figure](play(scenario, other, other, cell))
            low, high = ranges[kind]
            assert not low <= value <= high


@pytest.mark.integration
def test_simulators_show_it_in_a_race(tmp_path):
    outcome = raced(load_scenario("internals-eviction-circle"), tmp_path)
    assert {found.verdict for found in outcome.findings} == {"as predicted"}, told(outcome)
