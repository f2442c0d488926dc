"""What a stream says of its answer: tokens, TPOT's basis, reasoning and failures, event by event, without a socket."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.metrics.definitions import answer_ms, no_tpot, tpot_ms, tpots_ms
from loadgen.record import ErrorKind, RequestRecord
from loadgen.stream.event_reader import EventReader
from loadgen.stream.stream_event import EMPTY, NamedPayload, classify
from loadgen.stream.token_basis import gaps_below, settle_tokens
from tests.loadgen.records import MS, record

PROMPT = 32


def chunk(finish: str | None = None, *, text: str | None = None, **delta: Any) -> dict[str, Any]:
    delta = delta if text is None else {"content": text}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def usage(completion: int, *, total: int | None = None, reasoning: int | None = None) -> dict[str, Any]:
    told = {"prompt_tokens": PROMPT, "completion_tokens": completion, "total_tokens": total or PROMPT + completion}
    details = {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return {"choices": [], "usage": {**told, **details}}


def read(
    *steps: tuple[float, list[Any]], lag_ms: float = 0, count=None, whole=False, end: str | None = None
) -> RequestRecord:
    """The record of a stream whose events arrive at these ms."""
    made = record(0)
    keep = count is not None or end is not None
    reader = EventReader(made, 0, kernel=True, keep_text=keep, reasoning_end=end)
    for at, events in steps:
        data = b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events)
        reader.feed(data, round(at * MS), round((at + lag_ms) * MS))
    reader.close()
    settle_tokens(made, reader, count, whole=whole)
    return made


def words(text: str) -> int:
    return len(text.split())


def apart(count: int, each: int = 1, gap: float = 20, at: float = 20, key: str = "content") -> list[Any]:
    """One event each `gap` ms, of `each` tokens."""
    return [(at + gap * n, [chunk(**{key: " tok" * each})]) for n in range(count)]


def clumps(count: int, size: int, gap: float = 20, spread_ms: float = 0) -> list[Any]:
    """`count` tokens, each an event, of which `size` are handed on together."""
    return [(gap * (n - n % size + size) + spread_ms * (n % size), [chunk(text=" tok")]) for n in range(count)]


def written(times_ms: Sequence[float], tokens: int) -> float:
    """TPOT by its definition, from when a server wrote each event: shares nothing with the product."""
    return (times_ms[-1] - times_ms[0]) / (tokens - 1)


@pytest.mark.parametrize("tokens", [4, 5, 8, 32, 128])
@pytest.mark.parametrize("seed", range(5))
def test_an_event_a_token_is_held_to_the_definition_whatever_comes_together_by_chance(tokens, seed):
    chance, times = random.Random(f"{tokens} {seed}"), [50.0]
    while len(times) < tokens:
        together = chance.random() < 0.3 and sum(a == b for a, b in itertools.pairwise(times)) < tokens // 4
        together = together and times[-2:].count(times[-1]) < 2
        times.append(times[-1] if together else times[-1] + chance.uniform(15, 25))
    made = read(*[(at, [chunk(text=" tok")]) for at in times], (9000, [usage(tokens)]))
    assert tpot_ms(made) == pytest.approx(written(times, tokens), rel=1e-6)


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("tokens", [12, 17, 33, 128])
def test_clumps_are_told_from_chance(size, tokens):
    made = read(*clumps(tokens, size), (9000, [usage(tokens)]))
    assert (made.tpot_basis, tpot_ms(made)) == ("clumps", None)


@given(st.lists(st.integers(-5, 40), min_size=1, max_size=300), st.integers(1, 30))
def test_gaps_are_counted_as_a_loop_counts_them(gaps, least):
    times = list(itertools.accumulate([10**9, *(gap * 1000 for gap in gaps)]))
    assert gaps_below(least * 1000 - 500, times) == sum(
        b - a < least * 1000 - 500 for a, b in itertools.pairwise(times)
    )


CARRIED = {
    "a token an event": (read(*apart(32), (700, [usage(32)])), "events", 31),
    "the first two happen to arrive together": (
        read((20, [chunk(text=" a"), chunk(text=" b")]), *apart(6, at=43.33, gap=23.33), (700, [usage(8)])),
        "events",
        7,
    ),
    "a proxy holds back the first 20": (
        read((400, [chunk(text=" tok")] * 20), *apart(108, at=420), (2600, [usage(128)])),
        "events",
        108,
    ),
    "four an event, counted": (read(*apart(8, 4, 80), (700, [usage(32)]), count=words), "tokenizer", 28),
    "four an event, of as many words": (
        read(*apart(8, 4, 80), (700, [usage(32)])),
        "first_event",
        28,
    ),
    "usage in every event": (
        read(*[(80.0 * n, [{**chunk(text=" ab"), "usage": usage(4 * n)["usage"]}]) for n in range(1, 9)]),
        "usage",
        28,
    ),
    "hidden reasoning, told": (read(*apart(8, at=2000), (2200, [usage(108, reasoning=100)])), "events", 7),
    "reasoning outside the count": (
        read(
            *apart(20, key="reasoning_content"),
            *apart(4, at=420),
            (600, [usage(4, total=PROMPT + 24, reasoning=20)]),
        ),
        "events",
        23,
    ),
    "tokens that grow along a long answer": (
        read(*apart(1, 1), *apart(16, 4, 80, at=100), *apart(32, 8, 160, at=1380), (7000, [usage(321)]), whole=True),
        "first_event",
        320,
    ),
    "read late by this process": (
        read(*clumps(32, 8), (700, [usage(32)]), lag_ms=80),
        "events",
        24,
    ),
}


@pytest.mark.parametrize("name", CARRIED)
def test_the_right_divisor(name):
    made, basis, tokens = CARRIED[name]
    assert (made.tpot_basis, made.tpot_tokens) == (basis, tokens)
    assert tpot_ms(made) == pytest.approx(20, rel=0.02)
    assert no_tpot([made]) is None and tpots_ms([made]) == [tpot_ms(made)]


NONE = {
    "clumps of 8": (read(*clumps(32, 8), (700, [usage(32)])), "clumps"),
    "clumps of 2": (read(*clumps(32, 2), (700, [usage(32)])), "clumps"),
    "clumps in several segments": (read(*clumps(32, 8, spread_ms=0.03), (700, [usage(32)])), "clumps"),
    "all at once": (read((300, [chunk(text=" tok")] * 4), (300, [usage(4)])), "one_arrival"),
    "all at once in segments": (
        read(*[(300 + n / 50, [chunk(text=" t")]) for n in range(9)], (301, [usage(9)])),
        "one_arrival",
    ),
    "one event": (read((300, [chunk(text=" a b c d")]), (300, [usage(4)])), "one_event"),
    "one token": (read((300, [chunk(text=" a")]), (320, [usage(1)])), "one_token"),
    "several an event from the first on, of one word": (
        read(*[(80.0 * n, [chunk(text="hippopotamus")]) for n in range(1, 9)], (700, [usage(32)]), whole=True),
        "tokens_per_event",
    ),
    "hidden reasoning of 50 in 1,000": (read(*apart(950), (20000, [usage(1000)])), "tokens_per_event"),
    "a first event of eight": (
        read((160, [chunk(text=" tok" * 8)]), *apart(24, at=180, key="content"), (700, [usage(32 + 9)])),
        "tokens_per_event",
    ),
    "hidden reasoning, not told": (read(*apart(8, at=2000), (2200, [usage(108)])), "tokens_per_event"),
    "reasoning that nobody counts": (
        read(*apart(20, key="reasoning"), *apart(4, at=420), (600, [usage(4)])),
        "more_events",
    ),
}


@pytest.mark.parametrize("name", NONE)
def test_no_figure_that_the_stream_cannot_carry(name):
    made, basis = NONE[name]
    assert (made.tpot_basis, made.tpot_tokens, tpot_ms(made)) == (basis, None, None)
    assert (no_tpot([made]) is None) == (basis == "one_token")


def test_a_few_requests_without_tpot_do_not_take_it_from_the_others():
    good, bad = CARRIED["a token an event"][0], NONE["clumps of 8"][0]
    assert len(tpots_ms([good] * 19 + [bad])) == 19
    assert tpots_ms([good] * 4 + [bad]) == []
    assert "clumps of 8" in str(no_tpot([good, bad]))


REASONING = {
    "reasoning_content": {"reasoning_content": "hm"},
    "reasoning": {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    "both names": {"reasoning_content": "hm", "reasoning": "hm"},
    "Mistral's parts": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    "thinking blocks": {"thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
    "Ollama's thinking": {"thinking": "hm", "content": ""},
    "Google's thought": {"content": "hm", "extra_content": {"google": {"thought": True}}},
}


@pytest.mark.parametrize("name", REASONING)
def test_the_first_token_may_be_reasoning_and_the_first_answer_token_stands_beside_it(name):
    delta = REASONING[name]
    event = classify(json.dumps(chunk(**delta)).encode())
    assert (event.content, event.answer, event.text) == (True, False, "hm")
    made = read((20, [chunk(**delta)]), (40, [chunk(**delta)]), *apart(4, at=60), (200, [usage(6, reasoning=2)]))
    assert (made.t_first, answer_ms(made), made.reasoning_tokens, made.output_tokens) == (20 * MS, 60, 2, 6)


def test_tags_inside_text_end_reasoning_only_where_that_is_asked_for():
    texts = ["<think>", "hm", "</thi", "nk>", "\n", "yes"]
    steps = [(20.0 * n, [chunk(text=text)]) for n, text in enumerate(texts, start=1)]
    assert answer_ms(read(*steps, (200, [usage(6)]), end="</think>")) == 120
    assert answer_ms(read(*steps, (200, [usage(6)]))) == 20


FAILED = {
    "abort": (chunk("abort"), ErrorKind.FINISH_ABORT, "abort"),
    "cancelled": (chunk("CANCELLED"), ErrorKind.FINISH_ABORT, "CANCELLED"),
    "error": (chunk("error"), ErrorKind.FINISH_ERROR, "error"),
    "no resources": (chunk("insufficient_system_resource"), ErrorKind.FINISH_ERROR, "resource"),
    "content filter": (chunk("content_filter"), ErrorKind.CONTENT_FILTER, "content_filter"),
    "safety": (chunk("SAFETY"), ErrorKind.CONTENT_FILTER, "SAFETY"),
    "in a choice": (
        {"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}]},
        ErrorKind.CHOICE_ERROR,
        "gone (502)",
    ),
    "a detail": ({"detail": "overloaded"}, ErrorKind.UNKNOWN_EVENT, "overloaded"),
    "a message": ({"message": "throttled", "code": 503}, ErrorKind.UNKNOWN_EVENT, "throttled (503)"),
    "another product": ({"token": {"id": 1, "text": "a"}}, ErrorKind.UNKNOWN_EVENT, "token"),
}


@pytest.mark.parametrize("name", FAILED)
def test_an_answer_that_ends_badly_is_no_success(name):
    event, kind, words_of_it = FAILED[name]
    made = read(*apart(2), (60, [event, usage(2), b"[DONE]"]))
    assert made.error == kind and words_of_it in (made.error_detail or "")


@pytest.mark.parametrize("payload", [b'{"type":"ping"}', b'{"choices":[]}', b"{}", NamedPayload(b"x", "ping")])
def test_signs_of_life_are_no_failure(payload):
    assert classify(payload) == EMPTY


@pytest.mark.parametrize("marker", [b"[DONE]", b"[DONE] ", b" [DONE]", b'"[DONE]"', b"'[DONE]'\t"])
def test_done_ends_the_answer_whatever_is_around_it(marker):
    made = read(*apart(2), (60, [chunk("stop"), usage(2), marker, chunk(text="more")]), (80, [b"{nonsense"]))
    assert made.ok and made.events == 2


PLACES = {
    "a choice": {"choices": [{"delta": {}, "finish_reason": "length", "usage": usage(4)["usage"]}]},
    "Groq": {**chunk("length"), "x_groq": {"usage": usage(4)["usage"]}},
    "Bedrock": {**chunk("stop"), "amazon-bedrock-invocationMetrics": {"inputTokenCount": 32, "outputTokenCount": 4}},
    "llama.cpp": {**chunk("stop"), "timings": {"prompt_n": 1, "predicted_n": 4}},
    "other names": {**chunk("stop"), "usage": {"input_tokens": 32, "output_tokens": 4}},
}


@pytest.mark.parametrize("name", PLACES)
def test_usage_is_found_wherever_it_stands(name):
    made = read(*apart(4), (100, [PLACES[name], b"[DONE]"]))
    assert (made.output_tokens, made.token_source, made.finish_reason in ("length", "stop")) == (4, "usage", True)


def test_halves_of_a_surrogate_pair_are_joined_or_replaced():
    halves = [(20.0 * n, [chunk(text=half)]) for n, half in enumerate(["\ud83d", "\ude00", "\ud83d"], start=1)]
    made = read(*halves, count=len)
    assert (made.text, made.output_tokens) == ("\U0001f600\ufffd", 2)
