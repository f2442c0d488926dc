"""Against a real engine: llama.cpp and itself, whose weights are quantised."""

from __future__ import annotations

import pytest

from loadgen.endpoints.endpoint import inspect_endpoint
from loadgen.quality.phase import AnswerCheck
from loadgen.scenario.quality import Quality
from tests.loadgen.bench.races import TOP
from tests.loadgen.preflight.test_llamacpp import llama
from tests.stack.set_up import has_llamacpp

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1200),  # it computes: on a busy machine for long
    pytest.mark.skipif(not has_llamacpp(TOP), reason="run `python -m stack setup --engine llamacpp` first"),
]


def test_an_engine_is_the_same_as_itself_and_says_that_it_is_quantised(tmp_path):
    few = Quality(prompts=10, output_tokens=8, tasks=2, long_words=50, concurrency=2, limit_s=900)
    asked = AnswerCheck(few, 1, ["a", "b"])
    with llama(tmp_path / "llama") as url:
        for name in "ab":
            endpoint = inspect_endpoint(url, name=name)
            asked.ask(endpoint, "completions", lambda text: None)
    result = asked.result()
    assert result.verdict == "same", result.sentence
    [pair] = result.pairs
    assert pair.agreement.same.count == 10 and not pair.weights_differ
    assert pair.logprobs.mean == pytest.approx(0, abs=1e-6) and pair.logprobs.kl == pytest.approx(0, abs=1e-6)
    assert result.notes[0].startswith("a computes with quantised weights: Q4_K - Medium, 7.")
    assert all(engine.missing == [] for engine in result.engines)
