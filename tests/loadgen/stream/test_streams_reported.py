"""Streams that people reported, each played over a real socket with its timing and held to the figures it must give."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest

from loadgen.metrics.definitions import tpot_ms
from loadgen.record import RequestRecord
from loadgen.stream.exchange import RequestSettings, exchange
from loadgen.stream.http_stream import Connection
from loadgen.stream.timeouts import Timeouts
from tests.loadgen.records import record

PROMPT = 5
GAP = 0.012
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITS = Timeouts(connect_s=60, stall_s=4, total_s=60)
PATIENT = Timeouts(connect_s=60, stall_s=120, total_s=120)
Step = bytes | float | dict[str, Any]


def said(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def counted(completion: int, **more: Any) -> dict[str, Any]:
    told = {"prompt_tokens": PROMPT, "completion_tokens": completion, "total_tokens": PROMPT + completion, **more}
    return {"choices": [], "usage": told}


def written(*steps: Step) -> bytes:
    """Several events in one write, as one chunk."""
    data = b"".join(s if isinstance(s, bytes) else b"data: " + json.dumps(s).encode() + b"\n\n" for s in steps)  # type: ignore[arg-type]
    return b"%x\r\n%b\r\n" % (len(data), data)


def spaced(*events: dict[str, Any]) -> list[Step]:
    return [step for event in events for step in (written(event), GAP)]


TOKEN = said(content=" tok")
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def closing(tokens: int, finish: str = "length", done: bytes = DONE, **usage: Any) -> list[Step]:
    return [written(said(finish), counted(tokens, **usage), done), END]


def play(
    steps: list[Step],
    requests: int = 1,
    tokens: int = 4,
    limits: Timeouts = PATIENT,
    writes: list[int] | None = None,
    head: bytes = HEAD,
    wanted: dict[str, int] | None = None,
    **settings: Any,
) -> list[RequestRecord]:
    """Records of so many requests of one user, each answered with these bytes and pauses (seconds).

    `writes` gets the time of each step's beginning and of the end, ns.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while sock.recv(65536):
                for step in [head, *steps]:
                    if writes is not None:
                        writes.append(time.monotonic_ns())
                    time.sleep(step) if isinstance(step, float) else sock.sendall(step)  # type: ignore[arg-type]
                if writes is not None:
                    writes.append(time.monotonic_ns())
                if steps[-1] != END:
                    stop.wait()  # the connection stays open and says nothing
                    return

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}", 60.0)
    made = []
    try:
        for _ in range(requests):
            now = time.monotonic_ns()
            lengths = {"prompt_tokens_wanted": PROMPT, "output_tokens_wanted": tokens} | (wanted or {})
            made.append(record(now, **lengths))
            exchange(connection, b"{}", made[-1], RequestSettings("/v1/chat/completions", {}, limits, **settings))
    finally:
        stop.set()
        connection.close()
        listener.close()
    return made


CLUMPS = [step for _ in range(4) for step in (written(*[TOKEN] * 8), 8 * GAP)]
NO_TPOT = {
    "a proxy that hands on clumps of 8": ([*CLUMPS, *closing(32)], 32, "clumps"),
    "a proxy that hands on the whole answer": ([0.05, written(*[TOKEN] * 4), *closing(4)], 4, "one_arrival"),
    "the whole answer in one event": ([0.05, written(said(content=" a b c d")), *closing(4)], 4, "one_event"),
    "hidden reasoning that is counted": ([0.05, *spaced(*[TOKEN] * 8), *closing(108)], 108, "tokens_per_event"),
}


@pytest.mark.parametrize("name", NO_TPOT)
def test_a_stream_without_tpot_gives_none_and_says_why(name):
    steps, tokens, basis = NO_TPOT[name]
    (made,) = play(steps, tokens=tokens)
    assert (made.error, made.output_tokens, made.tpot_basis, tpot_ms(made)) == (None, tokens, basis, None)


THOUGHT = [said(reasoning_content=" hm")] * 20
TPOT = {
    "a token an event": ([*spaced(*[TOKEN] * 12), *closing(12)], 12),
    "streamed reasoning outside of completion_tokens": (
        [*spaced(*THOUGHT, *[TOKEN] * 4), *closing(4, total_tokens=PROMPT + 24)],
        24,
    ),
}


@pytest.mark.parametrize("name", TPOT)
def test_a_stream_with_tpot_gives_that_of_its_server(name):
    steps, tokens = TPOT[name]
    writes: list[int] = []
    (made,) = play(steps, tokens=tokens, writes=writes)
    assert (made.error, made.output_tokens) == (None, tokens)
    # Sleeps are never short, and long where all is busy. The last token may be read with the end that follows.
    assert GAP * 1e3 <= (tpot_ms(made) or 0) <= (writes[-1] - writes[1]) / (tokens - 1) / 1e6


FAILED = {
    "finish reason abort": (closing(2, "abort"), "finish_abort", "abort"),
    "finish reason error": (closing(2, "error"), "finish_error", "error"),
    "finish reason content_filter": (closing(2, "content_filter"), "content_filter", "content_filter"),
    "an error in a choice": (
        [
            written({"choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "away"}}]}),
            END,
        ],
        "choice_error",
        "away (502)",
    ),
    "an error of another shape": ([written({"detail": "overloaded"}), END], "unknown_event", "overloaded"),
    "no finish reason before the end": ([written(counted(2), DONE), END], "no_finish", "[DONE]"),
    "no usage but zero": (closing(0), "zero_usage", "no output token"),
    "comments for ever": ([step for _ in range(30) for step in (written(b": ping\n\n"), 0.2)], "stall_timeout", "4"),
}


@pytest.mark.parametrize("name", FAILED)
def test_what_failed_is_no_success_and_keeps_the_servers_words(name):
    steps, kind, words = FAILED[name]
    (made,) = play([*spaced(TOKEN, TOKEN), *steps], tokens=2, limits=LIMITS)
    assert made.error == kind and words in (made.error_detail or "") and made.events == 2


@pytest.mark.parametrize(
    "done", [b"data: [DONE] \n\n", b"data:  [DONE]\n\n", b'data: "[DONE]"\n\n', b"data:[DONE]\r\n\r\n"]
)
def test_done_ends_the_answer_however_it_is_written(done):
    (made,) = play([*spaced(*[TOKEN] * 4), *closing(4, done=done)])
    assert (made.error, made.output_tokens) == (None, 4)


def test_a_connection_held_open_behind_done_holds_nobody():
    steps = [*spaced(*[TOKEN] * 4), *closing(4)[:-1]]
    started = time.monotonic()
    made = play(steps, requests=3)
    assert [r.error for r in made] == [None] * 3
    assert time.monotonic() - started < 100


def test_half_a_surrogate_pair_is_counted_or_replaced_and_ends_nothing():
    halves = [written(b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"},"finish_reason":null}]}\n\n')] * 4
    (made,) = play([*halves, written(said("length"), DONE), END], count_tokens=len, tokens=4)
    assert (made.error, made.text, made.output_tokens) == (None, "�" * 4, 4)
