"""What is kept when a check breaks off, and that a resumed race does not ask twice. No sockets."""

from __future__ import annotations

import pytest

from loadgen.endpoints.answers import Answer, Refused
from loadgen.endpoints.endpoint import Endpoint
from loadgen.errors import UserError
from loadgen.quality import asking, phase
from loadgen.quality.phase import AnswerCheck, questions_of, refuse_degenerate
from loadgen.quality.result import QualityResult
from loadgen.scenario.quality import Quality
from tests.loadgen.quality.speakers import PLAIN

FEW = Quality(prompts=12, output_tokens=8, tasks=4, long_words=60, concurrency=4)


class FakeAsker:
    """Answers with the prompt's end; after so many, does what it is told to."""

    def __init__(self, left: int = 10**6, then: BaseException | None = None) -> None:
        self.left, self.then, self.closed, self.fields = left, then, False, []

    def __call__(self, endpoint, api):
        return self

    def ask(self, prompt, fields):
        if "logprobs" in fields:
            raise Refused("HTTP 400: no logprobs", by_status=True)
        self.left -= 1
        if self.left < 0 and self.then is not None:
            raise self.then
        self.fields.append(fields)
        return Answer(prompt[-20:])

    def close(self):
        self.closed = True


def check(monkeypatch, asker, engines=("a", "b"), quality=FEW):
    monkeypatch.setattr(asking, "Asker", asker)
    monkeypatch.setattr(phase, "weights_of", lambda endpoint, launch: PLAIN)
    return AnswerCheck(quality, 1, engines)


def endpoint(name):
    return Endpoint(name=name, kind="openai", base_url="http://x", model="m", api="chat")


def test_interrupt_keeps_what_was_found(monkeypatch):
    asker = FakeAsker(left=20, then=KeyboardInterrupt())  # within the part under load
    asked = check(monkeypatch, asker)
    with pytest.raises(KeyboardInterrupt):
        asked.ask(endpoint("a"), "chat", lambda text: None)
    assert asker.closed, "so that requests under way end"
    result = asked.result()
    assert not result.complete and [each.engine for each in result.engines] == ["a"]
    assert result.engines[0].accuracy
    asked = check(monkeypatch, FakeAsker())
    for name in "ba":
        asked.ask(endpoint(name), "chat", lambda text: None)
    result = asked.result()
    assert result.complete and [each.engine for each in result.engines] == ["a", "b"], "in the order of the seats"
    assert result.verdict == "same", result.sentence


def test_refusals_are_counted_and_told(monkeypatch):
    asked = check(monkeypatch, FakeAsker(left=14, then=Refused("HTTP 500: oops", by_status=False)), ["a"])
    asked.ask(endpoint("a"), "chat", lambda text: None)
    [engine] = asked.result().engines
    assert "30 requests refused: HTTP 500: oops" in engine.missing
    assert engine.verdict == "unknown"


def in_time(monkeypatch, limit_s, clock):
    monkeypatch.setattr(asking, "Asker", FakeAsker())
    kept = []
    quality = FEW.model_copy(update={"limit_s": limit_s})
    return asking.ask_engine(
        *(endpoint("a"), "chat", PLAIN, questions_of(quality, 1), {}),
        *(lambda text: None, kept.append, lambda: float(sum(map(clock, kept)))),
    )


def test_it_ends_in_time(monkeypatch):
    said = in_time(monkeypatch, 10.0, lambda said: len(said.first) + len(said.loaded) + len(said.again))
    assert (len(said.first), len(said.loaded), len(said.again)) == (6, 6, 0)
    assert said.missing == [
        "prompts and tasks, one at a time: 10 were not answered within 5.5 s",
        "prompts again, one at a time: 3 were not answered within 10 s",
    ]


def test_an_engine_that_is_too_slow_for_all_of_it_is_asked_the_same_of_each_kind(monkeypatch):
    """Else all of its time would go into answers that nothing is there to be held against."""
    said = in_time(monkeypatch, 24.0, lambda said: len(said.first) + len(said.again))
    assert said.first.keys() == said.loaded.keys() and len(said.first) == 14
    assert said.again.keys() == {place for place in said.first if place < FEW.prompts} and len(said.again) == 10
    assert said.missing == ["prompts and tasks, one at a time: 2 were not answered within 13.2 s"]


def test_answers_are_greedy_and_may_end(monkeypatch):
    asker = FakeAsker()
    asked = check(monkeypatch, asker, ["a"])
    asked.ask(endpoint("a"), "chat", lambda text: None)
    assert all(fields["temperature"] == 0 and "ignore_eos" not in fields for fields in asker.fields)
    assert len(asker.fields) == 2 * 16 + 12


def test_degenerate_text_voids_a_race_unless_that_is_accepted():
    result = QualityResult(verdict="degenerate", sentence="a does not compute the model.")
    with pytest.raises(UserError, match="--accept degenerate-text") as caught:
        refuse_degenerate(result, frozenset())
    assert caught.value.exit_code == 5
    refuse_degenerate(result, frozenset({"degenerate-text"}))
    refuse_degenerate(QualityResult(verdict="differ", sentence="x"), frozenset())


def test_a_file_that_cannot_be_read_stops_it_before_any_question(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        AnswerCheck(FEW.model_copy(update={"file": str(tmp_path / "none.jsonl")}), 1, ["a"])
