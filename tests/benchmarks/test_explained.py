"""What is found in the experiments on engines' insides, and in plain runs nothing, on both schedulers."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.explained import EXPECTED, experiment, plain, shown
from loadgen.scenario.file import shipped_scenarios


@pytest.mark.parametrize("name", EXPECTED)
def test_an_experiment_shows_what_is_there_and_nothing_else(name):
    for engine, found, must, may in experiment(name):
        assert must <= found <= must | may, engine


def test_every_experiment_is_looked_at():
    assert EXPECTED.keys() == {*shipped_scenarios("internals")}


@pytest.mark.parametrize("seed", range(4))
def test_a_plain_run_shows_nothing(seed):
    scenario = plain(seed)
    for kind in ("vllm", "ksana"):
        assert shown(scenario, kind, kind, scenario.cells()[0]) == frozenset()


def test_a_plain_run_in_a_small_cache_shows_it():
    """The plain runs are no formality: the same load with hardly any cache is told."""
    scenario = next(made for seed in range(50) if (made := plain(seed)).load.concurrency == [32])
    serving = scenario.serving.model_copy(update={"kv_cache_tokens": 16 * 1024, "max_model_length": 4096})
    small = scenario.model_copy(update={"serving": serving})
    cell = dataclasses.replace(small.cells()[0], prompt_tokens=256, output_tokens=600)
    for kind in ("vllm", "ksana"):
        assert "preemption" in shown(small, kind, kind, cell)
