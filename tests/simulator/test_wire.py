import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.plan import CONTENT, DONE, FINISH, ROLE, USAGE
from simulator.tokenizer import Tokenizer
from simulator.wire import Format, Writer

DATA = Path(__file__).resolve().parents[1] / "data"


def captured(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]


def dechunk(data: bytes) -> list[str]:
    """Decode strictly."""
    out = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        if length:
            assert rest[:length].endswith(b"\n\n")
            out.append(rest[:length].decode().removeprefix("data: ").rstrip("\n"))
        data = rest[length + 2 :]
    return out


def shape(value: Any) -> Any:
    """Keys in order and the types of values."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


def spacing(event: str) -> str:
    """The event with all its values blanked: what is left shows how the JSON is written."""
    return re.sub(r'("(?:[^"\\]|\\.)*")(?=\s*[,}\]])|\d+', "#", event)


def stream(personality: str, *, chat: bool) -> list[str]:
    writer = Writer(Format(personality, chat=chat, model="m"), "chatcmpl-1", 1795352296, 10, "length")
    last = (CONTENT | FINISH, USAGE | DONE) if personality == "vllm" else (CONTENT, FINISH | USAGE | DONE)
    data = writer.special(ROLE, 0, 0) + writer.contents(0, [1]) + writer.special(last[0], 5, 1)
    return dechunk(data + writer.special(last[1], 0, 6))


@pytest.mark.parametrize(
    ("personality", "name", "picks"),
    [
        ("vllm", "vllm-0.24.0-chat-stream.sse", [0, 1, -2, -1]),
        ("ksana", "ksana-c451219-chat-stream.sse", [0, 1, 1, 2]),
    ],
)
def test_a_chat_stream_is_written_as_the_engine_writes_it(personality: str, name: str, picks: list[int]) -> None:
    theirs = captured(name)
    *ours, done = stream(personality, chat=True)
    assert done == "[DONE]"
    assert len(ours) == 4
    for mine, pick in zip(ours, picks, strict=True):
        assert shape(json.loads(mine)) == shape(json.loads(theirs[pick]))
        assert spacing(mine) == spacing(theirs[pick])
    assert json.loads(ours[-1])["usage"] == {"prompt_tokens": 10, "total_tokens": 16, "completion_tokens": 6}


@pytest.mark.parametrize("personality", ["vllm", "ksana"])
@pytest.mark.parametrize("chat", [True, False])
@given(
    first=st.integers(0, 5000), groups=st.lists(st.integers(1, 3000), min_size=1, max_size=8), ones=st.integers(2, 999)
)
def test_events_carry_the_tokens_they_are_said_to(
    personality: str, chat: bool, first: int, groups: list[int], ones: int
) -> None:
    writer = Writer(Format(personality, chat=chat, model='a "model" of 100%'), "id-1", 1, 4, "stop")
    for sizes in (groups, [1] * ones):
        events = [json.loads(event) for event in dechunk(writer.contents(first, sizes))]
        texts = [e["choices"][0]["delta"]["content"] if chat else e["choices"][0]["text"] for e in events]
        assert [Tokenizer().count_text(text) - 1 for text in texts] == sizes
        assert all(event["model"] == 'a "model" of 100%' for event in events)


def test_text_goes_on_where_it_was() -> None:
    writer = Writer(Format("vllm", chat=False, model="m"), "id-1", 1, 0, "stop")
    whole = json.loads(writer.whole(2500))["choices"][0]["text"]
    parts = writer.contents(0, [1] * 700) + writer.contents(700, [3] * 600)
    assert "".join(json.loads(event)["choices"][0]["text"] for event in dechunk(parts)) == whole


def test_what_was_prepared_is_what_would_have_been_built() -> None:
    fmt = Format("vllm", chat=True, model="m")
    fresh, ready = (Writer(fmt, "id-1", 1, 4, "stop") for _ in range(2))
    for kind, tokens, made in ((ROLE, 0, 0), (CONTENT | FINISH, 2, 5), (USAGE | DONE, 0, 7)):
        ready.prepare(kind, tokens, made)
        assert ready.special(kind, tokens, made) == fresh.special(kind, tokens, made)
