"""Streams of real servers, as they came from their sockets, give the records that are worked out beside them.

A file of tests/data/streams is what was asked, then a line for each read: ms after the request, and the bytes. Those of
Ollama and Azure are written by hand, of the form that their documentation shows. `golden.json` was made of them by
Python's json alone: what each event says, in order, and subtraction.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadgen.metrics.definitions import answer_ms, e2e_ms, tpot_ms, ttft_ms
from loadgen.record import RequestRecord
from loadgen.stream.event_reader import EventReader
from loadgen.stream.http_parser import ResponseParser
from loadgen.stream.token_basis import settle_tokens
from tests.loadgen.records import MS, record
from tests.loadgen.stream.test_streams_reported import END, HEAD, play

DATA = Path(__file__).parents[2] / "data"
GOLDEN: dict[str, dict[str, Any]] = json.loads((DATA / "streams" / "golden.json").read_text())
TIMED = [name for name, golden in GOLDEN.items() if "ttft_ms" in golden]
UNTIMED = ("events", "prompt_tokens", "output_tokens", "reasoning_tokens", "finish_reason", "text")
TIMES = {"ttft_ms": ttft_ms, "e2e_ms": e2e_ms, "answer_ms": answer_ms, "tpot_ms": tpot_ms}


def reads(name: str) -> list[tuple[float, bytes]]:
    lines = (DATA / "streams" / f"{name}.jsonl").read_text().splitlines()[1:]
    return [(ms, text.encode()) for ms, text in map(json.loads, lines)]


def replayed(name: str, size: int | None = None, *, keep: bool = True, whole: bool = False) -> RequestRecord:
    """The record of a stream whose reads come when they came; in pieces of `size` bytes, if it is given."""
    made, parser = record(0), ResponseParser()
    reader = EventReader(made, 0, kernel=True, keep_text=keep)
    for ms, data in reads(name):
        pieces = [data] if size is None else [data[at : at + size] for at in range(0, len(data), size)]
        for piece in pieces:
            if body := parser.feed(piece):
                reader.feed(body, round(ms * MS), round(ms * MS))
    assert parser.complete and parser.problem is None and reader.done
    reader.close()
    settle_tokens(made, reader, None, whole=whole)
    return made


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("name", TIMED)
def test_a_captured_stream_gives_its_golden_record(name, size):
    golden = GOLDEN[name]
    made = replayed(name, size)
    assert made.error is None
    assert {key: getattr(made, key) for key in UNTIMED} == {key: golden[key] for key in UNTIMED}
    assert (made.tpot_basis, made.tpot_tokens) == (golden["tpot_basis"], golden["tpot_tokens"])
    assert {key: of(made) for key, of in TIMES.items()} == pytest.approx({key: golden[key] for key in TIMES}, abs=1e-4)


@pytest.mark.parametrize("name", TIMED)
def test_the_shorter_way_without_text_reads_the_same(name):
    whole, short = replayed(name), replayed(name, keep=False)
    assert (short.text, short.event_offsets_ns) == (None, whole.event_offsets_ns)
    for key in ("t_answer", "tpot_basis", "tpot_tokens", "output_tokens", "finish_reason"):
        assert getattr(short, key) == getattr(whole, key)


@pytest.mark.parametrize("name", TIMED)
def test_a_server_that_is_known_to_send_all_that_it_counts_gets_no_other_tpot(name):
    """A parser takes the marks of reasoning, and what calls a tool, out of the text; they are counted all the same."""
    made = replayed(name, whole=True)
    assert (made.tpot_basis, made.tpot_tokens) == (GOLDEN[name]["tpot_basis"], GOLDEN[name]["tpot_tokens"])


@pytest.mark.parametrize("name", GOLDEN)
def test_a_captured_stream_over_a_socket(name):
    golden = GOLDEN[name]
    if name in TIMED:
        steps: list[Any] = [data for _, data in reads(name)]
    else:
        body = (DATA / f"{name}.sse").read_bytes()
        steps = [HEAD, b"%x\r\n%b\r\n" % (len(body), body), END]
    wanted = {"prompt_tokens_wanted": golden["prompt_tokens"], "output_tokens_wanted": golden["output_tokens"]}
    (made,) = play(steps, head=b"", wanted=wanted, keep_text=True)
    assert made.error is None, made.error_detail
    assert {key: getattr(made, key) for key in UNTIMED} == {key: golden[key] for key in UNTIMED}


def test_the_goldens_are_of_every_server_that_can_be_had():
    for kind in (
        "vllm-0.32.0-completions",
        "vllm-0.32.0-chat",
        "llamacpp",
        "ksana",
        "sglang-0.5.23-completions",
        "sglang-0.5.23-chat",
        "ollama-like",
        "azure-like",
    ):
        assert any(name.startswith(kind) for name in GOLDEN), kind
    assert {name for name in GOLDEN if name in TIMED} == {path.stem for path in (DATA / "streams").glob("*.jsonl")}
