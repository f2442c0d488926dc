"""What people reported of endpoints, played against `bakeoff run`: figures, exit code and words that each must give."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from loadgen.endpoints.tokens import words
from tests.loadgen.bench.races import WENT_WELL
from tests.loadgen.quick.case_server import Asked, Played, Refusal, played
from tests.loadgen.stream.test_streams_reported import DONE, END, Step, said, written

pytestmark = pytest.mark.integration
GAP = 0.02
BUSY = 3
"""By how much a machine that is busy may put times off; what was reported is farther off."""
TOKEN = said(content=" tok")


def role() -> bytes:
    return written(said(role="assistant", content=""))


def tokens(count: int, gap: float = GAP, **delta: Any) -> list[Step]:
    """An event each `gap` seconds."""
    event = said(**(delta or {"content": " tok"}))
    return [step for _ in range(count) for step in (written(event), gap)]


def usage(asked: Asked, count: int, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": asked.counted(count, **more)}


def closing(asked: Asked, count: int, finish: str = "length", done: bytes = DONE, **more: Any) -> list[Step]:
    return [written(said(finish), usage(asked, count, **more), done), END]


def clumps(asked: Asked) -> list[Step]:
    clump: list[Step] = [8 * GAP, written(*[TOKEN] * 8)]
    return [role(), *clump * (asked.wanted // 8), *closing(asked, asked.wanted)]


def four(asked: Asked) -> list[Step]:
    return [role(), *tokens(4), *closing(asked, 4)]


def at_once(asked: Asked) -> list[Step]:
    told = (said("length"), usage(asked, 4), DONE)
    return [0.1, written(said(role="assistant", content=""), *[TOKEN] * 4, *told), END]


def one_event(asked: Asked) -> list[Step]:
    return [role(), 0.1, written(said(content=" a b c d")), *closing(asked, 4)]


def hidden(asked: Asked) -> list[Step]:
    told = {"completion_tokens_details": {"reasoning_tokens": 100}}
    return [role(), 0.3, *tokens(8), *closing(asked, 108, "stop", **told)]


def outside(asked: Asked) -> list[Step]:
    told = {"total_tokens": asked.prompt + 24, "completion_tokens_details": {"reasoning_tokens": 20}}
    thought = tokens(20, reasoning_content=" hm")
    return [role(), *thought, *tokens(4), *closing(asked, 4, "stop", **told)]


def uncounted(asked: Asked) -> list[Step]:
    """A token each 2 ms and no usage, as text completions."""
    event = {"choices": [{"index": 0, "text": " tok", "finish_reason": None}]}
    last = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    return [*[s for _ in range(asked.wanted) for s in (written(event), 0.002)], written(last, DONE), END]


def halves(asked: Asked) -> list[Step]:
    texts = ["\ud83d", "\ude00"] * 2
    events = [written({"choices": [{"index": 0, "text": text, "finish_reason": None}]}) for text in texts]
    last = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    return [*[step for event in events for step in (event, GAP)], written(last, DONE), END]


def ended_by(finish: str, **of_choice: Any) -> Any:
    def stream(asked: Asked) -> list[Step]:
        last = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": finish, **of_choice}]}
        return [role(), *tokens(2), written(last, usage(asked, 2), DONE), END]

    return stream


def done_as(done: bytes) -> Any:
    return lambda asked: [role(), *tokens(4), *closing(asked, 4, done=done)]


def held_open(asked: Asked) -> list[Step]:
    return [*four(asked)[:-1], 3.0]


def pings_for_ever(asked: Asked) -> list[Step]:
    return [*four(asked)[:-1], *[step for _ in range(30) for step in (0.1, written(b": ping\n\n"))]]


def usage_in_choice(asked: Asked) -> list[Step]:
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length", "usage": asked.counted(4)}]}
    return [role(), *tokens(4), written(last, DONE), END]


def usage_of_groq(asked: Asked) -> list[Step]:
    return [role(), *tokens(4), written({**said("length"), "x_groq": {"usage": asked.counted(4)}}, DONE), END]


def usage_of_zero(_: Asked) -> list[Step]:
    zero = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    return [*tokens(4), written(said("length"), {"choices": [], "usage": zero}, DONE), END]


def usage_last(asked: Asked) -> list[Step]:
    return [*tokens(4), written({**said("length"), "usage": asked.counted(4)}, DONE), END]


def only_below(path: str) -> Any:
    def refuse(asked: Asked) -> Refusal | None:
        if asked.path == f"{path}/models":
            return 200, {"data": [{"id": "m"}]}
        return None if asked.path.startswith(f"{path}/") else (404, {"error": f"no such route {asked.path}"})

    return refuse


def streams_only(asked: Asked) -> Refusal | None:
    if not asked.body or asked.body.get("stream"):
        return None
    return 400, {"error": {"message": "This model only supports stream mode, please set stream to true"}}


def no_stream_options(asked: Asked) -> Refusal | None:
    detail = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
    return (422, {"detail": [detail]}) if "stream_options" in asked.body else None


def coded(coding: str) -> bytes:
    kinds = f"Content-Type: text/event-stream\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked"
    return f"HTTP/1.1 200 OK\r\n{kinds}\r\n\r\n".encode()


@dataclasses.dataclass(frozen=True)
class Case:
    """`record`: fields of every record; `tpot`: ms a token, None where there must be none; `says`: words to be told."""

    server: Played
    options: tuple[str, ...] = ()
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    tpot: float | None = GAP * 1e3
    says: str = ""
    error: str | None = None
    """The kind that each request fails by."""


def text(stream: Any, **more: Any) -> Played:
    return Played(stream, overhead=0, counts=False, **more)


TEXT = ("--api", "completions", "--tokenizer")
LONG = (*TEXT, "TRUNCATED", "--output-tokens", "200")
EIGHT = {"output_tokens": 4, "events": 4}
NO_TPOT: dict[str, Any] = {"tpot": None}
CASES = {
    "clumps of 8": Case(
        Played(clumps),
        ("--output-tokens", "32"),
        {"output_tokens": 32, "tpot_basis": "clumps"},
        **NO_TPOT,
        says="No TPOT: events arrive in clumps of ",
    ),
    "all at once": Case(
        Played(at_once), record={"tpot_basis": "one_arrival"}, **NO_TPOT, says="No TPOT: whole answers arrive at once"
    ),
    "one event": Case(
        Played(one_event), record={"tpot_basis": "one_event"}, **NO_TPOT, says="No TPOT: whole answers come in one"
    ),
    "hidden reasoning": Case(
        Played(hidden),
        ("--output-tokens", "128", "--allow-short-output"),
        {"output_tokens": 108, "reasoning_tokens": 100},
    ),
    "reasoning outside completion_tokens": Case(Played(outside), record={"output_tokens": 24, "reasoning_tokens": 20}),
    "reasoning outside completion_tokens, of a limit for both": Case(
        Played(outside), ("--output-tokens", "24"), {"output_tokens": 24, "reasoning_tokens": 20}
    ),
    **{
        f"tokenizer with {kind}": Case(
            text(uncounted),
            (*TEXT, kind, "--output-tokens", "200"),
            {"output_tokens": 200, "token_source": "tokenizer"},
            tpot=2.0,
        )
        for kind in ("nothing", "truncation", "padding")
    },
    "finish abort": Case(Played(ended_by("abort")), error="finish_abort", says="aborted"),
    "finish error": Case(Played(ended_by("error")), error="finish_error", says="error"),
    "finish content_filter": Case(Played(ended_by("content_filter")), error="content_filter", says="content filter"),
    "error in a choice": Case(
        Played(ended_by("error", error={"code": 502, "message": "upstream provider went away"})),
        error="choice_error",
        says="upstream provider went away (502)",
    ),
    "held open behind DONE": Case(Played(held_open), ("--stall-timeout", "2"), EIGHT),
    "pings behind DONE": Case(Played(pings_for_ever), ("--stall-timeout", "2"), EIGHT),
    "DONE and a blank": Case(Played(done_as(b"data: [DONE] \n\n")), record=EIGHT),
    "two blanks and DONE": Case(Played(done_as(b"data:  [DONE]\n\n")), record=EIGHT),
    "DONE in quotes": Case(Played(done_as(b'data: "[DONE]"\n\n')), record=EIGHT),
    "halves of a surrogate pair": Case(
        text(halves, text="tok"),
        (*TEXT, "nothing", "--allow-short-output"),
        {"text": "\U0001f600" * 2, "token_source": "tokenizer"},
        **NO_TPOT,
    ),
    "usage in a choice": Case(Played(usage_in_choice), record=EIGHT),
    "usage of Groq": Case(Played(usage_of_groq), record=EIGHT),
    "usage of zero": Case(Played(usage_of_zero), error="zero_usage", says="counted no output token, though text came"),
    "usage of zero, with a tokenizer": Case(
        Played(usage_of_zero), ("--tokenizer", "nothing"), EIGHT | {"token_source": "tokenizer"}
    ),
    "coded as Identity": Case(Played(four, head=coded("Identity")), record=EIGHT),
    "coded as nothing": Case(Played(four, head=coded("")), record=EIGHT),
    "another path, found": Case(
        Played(usage_last, refuse=only_below("/api/v3")), ("--model", "m"), EIGHT, says="/api/v3"
    ),
    "another path, given": Case(
        Played(usage_last, refuse=only_below("/api/v9")), ("--model", "m", "--api-path", "/api/v9"), EIGHT
    ),
    "streams only": Case(Played(four, refuse=streams_only), record=EIGHT, says="stream"),
    "no stream_options": Case(Played(usage_last, refuse=no_stream_options), record=EIGHT, says="stream_options"),
    "a tag ends the reasoning": Case(
        Played(lambda asked: [*tokens(2), *tokens(1, content="</think>"), *tokens(1), *closing(asked, 4)]),
        ("--reasoning-end", "</think>"),
        {**EIGHT, "text": None},
        says="First answer token",
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with played({name.replace(" ", "-"): case.server for name, case in CASES.items()} | TRACED) as url:
        yield url


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the same tokenizer, a word a token, saved as different people save theirs."""
    vocabulary = {word: n for n, word in enumerate(("[UNK]", "[PAD]", "tok", *words()))}
    made = {}
    for kind in ("nothing", "truncation", "padding"):
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        if kind == "truncation":
            tokenizer.enable_truncation(64)
        if kind == "padding":
            tokenizer.enable_padding(length=64, pad_id=1, pad_token="[PAD]")
        made[kind] = tmp_path_factory.mktemp(kind)
        tokenizer.save(str(made[kind] / "tokenizer.json"))
    return made


def ran(loadgen: Any, tmp_path: Path, *given: str) -> tuple[int, str, dict[str, Any], list[dict[str, Any]]]:
    """Exit code, all that was said, the result, and the records that were asked for."""
    files = tmp_path / "result.json", tmp_path / "records.jsonl"
    done = loadgen("run", *given, "--json", str(files[0]), "--records", str(files[1]))
    lines = files[1].read_text().splitlines() if files[1].exists() else []
    result = json.loads(files[0].read_text()) if files[0].exists() else {}
    return done.returncode, done.stdout + done.stderr, result, [json.loads(line) for line in lines]


CELL = ("--requests", "3", "--warmup-requests", "0", "--prompt-tokens", "32", "--output-tokens", "4")


@pytest.mark.parametrize("name", CASES)
def test_a_reported_endpoint(loadgen, server, tokenizers, tmp_path, name):
    case = CASES[name]
    options = [str(tokenizers.get(word, word)) for word in case.options]
    code, said, result, records = ran(loadgen, tmp_path, "--base-url", server + name.replace(" ", "-"), *CELL, *options)
    assert case.says in said, said
    # The request behind the last one that was wanted is broken off.
    records = [r for r in records if r["error"] != "aborted"]
    assert [r["error"] for r in records[:2]] == [case.error] * 2, said
    for key, value in case.record.items():
        found = {r[key] for r in records[:2]}
        # Of an answer that a busy machine read late, nobody knows whether its events came in clumps.
        assert value in found if value == "clumps" else found == {value}, key
    if case.error is not None:
        assert (code, set(result["errors"])) == (1, {case.error})
        return
    assert (code in WENT_WELL, result["errors"]) == (True, {}), said
    each = [(r["t_last"] - r["t_first"]) / 1e6 / r["tpot_tokens"] for r in records if r["tpot_tokens"]]
    if case.tpot is None:
        assert result["tpot_ms"]["mean"] is None
        assert not each or case.record.get("tpot_basis") == "clumps", "others are no matter of time"
    else:  # a machine that is busy may hold up one or another; what was reported puts all of them off
        assert any(case.tpot / BUSY < value < case.tpot * BUSY for value in each), each


TRACED = {"traced": Played(lambda asked: [role(), *tokens(4, 0.005), *closing(asked, 4)])}
TRACES = {
    "byte order mark": (
        "\ufeff" + "".join(f'{{"t": {at}, "prompt_tokens": 20, "output_tokens": 4}}\n' for at in (0, 0.1, 0.2)),
        (),
        [0, 100, 200],
        "",
    ),
    "all at once": ('{"t": 0}\n' * 4, (), [0, 0, 0, 0], "all its 4 arrivals are at one moment"),
    "from the middle": ('{"t": 6}\n{"t": 6.1}\n\n{"t": 6.2}\n', ("--rebase",), [0, 100, 200], ""),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_reported_trace(loadgen, server, tmp_path, name):
    text, options, arrivals, told = TRACES[name]
    trace = tmp_path / "trace.jsonl"
    trace.write_text(text)
    given = ("--arrival", "trace", "--trace", str(trace), "--warmup-requests", "0", *options)
    lengths = () if "prompt_tokens" in text else ("--prompt-tokens", "32", "--output-tokens", "4")
    code, said, result, records = ran(loadgen, tmp_path, "--base-url", f"{server}traced", *given, *lengths)
    assert code in WENT_WELL and result["requests"] == len(arrivals) and told in said, said
    intended = sorted(r["t_intended"] for r in records)
    assert [round((at - intended[0]) / 1e6) for at in intended] == arrivals


def test_a_trace_from_the_middle_is_told_before_it_is_waited_for(loadgen, server, tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"t": 6}\n{"t": 6.1}\n')
    given = ("--arrival", "trace", "--trace", str(trace), "--warmup-requests", "0", "--duration", "0.1")
    code, said, *_ = ran(loadgen, tmp_path, "--base-url", f"{server}traced", *given, *CELL[4:])
    assert code == 1 and "nothing is sent for 6 s" in said and "rebase" in said
