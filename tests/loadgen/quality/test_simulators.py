"""Over real sockets, through the SDK: faults of simulators, alone and in a race."""

from __future__ import annotations

import json

import pytest

from loadgen.cli.app import app
from loadgen.endpoints.endpoint import inspect_endpoint
from loadgen.quality.phase import AnswerCheck
from loadgen.quality.result import load_quality
from loadgen.report import write_report
from loadgen.runs.folder import RunFolder
from loadgen.scenario.quality import Quality
from tests.loadgen.bench.races import WENT_WELL, Bench
from tests.simulator.client import running

pytestmark = pytest.mark.integration

FEW = Quality(prompts=15, output_tokens=32, tasks=8, long_words=60)
QUICK = ("--ttft-ms", "1", "--tpot-ms", "0.2", "--set", "answers.text=prompted")
SLOWER = ("--ttft-ms", "1", "--tpot-ms", "5", "--set", "answers.text=prompted")
"""Answers long enough to be under way together on a busy machine too."""


def settings(*words: str) -> list[str]:
    return [part for word in words for part in ("--set", f"answers.{word}")]


def check(*engines: list[str], api: str | None = None, quality: Quality = FEW, base: tuple[str, ...] = QUICK):
    names = "ab"[: len(engines)]
    asked = AnswerCheck(quality, 1, list(names))
    for name, options in zip(names, engines, strict=True):
        with running(*base, *options) as simulator:
            endpoint = inspect_endpoint(f"http://127.0.0.1:{simulator.port}", name=name, api=api)
            asked.ask(endpoint, endpoint.api, lambda text: None)
    return asked.result()


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_whole_texts_are_rated_by_the_other_engine(api):
    rounded = [settings("rounding_nats=0.05", f"rounding_seed={seed}") for seed in (1, 2)]
    result = check(*rounded, api=api)
    assert result.verdict == "same", result.sentence
    found = result.pairs[0].logprobs
    assert found.whole_texts and (found.tokens, found.prompts) == (15 * 32, 15)
    assert 0 < found.mean < 0.06 and found.kl < 0.01 and found.mass == pytest.approx(0.98, abs=0.01)
    assert all(not engine.missing for engine in result.engines), result.engines


def test_without_log_probabilities_it_says_so():
    result = check([], settings("logprobs=false"))
    assert result.verdict == "same", result.sentence
    assert result.pairs[0].logprobs.notes == ["log probabilities are not given by b"]


def test_tokens_swapped_under_load_are_found():
    result = check(settings("swap_every=8"), base=SLOWER)
    assert result.verdict == "differ"
    assert result.sentence.startswith("a says other things under load")
    assert result.engines[0].alone.same.count == 15


AS_DOCS_SAY = {
    "itself": (QUICK, None, 0, "one and other give the same answers"),
    "one token in fifty under load": (SLOWER, ["swap_every=50"], 3, "other says other things under load"),
    "one token for ever": (QUICK, ["text=bangs"], 5, "other does not compute the model: '!!!!' over and over"),
}


@pytest.mark.parametrize("engine", AS_DOCS_SAY)
def test_what_an_engine_is_found_to_be_beside_a_whole_one(capsys, engine):
    """By the command, with texts as long as the defaults'; the pair of CPU engines is in test_llamacpp.py."""
    base, faults, code, sentence = AS_DOCS_SAY[engine]
    with running(*base) as one, running(*base, *settings(*(faults or []))) as other:
        url = one.url if faults is None else other.url
        command = ["quality", "--engine", f"one={one.url}", "--engine", f"other={url}", "--tasks", "0"]
        assert app([*command, "--prompts", "16", "--limit-s", "600"], standalone_mode=False) == code
    assert sentence in " ".join(capsys.readouterr().out.split())


def test_what_does_not_fit_the_context_or_the_time_is_left_out_and_said():
    long = Quality(prompts=15, output_tokens=8, tasks=8, long_words=400)
    [engine] = check(["--set", "max_model_len=120"], quality=long).engines
    assert any("were not answered" in text for text in engine.missing)
    assert any("context length" in text for text in engine.missing)
    hurried = Quality(prompts=15, output_tokens=8, tasks=0, long_words=60, limit_s=0.0001)
    assert check([], quality=hurried) is None, "nothing was said"


@pytest.mark.parametrize(("fault", "code"), [("rounding_seed=1", 0), ("first_word=5", 3), ("text=bangs", 5)])
def test_the_command_ends_with_the_verdict(tmp_path, monkeypatch, capsys, fault, code):
    file, questions = tmp_path / "result.json", tmp_path / "sums.jsonl"
    questions.write_text('{"question": "What is 2 + 3?\\nAnswer:", "answer": "It is five. #### 5"}\n')
    with running(*QUICK) as a, running(*QUICK, *settings(fault)) as b:
        command = ["quality", "--engine", f"a={a.url}", "--engine", f"b={b.url}", "--json", str(file)]
        command += ["--prompts", "10", "--tasks", "4", "--file", str(questions), "--seed", "2"]
        assert app(command, standalone_mode=False) == code
    result = json.loads(file.read_text())
    assert result["asked"]["file"] == str(questions) and result["complete"]
    assert result["sentence"]["text"].split()[-1] in capsys.readouterr().out


def test_a_race_keeps_and_tells_what_was_found(tmp_path, undrawn):
    quality = {"prompts": 12, "output_tokens": 32, "tasks": 4, "long_words": 60}
    with (
        running(*SLOWER) as a,
        running(*SLOWER, *settings("swap_every=6")) as b,
        Bench(tmp_path, {"a": a, "b": b}, quality=quality, output_tokens=[4]) as bench,
    ):
        assert bench.wait() in WENT_WELL, bench.output
        assert "b says other things under load" in " ".join(bench.output.split())
        [folder] = bench.runs_dir.iterdir()
    result = load_quality(folder)
    assert result.verdict == "differ" and result.complete
    for language in ("en", "zh"):
        written = write_report(RunFolder(folder), prometheus_url=None, language=language)
        told = "says other things under load" if language == "en" else "在负载下回答不同"
        for page in (written.html, written.markdown):
            assert told in page.read_text(), page
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["quality"]["verdict"] == "differ" and "answers" not in summary["quality"]


def test_an_engine_that_cannot_be_asked_leaves_it_untold(capsys):
    """What one says of itself is no answer to whether two say the same."""
    with running(*QUICK) as one:
        command = ["quality", "--engine", f"one={one.url}", "--engine", "gone=http://127.0.0.1:9", "--tasks", "0"]
        assert app([*command, "--prompts", "16", "--limit-s", "600"], standalone_mode=False) == 4
    assert "gone could not be asked" in " ".join(capsys.readouterr().out.split())
