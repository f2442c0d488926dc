"""Users who chat: what they send and when, without a server, and through Locust with one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from loadgen.scenario.cell import Cell
from loadgen.scenario.shapes import Conversation
from loadgen.traffic import chat_user
from loadgen.traffic.block import Traffic
from loadgen.traffic.chat_user import ChatUser, closed_loop_user
from loadgen.traffic.plan import BlockPlan
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import Bench
from tests.loadgen.records import record
from tests.loadgen.traffic.test_plan import plan

CHAT = Conversation(turns=3, message_tokens=7, think_s=2.0)
NS = 1_000_000_000


class Sent:
    """Traffic whose answers take a second each, in a time that passes only by waiting."""

    def __init__(self, monkeypatch, made: BlockPlan, worker: str = "a") -> None:
        self.now = 0
        self.requests: list[dict[str, Any]] = []
        self.traffic = Traffic(made, lambda record: None, worker)
        monkeypatch.setattr(self.traffic, "send_one", self.send_one)
        monkeypatch.setattr(chat_user, "wait_until", self.wait_until)
        monkeypatch.setattr(chat_user, "time", self)

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, due: int) -> None:
        assert due >= self.now
        self.now = due

    def send_one(self, connection: object, prompt: str, *, lengths: tuple[int, int], **request: Any) -> object:
        known = {"prompt": prompt, "prompt_tokens": lengths[0], "output_tokens": lengths[1], "at": self.now}
        self.requests.append({**request, **known})
        self.now += NS
        return record(0, [1])

    def user(self) -> ChatUser:
        made = closed_loop_user(self.traffic)
        assert isinstance(made, ChatUser)
        return made


def chat_plan(chat: Conversation = CHAT, **fields: Any) -> BlockPlan:
    return plan(**{"cell": Cell(30, 10, 2, conversation=chat), "workers": ("a", "b"), **fields})


def play(monkeypatch, requests: int, made: BlockPlan | None = None, worker: str = "a") -> list[dict[str, Any]]:
    sent = Sent(monkeypatch, made or chat_plan(), worker)
    user = sent.user()
    for _ in range(requests):
        user.send()
    return sent.requests


def test_each_prompt_opens_with_the_one_before_and_is_of_its_turns_length(monkeypatch):
    requests = play(monkeypatch, 9)
    assert [r["prompt_tokens"] for r in requests] == [30, 47, 64] * 3
    words = [json.loads(r["prompt"]).split() for r in requests]
    assert [len(w) + 5 for w in words] == [30, 47, 64] * 3, "5 tokens stand around the words"
    for n in range(0, 9, 3):
        assert words[n + 1][: len(words[n])] == words[n]
        assert words[n + 2][: len(words[n + 1])] == words[n + 1]
    assert len({w[0] for w in words}) == 3, "each conversation is another from its first word"
    assert [r["index"] for r in requests] == list(range(9))


def test_users_of_all_workers_start_at_different_turns_with_conversations_of_their_own(monkeypatch):
    a, b = play(monkeypatch, 7, worker="a"), play(monkeypatch, 7, worker="b")
    assert [r["prompt_tokens"] for r in b] == [47, 64, 30, 47, 64, 30, 47]
    first_words = [{json.loads(r["prompt"]).split()[0] for r in requests} for requests in (a, b)]
    assert not first_words[0] & first_words[1]


def test_both_engines_get_the_same(monkeypatch):
    kept = ("prompt", "prompt_tokens", "output_tokens", "due")
    first, second = ([{k: r[k] for k in kept} for r in play(monkeypatch, 8)] for _ in range(2))
    assert first == second


def test_users_think_for_as_long_as_was_asked(monkeypatch):
    fixed = play(monkeypatch, 4, chat_plan(CHAT.model_copy(update={"think": "fixed"})))
    assert [r["at"] / NS for r in fixed] == [0, 3, 6, 9]
    assert [r["due"] for r in fixed] == [None, 3 * NS, 6 * NS, 9 * NS]
    drawn = play(monkeypatch, 4001)
    pauses = [(b["at"] - a["at"]) / NS - 1 for a, b in itertools.pairwise(drawn)]
    mean = sum(pauses) / len(pauses)
    assert abs(mean - 2) < 4 * 2 / 4000**0.5
    # Exponential: as wide as its mean, and 1/e of the pauses are longer than that.
    assert abs(sum(pause > 2 for pause in pauses) / 4000 - 0.3679) < 4 * (0.3679 * 0.6321 / 4000) ** 0.5


def test_without_a_pause_it_is_an_ordinary_closed_loop(monkeypatch):
    requests = play(monkeypatch, 3, chat_plan(CHAT.model_copy(update={"think_s": 0.0})))
    assert [(r["at"] / NS, r["due"]) for r in requests] == [(0, None), (1, None), (2, None)]


@pytest.mark.integration
def test_chats_with_a_shared_beginning_through_two_workers(tmp_path):
    chat = {"turns": 3, "message_tokens": 4, "think_s": 0.05}
    with FaultServer() as a, FaultServer() as b:
        scenario = {"conversation": chat, "shared_prefix": [0, 0.5], "load": {"concurrency": [3]}, "requests": 12}
        with Bench(tmp_path, {"a": a, "b": b}, workers=2, **scenario) as bench:
            assert bench.wait() == 0, bench.output
        run = bench.load()
    assert [block.facts.cell for block in run.blocks][::2] == [
        "p0032-o0008-c003-k3m4w0.05e",
        "p0032-o0008-c003-s50-k3m4w0.05e",
    ]
    for block in run.blocks:
        records = [r for r in block.records if r.ok]
        assert {r.prompt_tokens_wanted for r in records} == {32, 44, 56}
        assert all(r.prompt_tokens == r.prompt_tokens_wanted for r in records)
        assert len(block.measured) == 12
        # A pause is no idleness of the load generator: the record says when the user wanted to go on.
        waited = [r for r in records if r.index]
        assert all(r.t_send >= r.t_intended for r in waited)
        assert any(r.t_send != r.t_intended for r in waited)
        assert block.facts.client is not None and not block.facts.client.idle_share
